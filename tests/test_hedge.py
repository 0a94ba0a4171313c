"""Two targets asked beside each other, on a clock that does not run by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from proxy.allowance import Allowances
from proxy.errors import LimitReached, NoTargetAvailable, RateLimited, Refused
from proxy.hedge import REMEMBERED, Share, may_be_doubled
from proxy.limits import Claim, Refusal, Scope
from proxy.pace import LEAST_TIMES
from proxy.policy import Limits
from proxy.replies import ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.store import Closed, Opened
from proxy.store.memory import MemoryStore
from proxy.store.port import Standings
from proxy.types import Call, Surface
from tests.fakes import (
    ANYBODY,
    Bench,
    Fails,
    FakeLedger,
    Gate,
    Passes,
    Script,
    answer,
    ask,
    delta,
    finish,
    ring,
    role,
    sent,
    target,
    usage,
)

OK = answer(7, 3)
OTHER = answer(9, 5)
STREAM = [role(), delta("t0 "), delta("t1 "), finish(), usage(7, 3)]
AFTER_S = 2.0
ALWAYS = {"after": AFTER_S, "budget": 1}


def racing(scripts: dict[str, list[Script]], **facts: Any) -> Bench:
    """A bench where whoever is late has another asked beside it, and nobody is asked twice."""
    return Bench(scripts, **{"hedge": ALWAYS, "num_retries": 0, "laps": 1, **facts})


def run(bench: Bench, call: Call | None = None) -> Reply:
    return asyncio.run(_alone(bench, call))


async def _alone(bench: Bench, call: Call | None = None) -> Reply:
    """The reply; nothing that was begun for it goes on."""
    try:
        return await bench.run(call)
    finally:
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def passed() -> None:
    """Return when whatever can go on without a gate has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


def settled(bench: Bench) -> dict[str, str]:
    """What the ledger says of each target; every row that was opened is closed, once."""
    opened = {row.id: row.target for row in bench.ledger.opened}
    assert len(opened) == len(bench.ledger.opened), "each attempt has a row of its own"
    assert sorted(opened) == sorted(row.id for row in bench.ledger.closed)
    assert not bench.store._reserved  # type: ignore[attr-defined]
    return {opened[row.id]: row.outcome for row in bench.ledger.closed}


def spent(bench: Bench, label: str) -> tuple[int, int]:
    opened = {row.id: row.target for row in bench.ledger.opened}
    (row,) = (row for row in bench.ledger.closed if opened[row.id] == label)
    return row.usage.prompt_tokens, row.usage.completion_tokens


# Who wins


def test_nobody_is_asked_beside_one_that_answers_in_time() -> None:
    bench = racing({"a": [OK], "b": []})
    assert isinstance(run(bench), Completion)
    assert bench.asked == ["a"]
    assert bench.tally.hedged is None


def test_the_second_answers_where_the_first_is_late_and_the_first_is_cancelled() -> None:
    bench = racing({"a": [(Gate(), OK)], "b": [OTHER]})
    reply = run(bench)
    assert isinstance(reply, Completion)
    assert reply.body == OTHER
    assert bench.clock.slept == [AFTER_S]
    tally = bench.tally
    assert tally.trail == ["a:cancelled", "b:200"]
    assert (tally.target, tally.hedged, tally.fallbacks, tally.retries) == ("b", "won", 0, 0)
    assert settled(bench) == {"a": "cancelled", "b": "ok"}
    assert spent(bench, "a") == (0, 0)
    assert spent(bench, "b") == (9, 5)


def test_the_first_answers_after_all_and_the_second_is_cancelled() -> None:
    slow, slower = Gate(), Gate()
    bench = racing({"a": [(slow, OK)], "b": [(slower, OTHER)]})

    async def go() -> Reply:
        asking = asyncio.create_task(bench.run())
        await slower.reached.wait()
        slow.opened.set()
        return await asking

    reply = asyncio.run(go())
    assert isinstance(reply, Completion)
    assert reply.body == OK
    assert bench.tally.trail == ["b:cancelled", "a:200"]
    assert (bench.tally.target, bench.tally.hedged) == ("a", "lost")
    assert settled(bench) == {"a": "ok", "b": "cancelled"}


