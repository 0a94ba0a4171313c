"""A provider that is late has another asked beside it; its time is learned from what it took.

The providers' journals say who was asked and who hung up; the ledger who pays.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.e2e.stream_checks import Visitor
from tests.harness import Mobius, mobius_command, total
from tests.providers import Answer, Fails, FakeOpenAI, Gate, Silent

pytestmark = pytest.mark.e2e

AFTER_S = 0.2
CROWD = 50
KEY = "sk-web-0123456789abcdef"
MASTER = "sk-master-0123456789abcdef"
HELLO: Any = [{"role": "user", "content": "hi"}]


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    first: FakeOpenAI
    second: FakeOpenAI

    def outcomes(self) -> Counter[tuple[str, str]]:
        """How many attempts of each target ended how, by the metrics."""
        found: Counter[tuple[str, str]] = Counter()
        for (name, labels), value in self.mobius.metrics().items():
            if name == "mobius_attempt_seconds_count":
                facts = dict(labels)
                found[facts["target"].rpartition("/")[2], facts["outcome"]] = int(value)
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        """What the ledger says of each target."""
        query = "/admin/usage?group_by=target"
        headers = {"authorization": f"Bearer {MASTER}"}
        rows = self.mobius.http.get(query, headers=headers).json()["rows"]
        return {row["target"].rpartition("/")[2]: row for row in rows}

    def check_idle(self) -> None:
        """Nothing is under way, nothing is set aside, nobody is blamed."""
        self.mobius.wait_until(
            lambda: total(self.mobius.metrics(), "mobius_in_flight_requests") == 0
        )
        for fake in (self.first, self.second):
            fake.journal.wait(lambda journal: journal.open_requests == 0)
        headers = {"authorization": f"Bearer {MASTER}"}
        assert self.mobius.http.get("/health", headers=headers).json()["unhealthy_count"] == 0


@pytest.fixture
def place() -> Iterator[Place]:
    with FakeOpenAI() as first, FakeOpenAI() as second:
        limits = {"tpm": 10_000_000, "max_parallel": CROWD}
        with Mobius(_config(first, second, limits, {"after": AFTER_S, "budget": 1})) as mobius:
            yield Place(mobius, first, second)


def _config(
    first: FakeOpenAI, second: FakeOpenAI, limits: dict[str, Any], hedge: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model_list": [_entry("a", first), _entry("b", second)],
        "router_settings": {"routing_strategy": "health-based"},
        "general_settings": {"master_key": MASTER},
        "mobius": {"hedge": hedge, "keys": [{"name": "web", "key": KEY, "limits": limits}]},
    }


def _entry(model: str, fake: FakeOpenAI, **params: Any) -> dict[str, Any]:
    where = {"api_base": fake.base_url, "api_key": "sk-provider-1234"}
    return {"model_name": "m", "litellm_params": {"model": f"openai/{model}", **where, **params}}


def test_whoever_waits_for_the_first_gets_the_answer_of_the_second(place: Place) -> None:
    place.first.always(Silent())
    client = place.mobius.openai(KEY)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert raw.parse().choices[0].message.content == "t0 t1 t2 t3 t4"
    assert raw.headers["x-mobius-target"] == "m/openai/b"
    assert raw.headers["x-mobius-attempts"] == "m/openai/a:cancelled,m/openai/b:200"
    with client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
        texts = [each.choices[0].delta.content for each in stream if each.choices]
    assert "".join(filter(None, texts)) == "t0 t1 t2 t3 t4"
    assert client.embeddings.create(model="m", input="hi").data
    place.first.journal.wait(lambda j: [e.closed_by for e in j.requests()] == ["client"] * 3)
    assert len(place.second.journal.requests()) == 3
    place.check_idle()
    assert place.outcomes() == {("a", "cancelled"): 3, ("b", "ok"): 3}
    rows = place.rows()
    assert (rows["a"]["attempts"], rows["a"]["completion_tokens"]) == (3, 0)
    assert (rows["b"]["attempts"], rows["b"]["requests"]) == (3, 3)
    assert rows["b"]["completion_tokens"] == 10
    assert total(place.mobius.metrics(), "mobius_hedged_total", result="won") == 3
    lines = [orjson.loads(line) for line in place.mobius.log.splitlines()]
    assert [line["hedged"] for line in lines if line["event"] == "request"] == ["won"] * 3


def test_the_first_is_answered_with_where_it_begins_first_after_all(place: Place) -> None:
    gate = Gate()
    place.first.script(Answer(gate=gate))
    place.second.always(Silent())
    with Visitor(place.mobius.port, "m", stream=True, key=KEY) as visitor:
        place.second.journal.wait_received()
        gate.open()
        assert b"[DONE]" in visitor.read_until(b"[DONE]")
    place.second.journal.wait(lambda j: j.last.closed_by == "client")
    place.check_idle()
    assert place.outcomes() == {("a", "ok"): 1, ("b", "cancelled"): 1}


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_client_who_leaves_while_two_are_asked_takes_both_along(
    place: Place, stream: bool
) -> None:
    place.first.always(Silent())
    place.second.always(Silent())
    with Visitor(place.mobius.port, "m", stream=stream, key=KEY) as visitor:
        place.second.journal.wait_received()
        visitor.leave()
    for fake in (place.first, place.second):
        fake.journal.wait(lambda j: j.last.closed_by == "client")
    place.check_idle()
    assert place.outcomes() == {("a", "cancelled"): 1, ("b", "cancelled"): 1}
    assert total(place.mobius.metrics(), "mobius_hedged_total", result="cancelled") == 1


def test_two_that_fail_beside_each_other_are_one_failed_request(place: Place) -> None:
    gate = Gate()
    place.first.always(Fails(401, gate=gate))
    place.second.always(Fails(401))
    with Visitor(place.mobius.port, "m", key=KEY) as visitor:
        place.second.journal.wait_over()
        gate.open()
        assert b"provider_auth_error" in visitor.read_until(b"provider_auth_error")
    assert len(place.first.journal.requests()) == len(place.second.journal.requests()) == 1
    assert total(place.mobius.metrics(), "mobius_hedged_total", result="failed") == 1


def test_a_crowd_leaves_no_reservation_and_no_connection(place: Place) -> None:
    place.first.always(Answer(delay_s=2 * AFTER_S))
    place.second.always(Answer(delay_s=AFTER_S))
    client = place.mobius.async_openai(KEY)

    async def all_of_them() -> None:
        async with client:
            await asyncio.gather(*(ask(number) for number in range(CROWD)))

    async def ask(number: int) -> None:
        if number % 2:
            async for _ in await client.chat.completions.create(
                model="m", messages=HELLO, stream=True
            ):
                pass
        else:
            await client.chat.completions.create(model="m", messages=HELLO)

    asyncio.run(all_of_them())
    place.check_idle()
    attempts = place.outcomes()
    assert attempts["a", "ok"] + attempts["b", "ok"] == CROWD
    assert attempts["a", "cancelled"] + attempts["b", "cancelled"] == attempts.total() - CROWD
    metrics = place.mobius.metrics()
    assert total(metrics, "mobius_hedged_total") == attempts.total() - CROWD
    served = sum(
        len(entry.tokens_sent) for entry in place.second.journal.requests() if not entry.closed_by
    )
    rows = place.rows()
    assert rows["b"]["completion_tokens"] >= served
    assert sum(row["attempts"] for row in rows.values()) == attempts.total()
    # All that is not used is there again: as many may come at once, with all of the tokens.
    left = total(metrics, "mobius_quota_remaining", scope="key", limit="max_parallel")
    assert left == CROWD
    spent = sum(row["prompt_tokens"] + row["completion_tokens"] for row in rows.values())
    assert total(metrics, "mobius_quota_remaining", scope="key", limit="tpm") == 10_000_000 - spent
    assert "never retrieved" not in place.mobius.log


def test_the_server_ends_while_two_are_asked(place: Place) -> None:
    place.first.always(Silent())
    place.second.always(Silent())
    with Visitor(place.mobius.port, "m", key=KEY) as visitor:
        place.second.journal.wait_received()
        visitor.leave()
        assert place.mobius.stop() == 0
    assert "never retrieved" not in place.mobius.log
    assert "was destroyed" not in place.mobius.log


def test_a_first_token_is_given_up_as_the_last_ones_say_and_an_edit_changes_that() -> None:
    with FakeOpenAI() as first, FakeOpenAI() as second:
        config = _config(first, second, {}, {"after": "off"})
        config["mobius"]["timeouts"] = {"first_token": "auto"}
        config["model_list"][1] = _entry("b", second, stream_timeout=7)
        checked = mobius_command("check", config=config)
        assert checked.stdout.splitlines()[1:] == [
            "  m/openai/a  direct [health-based]  first token: auto, at most 30 s",
            "  m/openai/b  direct [health-based]",
        ]
        assert "hedge" not in checked.stderr
        with Mobius(config) as mobius:
            client = mobius.openai(KEY)

            def ask() -> str:
                raw = client.chat.completions.with_raw_response.create(
                    model="m", messages=HELLO, stream=True
                )
                assert [*raw.parse()]
                return raw.headers["x-mobius-attempts"]

            def explained() -> str:
                where = ("--url", mobius.url, "--key", MASTER)
                return mobius_command("explain", "m", *where).stdout.splitlines()[1]

            for _ in range(21):
                ask()
            assert explained() == "  1. m/openai/a  healthy; first token within 2 s"
            first.script(Silent())
            assert ask() == "m/openai/a:silent,m/openai/b:200"
            config["mobius"]["timeouts"] = {"first_token": 9}
            mobius.edit(config)
            mobius.wait_until(lambda: explained() == "  1. m/openai/a  healthy")
