"""SIGKILL under load, again and again: no row is lost, none is doubled, nothing stays set aside.

The judge is the provider's journal. A request's id is its prompt, so that the journal's calls and
the ledger's rows can be told apart request by request.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.quota_place import key, priced, secret
from tests.harness import Mobius
from tests.providers import Answer, Entry, Fails, FakeOpenAI
from tests.store.rows import open_ids, select, sums, sums_of_rows

pytestmark = pytest.mark.e2e

KILLS, PROOF_KILLS = 5, 100
WORKERS = 8
CALLS = 60  # at least, between two kills
SEED = 20_262
TPD = 10**9
TOKENS = 6
COLUMNS = "request_id, attempt, outcome, prompt_tokens, completion_tokens, nano_usd"


@dataclass
class Load:
    """Clients that ask without a pause until they are told to stop; half of them for streams."""

    url: str
    round: int
    whole: set[str] = field(default_factory=set)  # requests whose answer came to its end
    refused: list[str] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        headers = {"authorization": f"Bearer {secret('web')}"}
        async with httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=30.0, trust_env=False
        ) as client:
            await asyncio.gather(*(self._work(client, number) for number in range(WORKERS)))

    async def _work(self, client: httpx.AsyncClient, worker: int) -> None:
        number = 0
        while not self.stopping:
            number += 1
            request_id = f"k{self.round}-{worker}-{number}"
            try:
                await self._ask(client, request_id, stream=worker % 2 == 0)
            except httpx.TransportError:
                if not self.stopping:  # killed: whoever asks now asks nobody
                    await asyncio.sleep(0.01)

    async def _ask(self, client: httpx.AsyncClient, request_id: str, *, stream: bool) -> None:
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": request_id + "x" * (len(request_id) % 7)}],
            "max_tokens": 40,
            "stream": stream,
        }
        answer = await client.post(
            "/v1/chat/completions", json=body, headers={"x-request-id": request_id}
        )
        if answer.status_code == 200 and (not stream or answer.text.endswith("[DONE]\n\n")):
            self.whole.add(request_id)
        elif answer.status_code not in {200, 503}:
            self.refused.append(f"{answer.status_code} {answer.text}")


def config(base: str) -> dict[str, Any]:
    limits = {"max_parallel": WORKERS, "tpd": TPD, "rpd": TPD, "budget_usd": {"total": 1000}}
    return {
        "model_list": [priced("m", base)],
        "router_settings": {"num_retries": 1},
        "mobius": {
            "laps": 1,
            "backoff_base": 0.001,
            "retry_budget": {"share": 1.0, "min": 1000},
            "keys": [key("web", limits=limits)],
            "breaker": {"failures": 100_000, "min_calls": 100_000},
        },
    }


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        fake.always(Answer(tokens=TOKENS, gap_s=0.004))
        yield fake


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(KILLS, marks=pytest.mark.timeout(300)),
        pytest.param(PROOF_KILLS, marks=[pytest.mark.proof, pytest.mark.timeout(5400)]),
    ],
)
def test_a_server_that_is_killed_loses_and_doubles_nothing(
    provider: FakeOpenAI, kills: int
) -> None:
    chance = random.Random(SEED)  # noqa: S311  # of when, not of a secret
    with Mobius(config(provider.base_url)) as mobius:
        ledger, whole = mobius.folder / "data" / "mobius.db", set()
        for number in range(kills):
            provider.script(*([Answer(tokens=TOKENS, gap_s=0.004)] * 9 + [Fails(500)]) * 3)
            load = Load(mobius.url, number)
            asyncio.run(_kill_under(load, mobius, provider, CALLS + chance.randrange(40)))
            assert load.refused == []
            whole |= load.whole
            provider.journal.wait(lambda journal: journal.open_requests == 0)
            mobius.start()
            assert open_ids(ledger) == []
            _check(ledger, provider.journal.requests(), whole)
            _check_remaining(mobius, ledger, number)
            provider.reset_script()
            provider.always(Answer(tokens=TOKENS, gap_s=0.004))


async def _kill_under(load: Load, mobius: Mobius, provider: FakeOpenAI, calls: int) -> None:
    before = len(provider.journal)
    running = asyncio.create_task(load.run())
    await provider.journal.wait_async(lambda journal: len(journal) >= before + calls, 60.0)
    mobius.kill()
    load.stopping = True
    await running


def _check(ledger: Path, entries: list[Entry], whole: set[str]) -> None:
    """Each call that reached the provider has a row, and what ended well has its numbers."""
    rows: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for row in select(ledger, f"SELECT {COLUMNS} FROM attempts ORDER BY attempt"):  # noqa: S608
        rows[row[0]].append(row)
    calls: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        calls[entry.json["messages"][0]["content"].rstrip("x")].append(entry)
    lost = [name for name in calls if len(rows[name]) < len(calls[name])]
    assert lost == []
    for name, found in rows.items():
        assert [row[1] for row in found] == list(range(1, len(found) + 1)), "doubled"
        # A row that no call belongs to: it was killed between the two, and is charged in full.
        beside = found[len(calls[name]) :]
        assert [row[2] for row in beside] in ([], ["lost"])
        for row, entry in zip(found, calls[name], strict=False):
            _check_row(row, entry)
    assert {row[0] for found in rows.values() for row in found if row[2] == "ok"} >= whole
    assert sums(ledger) == sums_of_rows(ledger)


def _check_row(row: tuple[Any, ...], entry: Entry) -> None:
    _, _, outcome, prompt, completion, nano_usd = row
    match outcome:
        case "ok":
            assert entry.tokens_sent == tuple(range(TOKENS))
            assert entry.status == 200
            assert (prompt, completion) == (max(1, len(entry.body) // 4), TOKENS)
            assert nano_usd == prompt * 1000 + completion * 2000
        case "transient":
            assert entry.status == 500
            assert (prompt, completion, nano_usd) == (0, 0, 0)
        case _:
            assert outcome == "lost"
            assert completion == 40
            assert nano_usd >= prompt * 1000 + completion * 2000


def _check_remaining(mobius: Mobius, ledger: Path, number: int) -> None:
    """What the limits say is left is what the rows say, and every place is free."""
    answer = mobius.http.post(
        "/v1/chat/completions",
        json={"model": "m", "messages": [{"role": "user", "content": f"after{number}"}]},
        headers={"authorization": f"Bearer {secret('web')}", "x-request-id": f"after{number}"},
    )
    answer.raise_for_status()
    ((used, admitted),) = select(
        ledger, "SELECT sum(prompt_tokens + completion_tokens), sum(admitted) FROM totals"
    )
    assert int(answer.headers["x-ratelimit-remaining-tokens"]) == TPD - used
    assert int(answer.headers["x-ratelimit-remaining-requests"]) == TPD - admitted