def test_one_that_begins_in_time_has_nobody_beside_it_however_long_the_rest_takes() -> None:
    gate = Gate()
    bench = racing({"a": [(gate, OK)], "b": []})

    async def opens() -> None:
        gate.opened.set()
        await passed()

    bench.clock.meanwhile = opens  # while the second is waited for
    assert isinstance(run(bench), Completion)
    assert bench.asked == ["a"]
    assert bench.tally.hedged is None


def test_a_stream_is_raced_until_its_first_content() -> None:
    bench = racing({"a": [[role(), Gate(), delta("never"), finish()]], "b": [STREAM]})

    async def go() -> list[Any]:
        reply = await _alone(bench, ask(stream=True))
        assert isinstance(reply, ChunkStream)
        assert bench.upstream.sources[0].closed == 1
        assert settled_so_far(bench) == {"a": "cancelled"}
        return sent([chunk async for chunk in reply])

    assert asyncio.run(go()) == STREAM[:-1]
    assert settled(bench) == {"a": "cancelled", "b": "ok"}
    assert spent(bench, "a") == (0, 0)


def settled_so_far(bench: Bench) -> dict[str, str]:
    opened = {row.id: row.target for row in bench.ledger.opened}
    return {opened[row.id]: row.outcome for row in bench.ledger.closed}


def test_of_two_that_begin_at_once_one_is_closed_and_pays_for_what_came_of_it() -> None:
    gates = Gate(), Gate()
    said = "t" * 40
    bench = racing(
        {
            "a": [[gates[0], delta("t0 "), finish(), usage(7, 3)]],
            "b": [[gates[1], delta(said), Gate(), finish()]],
        }
    )

    async def go() -> None:
        asking = asyncio.create_task(bench.run(ask(stream=True)))
        await gates[1].reached.wait()
        for gate in gates:
            gate.opened.set()
        reply = await asking
        assert isinstance(reply, ChunkStream)
        assert [source.closed for source in bench.upstream.sources] == [0, 1]
        async for _ in reply:
            pass

    asyncio.run(go())
    assert (bench.tally.target, bench.tally.hedged) == ("a", "lost")
    assert settled(bench) == {"a": "ok", "b": "cancelled"}
    assert spent(bench, "b")[1] == len(said) // 4


def test_a_session_may_have_two_asked_as_well() -> None:
    bench = racing({"a": [(Gate(), OK)], "b": [OTHER]})
    run(bench, ask(wishes={"session": "s"}))
    assert bench.tally.hedged == "won"


def test_a_request_has_one_beside_at_most_one_of_its_targets() -> None:
    late, later = Gate(), Gate()
    bench = racing(
        {"a": [(late, Kind.SILENT)], "b": [Kind.UNREACHABLE], "c": [(later, OK)], "d": []}
    )

    async def go() -> None:
        asking = asyncio.create_task(bench.run())
        await late.reached.wait()
        await passed()
        late.opened.set()
        await later.reached.wait()
        await passed()
        later.opened.set()
        await asking

    asyncio.run(go())
    assert bench.asked == ["a", "b", "c"]


# Failures


def test_a_failure_in_time_goes_on_as_ever() -> None:
    bench = racing({"a": [Kind.UNREACHABLE], "b": [OK]})
    run(bench)
    assert bench.asked == ["a", "b"]
    assert (bench.tally.hedged, bench.tally.fallbacks) == (None, 1)
    assert bench.tally.trail == ["a:unreachable", "b:200"]


def test_a_fault_in_time_is_asked_again_as_ever() -> None:
    bench = racing({"a": [Kind.TRANSIENT, OK], "b": []}, num_retries=1)
    run(bench)
    assert bench.asked == ["a", "a"]


