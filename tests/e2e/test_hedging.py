"""A provider that is late has another asked beside it; its time is learned from what it took.

The providers' journals say who was asked and who hung up; the ledger who pays.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
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
SAID = "t0 t1 t2 t3 t4 "
HELLO: Any = [{"role": "user", "content": "hi"}]


class Place:
    """A Mobius before two providers; what it counts is counted from the beginning of a test."""

    def __init__(self, mobius: Mobius, first: FakeOpenAI, second: FakeOpenAI) -> None:
        self.mobius = mobius
        self.first = first
        self.second = second
        self._before: Counter[tuple[str, ...]] = Counter()

    def begin(self) -> None:
        for fake in (self.first, self.second):
            fake.reset_script()
            fake.journal.clear()
        self._before = self._counted()

    def outcomes(self) -> dict[tuple[str, ...], int]:
        """How many attempts of each target ended how, and how many races, by the metrics."""
        found = self._counted()
        found.subtract(self._before)
        return {what: number for what, number in found.items() if number}

    def _counted(self) -> Counter[tuple[str, ...]]:
        found: Counter[tuple[str, ...]] = Counter()
        for (name, labels), value in self.mobius.metrics().items():
            facts = dict(labels)
            if name == "mobius_attempt_seconds_count":
                found[facts["target"].rpartition("/")[2], facts["outcome"]] = int(value)
            if name == "mobius_hedged_total":
                found["hedged", facts["result"]] = int(value)
        return found

    def used(self, group: str) -> dict[str, dict[str, Any]]:
        """What the ledger says of each target or key, ever."""
        headers = {"authorization": f"Bearer {MASTER}"}
        query = f"/admin/usage?group_by={group}"
        rows = self.mobius.http.get(query, headers=headers).json()["rows"]
        return {row[group].rpartition("/")[2]: row for row in rows}

    def check_idle(self) -> None:
        """Nothing is under way, and nobody is blamed."""
        metrics = self.mobius.metrics
        self.mobius.wait_until(lambda: total(metrics(), "mobius_in_flight_requests") == 0)
        for fake in (self.first, self.second):
            fake.journal.wait(lambda journal: journal.open_requests == 0)
        headers = {"authorization": f"Bearer {MASTER}"}
        assert self.mobius.http.get("/health", headers=headers).json()["unhealthy_count"] == 0


LIMITS = {"tpd": 10_000_000, "max_parallel": CROWD}


@pytest.fixture(scope="module")
def racecourse() -> Iterator[Place]:
    with FakeOpenAI() as first, FakeOpenAI() as second:
        config = _config(first, second, LIMITS, {"after": AFTER_S, "budget": 1})
        with Mobius(config) as mobius:
            yield Place(mobius, first, second)
            assert "never retrieved" not in mobius.log


@pytest.fixture
def place(racecourse: Place) -> Place:
    racecourse.begin()
    return racecourse


def _config(
    first: FakeOpenAI, second: FakeOpenAI, limits: dict[str, Any], hedge: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model_list": [_entry("a", first), _entry("b", second)],
        "router_settings": {"routing_strategy": "health-based"},
        "general_settings": {"master_key": MASTER},
        "mobius": {
            "hedge": hedge,
            "laps": 1,
            "num_retries": 0,
            "keys": [{"name": "web", "key": KEY, "limits": limits}],
        },
    }


def _entry(model: str, fake: FakeOpenAI, **params: Any) -> dict[str, Any]:
    where = {"api_base": fake.base_url, "api_key": "sk-provider-1234"}
    return {"model_name": "m", "litellm_params": {"model": f"openai/{model}", **where, **params}}


def test_whoever_waits_for_the_first_gets_the_answer_of_the_second(place: Place) -> None:
    place.first.always(Silent())
    before = place.used("target")
    client = place.mobius.openai(KEY)
    raw = client.chat.completions.with_raw_response.create(model="m", messages=HELLO)
    assert raw.parse().choices[0].message.content == SAID
    assert raw.headers["x-mobius-target"] == "m/openai/b"
    assert raw.headers["x-mobius-attempts"] == "m/openai/a:cancelled,m/openai/b:200"
    with client.chat.completions.create(model="m", messages=HELLO, stream=True) as stream:
        texts = [each.choices[0].delta.content for each in stream if each.choices]
    assert "".join(filter(None, texts)) == SAID
    assert client.embeddings.create(model="m", input="hi").data
    place.first.journal.wait(lambda j: [e.closed_by for e in j.requests()] == ["client"] * 3)
    assert len(place.second.journal.requests()) == 3
    place.check_idle()
    assert place.outcomes() == {("a", "cancelled"): 3, ("b", "ok"): 3, ("hedged", "won"): 3}
    assert not before, "these are the first rows of the ledger"
    rows = place.used("target")
    assert (rows["a"]["attempts"], rows["a"]["completion_tokens"]) == (3, 0)
    assert (rows["b"]["attempts"], rows["b"]["requests"]) == (3, 3)
    assert rows["b"]["completion_tokens"] == 10
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
    assert place.outcomes() == {("a", "ok"): 1, ("b", "cancelled"): 1, ("hedged", "lost"): 1}


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
    cancelled = {("a", "cancelled"): 1, ("b", "cancelled"): 1, ("hedged", "cancelled"): 1}
    assert place.outcomes() == cancelled


def test_two_that_fail_beside_each_other_are_one_failed_request(place: Place) -> None:
    gate = Gate()
    place.first.always(Fails(500, gate=gate))
    place.second.always(Fails(500))
    with Visitor(place.mobius.port, "m", key=KEY) as visitor:
        place.second.journal.wait_over()
        gate.open()
        assert b"no_target_available" in visitor.read_until(b"no_target_available")
    assert len(place.first.journal.requests()) == len(place.second.journal.requests()) == 1
    assert place.outcomes()["hedged", "failed"] == 1


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

    before = place.used("key")["web"]
    asyncio.run(all_of_them())
    place.check_idle()
    outcomes = place.outcomes()
    races = sum(number for (what, _), number in outcomes.items() if what == "hedged")
    attempts = sum(outcomes.values()) - races
    assert races > 0
    assert attempts == CROWD + races
    row = place.used("key")["web"]
    assert row["requests"] - before["requests"] == CROWD
    assert row["attempts"] - before["attempts"] == attempts
    # All that is not used is there again: as many may come at once, with all of the tokens.
    metrics = place.mobius.metrics()
    spent = row["prompt_tokens"] + row["completion_tokens"]
    left = {
        name: total(metrics, "mobius_quota_remaining", scope="key", limit=name) for name in LIMITS
    }
    assert left == {"max_parallel": CROWD, "tpd": LIMITS["tpd"] - spent}


def test_a_server_that_ends_while_two_are_asked_leaves_nothing_either() -> None:
    with FakeOpenAI() as first, FakeOpenAI() as second:
        config = _config(first, second, LIMITS, {"after": AFTER_S, "budget": 1})
        config["mobius"]["grace"] = 0
        first.always(Silent())
        second.always(Silent())
        with Mobius(config) as mobius, Visitor(mobius.port, "m", key=KEY):
            second.journal.wait_received()
            assert mobius.stop() == 0
            for fake in (first, second):
                fake.journal.wait(lambda j: j.last.closed_by == "client")
            assert "never retrieved" not in mobius.log
            assert "was destroyed" not in mobius.log
            lines = [orjson.loads(line) for line in mobius.log.splitlines()]
            (line,) = [each for each in lines if each["event"] == "request"]
            assert line["hedged"] == "cancelled"


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

            def explained() -> list[dict[str, Any]]:
                headers = {"authorization": f"Bearer {MASTER}"}
                found = mobius.http.get("/admin/explain/m", headers=headers).json()["asked"]
                return list(found)

            for _ in range(21):
                ask()
            assert [step.get("first_token_s") for step in explained()] == [2.0, None]
            done = mobius_command("explain", "m", "--url", mobius.url, "--key", MASTER)
            (line,) = [each for each in done.stdout.splitlines() if "openai/a" in each]
            assert line == "  1. m/openai/a  healthy; first token within 2 s"
            first.script(Silent())
            assert ask() == "m/openai/a:silent,m/openai/b:200"
            config["mobius"]["timeouts"] = {"first_token": 9}
            mobius.edit(config)
            mobius.wait_until(lambda: all("first_token_s" not in step for step in explained()))
