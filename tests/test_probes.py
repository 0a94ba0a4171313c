"""Probes: who is asked, when, how, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from proxy.errors import UpstreamFailure
from proxy.facts import Stated
from proxy.log import Log
from proxy.policy import ProbesPolicy
from proxy.probes import AT_ONCE, LOOK_S, Probe, Prober, look_s
from proxy.retry import Kind
from proxy.snapshot import Snapshot
from proxy.types import Ring, Target
from tests.fakes import Bench, Fails, FakeClock, Script, ask, delta, finish, group, target, usage

pytestmark = pytest.mark.anyio

EVERY_S = 30.0
SAYS: Script = [delta("t0"), finish(reason="length"), usage(5, 1)]


@dataclass
class FakeLists:
    """Shows its list, or says what else it was told to; notes who asked."""

    says: dict[str, bool | Kind | Exception] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)  # that answer no chats
    gate: asyncio.Event | None = None

    async def ask(self, target: Target) -> bool:
        self.asked.append(target.label)
        if self.gate is not None:
            await self.gate.wait()
        match self.says.get(target.label, True):
            case bool() as shown:
                return shown
            case Kind() as kind:
                raise UpstreamFailure("scripted", kind=kind)
            case error:
                raise error

    async def converses(self, target: Target) -> bool:
        return target.label not in self.silent


class Place:
    """A gateway on fakes, and the prober beside it."""

    def __init__(self, *targets: Target | str, scripts: dict[str, Iterable[Script]] | None = None,
                 chance: Iterator[float] | None = None, **probes: Any) -> None:  # fmt: skip
        self.bench = Bench(scripts or {}, ring=Ring("m", (group("m", *(targets or ("a",))),)))
        self.lists = FakeLists()
        self.last: dict[str, Probe] = {}
        self.active = True
        self.log_lines: list[bytes] = []
        self.targets = self.bench.ring.groups[0].targets
        policy = self.bench.policy.model_copy(
            update={"probes": ProbesPolicy.model_validate({"every": EVERY_S, **probes})}
        )
        self.snapshot = Snapshot(policy=policy, rings=self.bench.rings)
        self.prober = Prober(
            attempts=self.bench.attempts,
            quota=self.bench.quota,
            lists=self.lists,
            health=self.bench.health,
            metrics=self.bench.metrics,
            log=Log(self.log_lines.append, self.clock),
            last=self.last,
            current=lambda: self.snapshot,
            active=lambda: self.active,
            clock=self.clock,
            chance=(lambda: next(chance)) if chance else lambda: 0.0,
        )

    @property
    def clock(self) -> FakeClock:
        return self.bench.clock

    async def look(self) -> None:
        """Begin what is due now, and wait for it."""
        self.prober.look(EVERY_S)
        await self.settle()

    async def settle(self) -> None:
        while self.prober._busy:
            await asyncio.gather(*self.prober._busy.values(), return_exceptions=True)
            await asyncio.sleep(0)

    async def probe(self) -> None:
        await self.prober.probe(self.targets[0], self.snapshot)

    def counted(self, **labels: str) -> float:
        return self.bench.value("mobius_probes_total", **labels)

    @property
    def latency_s(self) -> float | None:
        return self.bench.health.standing(self.targets[0], self.snapshot.policy).latency_s


async def test_a_target_that_nobody_has_told_of_is_probed_once_in_an_interval() -> None:
    place = Place("a")
    await place.look()
    assert place.lists.asked == []  # `chance` put it at the beginning of its first interval
    place.clock.pass_(EVERY_S)
    await place.look()
    await place.look()
    assert place.lists.asked == ["a"]
    place.clock.pass_(EVERY_S - 1)
    await place.look()
    assert place.lists.asked == ["a"]
    place.clock.pass_(1)
    await place.look()
    assert place.lists.asked == ["a", "a"]


async def test_the_first_probes_are_spread_over_an_interval_and_the_next_ones_are_not_even() -> (
    None
):
    draws = iter([0.9, 0.1, 0.5, 0.0])
    place = Place("a", "b", chance=draws)
    await place.look()
    place.clock.pass_(0.1 * EVERY_S)
    await place.look()
    (first,) = place.lists.asked
    place.clock.pass_(EVERY_S)
    await place.look()  # the other one; the first waits for a tenth of the interval more
    assert len(place.lists.asked) == 2
    assert place.lists.asked[1] != first
    place.clock.pass_(0.1 * EVERY_S)
    await place.look()
    assert place.lists.asked[2] == first


async def test_nobody_is_probed_of_whom_a_request_has_told() -> None:
    place = Place("a", scripts={"a": [{"choices": []}, Kind.TRANSIENT]})
    await place.look()
    place.clock.pass_(EVERY_S - 5)
    await place.bench.run(ask())
    place.clock.pass_(EVERY_S - 5)
    await place.look()
    assert place.lists.asked == []
    place.clock.pass_(5)
    await place.look()
    assert place.lists.asked == ["a"]


async def test_nobody_is_probed_while_a_request_is_under_way() -> None:
    place = Place("a")
    await place.look()
    with place.bench.health.watch(place.targets[0], place.snapshot.policy):
        place.clock.pass_(10 * EVERY_S)
        await place.look()
        assert place.lists.asked == []


@pytest.mark.parametrize("kind", [Kind.CREDENTIAL, Kind.EXHAUSTED, Kind.RATE_LIMITED, Kind.MISSING])
async def test_a_target_that_rests_is_left_alone_for_its_whole_rest(kind: Kind) -> None:
    place = Place("a", scripts={"a": [Fails(kind, 400, retry_after_s=600.0), SAYS]})
    with pytest.raises(Exception, match=r"."):
        await place.bench.run(ask())
    rest_s = place.bench.away_s("a")
    assert rest_s > EVERY_S
    await place.look()
    place.clock.pass_(rest_s - 1)
    await place.look()
    assert (place.lists.asked, place.bench.asked) == ([], ["a"])
    place.clock.pass_(1)
    await place.look()
    assert place.lists.asked == ["a"]


@pytest.mark.parametrize(
    "changed",
    [
        {"missing": "OPENAI_API_KEY"},
        {"stated": Stated(mocked=True)},
        {"model": "gpt-*"},
    ],
)
async def test_who_cannot_be_asked_is_not(changed: dict[str, Any]) -> None:
    place = Place(replace(target("a"), **changed))
    await place.look()
    place.clock.pass_(10 * EVERY_S)
    await place.look()
    assert (place.lists.asked, place.bench.asked) == ([], [])


async def test_a_target_of_several_names_is_probed_once_under_the_first() -> None:
    place = Place(target("a"), replace(target("b"), identity="identity of a"))
    await place.look()
    place.clock.pass_(EVERY_S)
    await place.look()
    assert place.lists.asked == ["a"]


async def test_not_too_many_are_asked_at_once_and_each_by_one_probe() -> None:
    place = Place(*(f"t{number}" for number in range(AT_ONCE + 2)))
    place.lists.gate = asyncio.Event()
    await place.look()
    place.clock.pass_(EVERY_S)
    for _ in range(3):
        place.prober.look(EVERY_S)
        await asyncio.sleep(0)
    assert len(place.lists.asked) == len(set(place.lists.asked)) == AT_ONCE
    place.lists.gate.set()
    await place.settle()
    await place.look()
    assert len(set(place.lists.asked)) == AT_ONCE + 2


async def test_a_list_that_is_shown_costs_nothing_and_proves_no_answer() -> None:
    place = Place("a")
    await place.probe()
    assert place.counted(target="a", by="models", outcome="ok") == 1
    assert place.last["identity of a"].ok
    assert (place.bench.asked, place.bench.ledger.opened) == ([], [])
    assert place.latency_s is None


async def test_a_list_that_is_shown_makes_no_failures_forgotten() -> None:
    place = Place("a", scripts={"a": [Kind.TRANSIENT, Kind.TRANSIENT]})
    with pytest.raises(Exception, match=r"."):
        await place.bench.run(ask(wishes={"num_retries": 0}))
    assert place.bench.blamed("a")
    await place.probe()
    assert place.counted(outcome="ok") == 1
    assert place.bench.blamed("a")


@pytest.mark.parametrize(
    ("kind", "by"),
    [
        (Kind.UNREACHABLE, "either"),
        (Kind.UNREACHABLE, "models"),
        (Kind.SILENT, "models"),
        (Kind.TRANSIENT, "models"),
    ],
)
async def test_a_provider_that_fails_at_its_list_is_blamed(kind: Kind, by: str) -> None:
    place = Place("a", by=by)
    place.lists.says["a"] = kind
    for _ in range(5):
        await place.probe()
    assert place.counted(by="models", outcome=kind.value) == 5
    assert place.bench.away_s("a") > 0
    assert place.last["identity of a"].outcome == kind.value


@pytest.mark.parametrize("kind", [Kind.SILENT, Kind.TRANSIENT, Kind.OVERLOADED])
async def test_a_list_may_fail_where_answers_do_not(kind: Kind) -> None:
    place = Place("a", scripts={"a": [SAYS]})
    place.lists.says["a"] = kind
    await place.probe()
    assert place.counted(by="models", outcome="unproven") == 1
    assert place.counted(by="token", outcome="ok") == 1
    assert not place.bench.blamed("a")


async def test_a_provider_that_says_429_cools() -> None:
    place = Place("a")
    place.lists.says["a"] = UpstreamFailure("x", kind=Kind.RATE_LIMITED, retry_after_s=7.0)
    await place.probe()
    assert place.bench.away_s("a") == 7.0
    assert place.bench.asked == []


async def test_where_a_list_proves_nothing_one_token_does() -> None:
    place = Place("a", scripts={"a": [SAYS]})
    place.lists.says["a"] = False
    await place.probe()
    assert place.counted(by="models", outcome="unproven") == 1
    assert place.counted(by="token", outcome="ok") == 1
    (asked,) = place.bench.upstream.calls
    assert asked.call.body["max_tokens"] == 1
    assert asked.call.stream
    assert place.latency_s is not None
    assert place.last["identity of a"].by == "token"


async def test_a_token_is_recorded_and_charged_to_a_caller_of_its_own() -> None:
    place = Place("a", scripts={"a": [SAYS]}, by="token")
    await place.probe()
    assert place.lists.asked == []
    (opened,), (closed,) = place.bench.ledger.opened, place.bench.ledger.closed
    assert (opened.key, opened.model, opened.target) == ("_probe", "m", "a")
    assert (closed.usage.prompt_tokens, closed.usage.completion_tokens) == (5, 1)
    assert closed.outcome == "ok"
    assert place.bench.ledger.admitted == ["_probe"]
    assert place.bench.value("mobius_request_seconds_count") == 0
    assert place.bench.value("mobius_attempt_seconds_count", target="a", outcome="ok") == 1


async def test_a_token_that_fails_is_a_failure_like_any_other_and_is_not_asked_for_again() -> None:
    place = Place("a", scripts={"a": [Kind.TRANSIENT]}, by="token")
    await place.probe()
    assert place.counted(by="token", outcome="no_target_available") == 1
    assert place.bench.blamed("a")
    assert not place.last["identity of a"].ok


async def test_what_has_failed_is_brought_back_by_a_token_alone() -> None:
    failing = [Kind.UNREACHABLE] * 5
    place = Place("a", scripts={"a": [*failing, SAYS]})
    for _ in failing:
        with pytest.raises(Exception, match=r"."):
            await place.bench.run(ask(wishes={"num_retries": 0}))
    place.clock.pass_(place.bench.away_s("a"))
    standing = place.bench.health.standing(place.targets[0], place.snapshot.policy)
    assert (standing.admits, standing.closed) == (True, False)
    await place.probe()
    assert place.lists.asked == []
    assert place.bench.health.standing(place.targets[0], place.snapshot.policy).closed


async def test_where_only_lists_are_wanted_no_token_is_asked_for() -> None:
    place = Place("a", by="models")
    place.lists.says["a"] = False
    await place.probe()
    assert place.bench.asked == []
    assert place.counted(by="models", outcome="unproven") == 1
    assert place.last == {}


async def test_what_answers_no_chats_is_asked_for_its_list_only() -> None:
    place = Place("a")
    place.lists.says["a"] = False
    place.lists.silent.add("a")
    await place.probe()
    assert (place.lists.asked, place.bench.asked) == (["a"], [])


async def test_a_model_that_takes_the_newer_bound_only_is_known_from_then_on() -> None:
    refusal = Fails(Kind.CALLER, 400, message="use max_completion_tokens")
    place = Place("a", scripts={"a": [refusal, SAYS, SAYS, refusal]}, by="token")
    await place.probe()
    await place.probe()
    bounds = [each.call.body.keys() & {"max_tokens", "max_completion_tokens"}
              for each in place.bench.upstream.calls]  # fmt: skip
    assert bounds == [{"max_tokens"}, {"max_completion_tokens"}, {"max_completion_tokens"}]
    await place.probe()
    assert place.counted(by="token", outcome="refused") == 1
    assert not place.bench.blamed("a")


async def test_an_answer_that_does_not_end_is_not_read_to_its_end() -> None:
    place = Place("a", scripts={"a": [[delta("t") for _ in range(1000)]]}, by="token")
    await place.probe()
    (source,) = place.bench.upstream.sources
    assert source.given < 100
    assert source.closed == 1
    assert len(place.bench.ledger.closed) == 1


async def test_the_prober_looks_as_often_as_it_must_and_ends_with_its_probes() -> None:
    place = Place("a")
    place.lists.gate, asked = asyncio.Event(), asyncio.Event()

    async def meanwhile() -> None:
        if place.lists.asked:
            asked.set()
        place.clock.pass_(EVERY_S)
        place.clock.meanwhile = meanwhile
        await asyncio.sleep(0)

    place.clock.meanwhile = meanwhile
    async with place.prober.running():
        await asked.wait()
    assert place.clock.slept[0] == LOOK_S
    assert place.prober._busy == {}
    assert place.counted(outcome="cancelled") == 1


@pytest.mark.parametrize("why", ["off", "draining"])
async def test_nobody_is_probed_where_nobody_wants_it(why: str) -> None:
    place = Place("a", every="off" if why == "off" else EVERY_S)
    place.active = why == "off"
    enough = asyncio.Event()

    async def meanwhile() -> None:
        place.clock.pass_(EVERY_S)
        place.clock.meanwhile = meanwhile
        if len(place.clock.slept) > 5:
            enough.set()
        await asyncio.sleep(0)

    place.clock.meanwhile = meanwhile
    async with place.prober.running():
        await enough.wait()
    assert place.lists.asked == []


def test_a_short_interval_is_looked_at_more_often() -> None:
    assert [look_s(every_s) for every_s in (0.001, 0.4, 4.0, 600.0)] == [0.05, 0.1, 1.0, 1.0]


async def test_a_fault_of_a_probe_is_logged_and_is_not_the_end() -> None:
    place = Place("a")
    place.lists.says["a"] = ZeroDivisionError("sk-secret")
    await place.look()
    place.clock.pass_(EVERY_S)
    await place.look()
    assert b"ZeroDivisionError" in place.log_lines[0]
    assert b"sk-secret" not in b"".join(place.log_lines)
    place.clock.pass_(EVERY_S)
    place.lists.says["a"] = True
    await place.look()
    assert place.counted(outcome="ok") == 1


async def test_what_the_file_no_longer_has_is_forgotten() -> None:
    place = Place("a")
    await place.probe()
    assert place.last
    place.snapshot = replace(place.snapshot, rings={})
    await place.look()
    assert (place.last, place.prober._watched) == ({}, {})