def test_the_first_is_waited_for_where_the_second_fails() -> None:
    late = Gate()
    bench = racing({"a": [(late, OK)], "b": [Fails(Kind.TRANSIENT, 503)]})

    async def go() -> Reply:
        asking = asyncio.create_task(bench.run())
        await late.reached.wait()
        await passed()
        late.opened.set()
        return await asking

    assert isinstance(asyncio.run(go()), Completion)
    assert bench.tally.trail == ["b:503", "a:200"]
    assert (bench.tally.target, bench.tally.hedged) == ("a", "lost")
    assert bench.blamed("b")
    assert settled(bench) == {"a": "ok", "b": "transient"}


def test_the_second_is_waited_for_where_the_first_fails_and_that_is_not_asked_again() -> None:
    late, other = Gate(), Gate()
    bench = racing({"a": [(late, Kind.TRANSIENT)], "b": [(other, OK)]}, num_retries=3)

    async def go() -> Reply:
        asking = asyncio.create_task(bench.run())
        await other.reached.wait()
        late.opened.set()
        await passed()
        assert not asking.done()
        other.opened.set()
        return await asking

    assert isinstance(asyncio.run(go()), Completion)
    assert bench.asked == ["a", "b"]
    assert (bench.tally.target, bench.tally.hedged) == ("b", "won")
    assert bench.blamed("a")


def fail_both(bench: Bench, late: Gate, call: Call | None = None) -> Reply:
    async def go() -> Reply:
        asking = asyncio.create_task(bench.run(call))
        await late.reached.wait()
        await passed()
        late.opened.set()
        return await asking

    return asyncio.run(go())


def test_the_ring_goes_on_with_what_is_left_where_both_fail() -> None:
    late = Gate()
    bench = racing({"a": [(late, Kind.SILENT)], "b": [Kind.UNREACHABLE], "c": [OK]})
    assert isinstance(fail_both(bench, late), Completion)
    assert bench.asked == ["a", "b", "c"]
    assert bench.tally.trail == ["b:unreachable", "a:silent", "c:200"]
    assert (bench.tally.hedged, bench.tally.fallbacks) == ("failed", 1)
    assert settled(bench) == {"a": "silent", "b": "unreachable", "c": "ok"}


def test_nobody_is_left_where_both_fail_and_each_failure_counts() -> None:
    late = Gate()
    bench = racing({"a": [(late, Kind.RATE_LIMITED)], "b": [Kind.RATE_LIMITED]})
    with pytest.raises(RateLimited):
        fail_both(bench, late)
    late = Gate()
    bench = racing({"a": [(late, Kind.RATE_LIMITED)], "b": [Kind.UNREACHABLE]})
    with pytest.raises(NoTargetAvailable):
        fail_both(bench, late)


def test_a_request_that_the_second_finds_bad_is_refused_once_the_first_has_failed() -> None:
    late = Gate()
    bench = racing({"a": [(late, Kind.SILENT)], "b": [Fails(Kind.CALLER, 400)], "c": []})
    with pytest.raises(Refused):
        fail_both(bench, late)


def test_a_fault_of_ours_beside_it_is_told_and_leaves_nothing() -> None:
    # A target without a script is an AssertionError of the fake's.
    bench = racing({"a": [(Gate(), OK)], "b": []})
    with pytest.raises(AssertionError, match="not expected"):
        run(bench)
    assert settled(bench) == {"a": "cancelled", "b": "cancelled"}


# Who may be asked beside


def test_a_target_that_rests_is_not_asked_beside() -> None:
    late = Gate()
    bench = racing({"a": [OK, (late, OK)], "b": [Kind.CREDENTIAL]})
    bench.ring = ring("b", "a")
    run(bench)  # b rests from here on
    bench.upstream.calls.clear()
    fail_both(bench, late)
    assert bench.asked == ["a"]
    assert bench.tally.hedged is None


def test_one_without_room_of_its_own_is_passed_over_for_the_next() -> None:
    full = target("b", rpm=0)
    bench = racing({"a": [(Gate(), OK)], "b": [], "c": [OTHER]}, ring=ring("a", full, "c"))
    run(bench)
    assert bench.asked == ["a", "c"]
    assert bench.tally.hedged == "won"


def test_nobody_is_asked_beside_the_only_one() -> None:
    gate = Gate()
    bench = racing({"a": [(gate, OK)]})

    async def go() -> None:
        asking = asyncio.create_task(bench.run())
        await gate.reached.wait()
        assert bench.clock.slept == []
        gate.opened.set()
        await asking

    asyncio.run(go())


def test_nobody_is_asked_beside_it_past_the_deadline() -> None:
    gate = Gate()
    bench = racing({"a": [(gate, OK)], "b": []}, deadline=AFTER_S)
    fail_both(bench, gate)
    assert bench.asked == ["a"]
    assert bench.tally.hedged is None


def test_it_is_off_unless_the_file_says_when() -> None:
    gate = Gate()
    bench = Bench({"a": [(gate, OK)], "b": []})
    fail_both(bench, gate)
    assert bench.asked == ["a"]
    assert bench.clock.slept == []


@pytest.mark.parametrize(
    "call",
    [
        ask(wishes={"disable_fallbacks": True}),
        ask(wishes={"num_retries": 0}),
        ask(body={"store": True}),
        ask(surface=Surface.IMAGES),
        ask(surface=Surface.SPEECH),
        ask(surface=Surface.TRANSCRIPTIONS),
        ask(surface=Surface.TRANSLATIONS),
        ask(surface=Surface.COUNT_TOKENS),
        ask(surface=Surface.RESPONSES),
        ask(surface=Surface.RESPONSES, body={"store": True}),
        ask(surface=Surface.RESPONSES, body={"store": False, "background": True}),
        ask(surface=Surface.RESPONSES, body={"store": False, "conversation": "conv_1"}),
        ask(surface=Surface.RESPONSES, body={"store": False, "tools": [{"type": "mcp"}]}),
        ask(surface=Surface.MESSAGES, body={"mcp_servers": [{"url": "u"}]}),
    ],
)
def test_what_must_not_be_done_twice_is_asked_once(call: Call) -> None:
    assert not may_be_doubled(call)


@pytest.mark.parametrize(
    "call",
    [
        ask(),
        ask(wishes={"num_retries": 1}),
        ask(body={"store": False, "tools": [{"type": "function"}]}),
        ask(surface=Surface.COMPLETIONS),
        ask(surface=Surface.EMBEDDINGS),
        ask(surface=Surface.MODERATIONS),
        ask(surface=Surface.RERANK),
        ask(surface=Surface.MESSAGES),
        ask(surface=Surface.AI),
        ask(surface=Surface.RESPONSES, body={"store": False, "tools": [{"type": "function"}]}),
    ],
)
def test_what_only_says_something_may_be_asked_twice(call: Call) -> None:
    assert may_be_doubled(call)


def test_a_caller_who_wants_one_target_has_one() -> None:
    gate = Gate()
    bench = racing({"a": [(gate, OK)], "b": []})
    fail_both(bench, gate, ask(wishes={"num_retries": 0}))
    assert bench.asked == ["a"]


# How often


def test_a_share_lets_one_in_so_many_and_the_very_first() -> None:
    share = Share()
    taken = []
    for number in range(100):
        share.request(0.05)
        if share.take(0.05):
            taken.append(number)
    assert taken == [0, 19, 39, 59, 79, 99]


def test_a_share_of_nothing_lets_nobody_and_one_of_all_everybody() -> None:
    share = Share()
    assert not share.take(0.0)
    assert all(share.take(1.0) for _ in range(10 * REMEMBERED))


def test_quiet_hours_save_up_a_few() -> None:
    share = Share()
    for _ in range(10_000):
        share.request(0.05)
    assert [share.take(0.05) for _ in range(11)] == [True] * 10 + [False]
    share.give_back()
    assert share.take(0.05)


def test_no_more_are_asked_beside_than_the_budget_says() -> None:
    gates = [Gate(), Gate()]
    bench = racing(
        {"a": [(gates[0], OK), (gates[1], OK)], "b": [OTHER]}, hedge={"after": 2, "budget": 0.05}
    )
    run(bench)
    assert bench.tally.hedged == "won"
    fail_both(bench, gates[1])
    assert bench.asked == ["a", "b", "a"]
    assert bench.tally.hedged is None


def test_the_90th_percentile_is_gone_by_once_it_is_known() -> None:
    first = [(Passes(0.1 * number), [delta("t"), finish()]) for number in range(1, LEAST_TIMES + 1)]
    unknown = Gate()
    bench = racing(
        {"a": [(unknown, OK), *first, [Gate(), delta("never")]], "b": [STREAM]},
        hedge={"after": "p90", "budget": 1},
    )
    fail_both(bench, unknown, ask(stream=True))
    assert bench.asked == ["a"], "nothing is known yet"

    async def go() -> None:
        for _ in first:
            await _read(await bench.run(ask(stream=True)))
        assert bench.clock.slept == []
        await _read(await bench.run(ask(stream=True)))

    asyncio.run(go())
    assert bench.clock.slept == [pytest.approx(1.8)]
    assert bench.tally.hedged == "won"


def test_whole_answers_have_a_percentile_of_their_own() -> None:
    streams: list[Script] = [[delta("t"), finish()]] * LEAST_TIMES
    late = Gate()
    bench = racing({"a": [*streams, (late, OK)], "b": []}, hedge={"after": "p90", "budget": 1})

    async def go() -> None:
        bench.health.percentile_s(bench._target("a"), bench.policy, 0.9, streamed=True)
        for _ in streams:
            await _read(await bench.run(ask(stream=True)))

    asyncio.run(go())
    fail_both(bench, late)
    assert bench.asked == ["a"] * (LEAST_TIMES + 1)


async def _read(reply: Reply) -> None:
    assert isinstance(reply, ChunkStream)
    async for _ in reply:
        pass


# The caller's quota


def test_a_request_without_room_for_a_second_call_is_not_refused_for_it() -> None:
    gate = Gate()
    bench = racing(
        {"a": [(gate, OK)], "b": []},
        allowances=Allowances(keys={"web": Limits(tpm=1500)}),
        hedge={"after": AFTER_S, "budget": 0.5},
    )
    bench.clock.turns = 10  # in which the first is sent
    reply = fail_both(bench, gate, ask(body={"max_tokens": 1000}))
    assert isinstance(reply, Completion)
    assert bench.asked == ["a"]
    assert bench.tally.hedged is None
    assert bench.value("mobius_quota_refused_total") == 0
    assert bench.attempts._hedge.share.take(0.5), "what was not used is given back"
    assert settled(bench) == {"a": "ok"}


def test_the_request_itself_is_refused_as_ever() -> None:
    bench = racing({"a": [], "b": []}, allowances=Allowances(keys={"web": Limits(tpd=1500)}))
    bench.ledger.past = 1000
    with pytest.raises(LimitReached):
        run(bench, ask(body={"max_tokens": 1000}))
    assert bench.value("mobius_quota_refused_total") == 1


def test_two_calls_are_one_request_to_the_limits_of_the_key() -> None:
    bench = racing(
        {"a": [(Gate(), OK)], "b": [OTHER]},
        allowances=Allowances(keys={"web": Limits(max_parallel=1, rpm=1)}),
    )
    run(bench)
    assert bench.tally.hedged == "won"
    assert bench.ledger.admitted == ["web"]


# Nothing is left, at whatever point the caller leaves


class Takes(Gate):
    """So many turns of the loop."""

    def __init__(self, turns: int) -> None:
        super().__init__()
        self.turns = turns

    async def pass_(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)


class SlowLedger(FakeLedger):
    """Takes a turn of the loop for everything; what is cancelled is as the port says."""

    async def open(self, row: Opened, *, admitted: bool) -> None:
        await super().open(row, admitted=admitted)
        try:
            await asyncio.sleep(0)
        except BaseException:
            self.opened.remove(row)
            raise

    async def close(self, row: Closed) -> None:
        await super().close(row)
        await asyncio.sleep(0)


class SlowStore(MemoryStore):
    async def reserve(
        self, id: str, claims: Sequence[Claim], scopes: Sequence[Scope]
    ) -> Standings | Refusal:
        await asyncio.sleep(0)
        found = await super().reserve(id, claims, scopes)
        await asyncio.sleep(0)
        return found


def slowly(scripts: dict[str, list[Script]]) -> Bench:
    bench = racing(scripts, allowances=Allowances(keys={"web": Limits(tpm=10_000_000)}))
    bench.ledger = SlowLedger()
    bench.use(SlowStore(bench.clock, bench.ledger))
    bench.clock.turns = 6
    return bench


RACES: list[dict[str, list[Any]]] = [
    {"a": [(Takes(20), OK)], "b": [(Takes(5), OTHER)]},
    {"a": [(Takes(8), OK)], "b": [(Takes(20), OTHER)]},
    {"a": [(Takes(6), OK)], "b": [(Takes(2), OTHER)]},
    {"a": [(Takes(20), Kind.SILENT)], "b": [(Takes(5), Kind.UNREACHABLE)], "c": [OK]},
    {"a": [[Takes(20), *STREAM]], "b": [[Takes(5), *STREAM]]},
    {"a": [[Takes(9), *STREAM]], "b": [[Takes(5), *STREAM]]},
    {"a": [[Takes(10), *STREAM]], "b": [[Takes(5), *STREAM]]},
]


@pytest.mark.parametrize("number", range(len(RACES)))
@pytest.mark.parametrize("again", [False, True], ids=["once", "every turn"])
def test_a_caller_who_leaves_at_whatever_point_leaves_nothing(number: int, again: bool) -> None:
    async def leaves_after(turns: int) -> bool:
        """Say whether the answer had come by then."""
        bench = slowly(RACES[number])
        stream = isinstance(RACES[number]["a"][0], list)
        asking = asyncio.create_task(_whole(bench, stream=stream))
        for _ in range(turns):
            await asyncio.sleep(0)
        came = asking.done()
        asking.cancel()
        while not asking.done():
            await asyncio.sleep(0)
            if again:
                asking.cancel()
        assert came or asking.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert all(source.closed == 1 for source in bench.upstream.sources if source.given)
        settled(bench)
        assert bench.value("mobius_in_flight_requests") == 0
        return came

    async def go() -> None:
        turns = 0
        while not await leaves_after(turns):
            turns += 1
        assert turns > 15

    asyncio.run(go())


async def _whole(bench: Bench, *, stream: bool) -> None:
    reply = await bench.serve(ask(stream=stream), ANYBODY)
    if isinstance(reply, ChunkStream):
        try:
            async for _ in reply:
                await asyncio.sleep(0)
        finally:
            await reply.aclose()


def test_many_at_once_leave_no_reservation_open() -> None:
    many = 50
    bench = slowly({"a": [(Takes(30), OK)] * many, "b": [(Takes(9), OTHER)] * many})

    async def go() -> None:
        await asyncio.gather(*(_whole(bench, stream=False) for _ in range(many)))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(go())
    settled(bench)
    assert len(bench.ledger.closed) == 2 * many
    assert [row.answered for row in bench.ledger.closed].count(True) == many


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_whole_answers_the_one_that_came_first_is_the_answer(first: int) -> None:
    gates = Gate(), Gate()
    bench = racing({"a": [(gates[0], OK)], "b": [(gates[1], OTHER)]})

    async def go() -> Reply:
        asking = asyncio.create_task(bench.run())
        await gates[1].reached.wait()
        gates[first].opened.set()
        gates[1 - first].opened.set()
        return await asking

    reply = asyncio.run(go())
    label = "ab"[first]
    assert isinstance(reply, Completion)
    assert reply.body == (OK, OTHER)[first]
    assert (bench.tally.target, bench.tally.trail[-1]) == (label, f"{label}:200")
    assert settled(bench) == {"a": "ok", "b": "ok"}
    opened = {row.id: row.target for row in bench.ledger.opened}
    assert [opened[row.id] for row in bench.ledger.closed if row.answered] == [label]
    assert bench.tally.usage is not None
    assert bench.tally.usage.prompt_tokens == 7 + 9, "both are paid for"


def test_two_that_are_reserved_for_at_once_have_an_account_each() -> None:
    bench = slowly({"a": [], "b": []})

    async def go() -> None:
        call = ask()
        async with bench.quota.admit(call, ANYBODY, bench._snapshot(), bench.tally) as admission:
            opening = [bench.quota.open(admission, bench._target(label)) for label in ("a", "b")]
            one, other = await asyncio.gather(*opening)
            assert one.id != other.id
            assert len(bench.store._reserved) == 2  # type: ignore[attr-defined]
            for each in (one, other):
                await bench.quota.settle(admission, each)

    asyncio.run(go())
    assert settled(bench) == {"a": "cancelled", "b": "cancelled"}


# What is told of it


def test_who_was_slow_is_remembered_and_not_blamed() -> None:
    bench = racing({"a": [[Gate(), delta("never")]], "b": [[Passes(1.0), *STREAM]]})

    async def go() -> None:
        await _read(await bench.run(ask(stream=True)))

    asyncio.run(go())
    standing = bench.health.standing(bench._target("a"), bench.policy)
    assert not bench.blamed("a")
    assert standing.healthy
    assert standing.expected_s == pytest.approx(AFTER_S + 1.0)
    assert standing.in_flight == 0


def test_races_are_counted_and_told_in_the_log() -> None:
    bench = racing({"a": [(Gate(), OK)], "b": [OTHER]})
    asyncio.run(bench.serve())
    assert bench.samples("mobius_hedged_total") == [({"model": "m", "result": "won"}, 1.0)]
    (line,) = map(orjson.loads, bench.log_lines)
    assert line["hedged"] == "won"
    assert line["attempts"] == ["a:cancelled", "b:200"]
    plain = racing({"a": [OK], "b": []})
    asyncio.run(plain.serve())
    assert plain.samples("mobius_hedged_total") == []
    assert "hedged" not in orjson.loads(plain.log_lines[0])


def test_the_time_of_two_is_waited_for_once() -> None:
    slow, slower = Gate(), Gate()
    bench = racing({"a": [(slow, Passes(3.0), OK)], "b": [(slower, OTHER)]})

    async def go() -> None:
        asking = asyncio.create_task(bench.run())
        await slower.reached.wait()
        slow.opened.set()
        await asking

    asyncio.run(go())
    assert bench.tally.upstream_s == pytest.approx(AFTER_S + 3.0)


def test_a_caller_who_left_a_race_is_told_of_too() -> None:
    gate = Gate()
    bench = racing({"a": [(Gate(), OK)], "b": [(gate, OTHER)]})
    asyncio.run(gate.cancel(bench.serve()))
    assert bench.samples("mobius_hedged_total") == [({"model": "m", "result": "cancelled"}, 1.0)]
    assert settled(bench) == {"a": "cancelled", "b": "cancelled"}
    assert not bench.blamed("a")
    assert not bench.blamed("b")
