"""The ring, walked on scripted targets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.errors import (
    DeadlineExceeded,
    ModelUnknown,
    NoTargetAvailable,
    ProviderAuthFailed,
    ProxyError,
    RateLimited,
    Refused,
    UpstreamFailure,
)
from proxy.facts import ModelFacts
from proxy.replies import ChunkStream, Completion, Reply
from proxy.retry import RULES, Kind, backoff_s
from proxy.types import Call, Ring, Strategy
from tests.fakes import (
    Bench,
    Fails,
    Gate,
    Passes,
    Script,
    answer,
    ask,
    delta,
    finish,
    group,
    limited,
    ring,
    role,
    sent,
    target,
)

OK = answer()
GOES_ON = [kind for kind in Kind if RULES[kind].fall_back and kind is not Kind.RESTING]


def run(bench: Bench, call: Call | None = None) -> Reply:
    return asyncio.run(bench.run(call))


def refused(bench: Bench, call: Call | None = None) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        run(bench, call)
    return caught.value


def one_lap(scripts: dict[str, list[Script]], **facts: Any) -> Bench:
    """A bench where each target is asked at most once."""
    return Bench(scripts, laps=1, num_retries=0, **facts)


# The first answer


def test_the_first_target_answers_and_nobody_else_is_asked() -> None:
    bench = Bench({"a": [OK], "b": []})
    reply = run(bench)
    assert isinstance(reply, Completion)
    assert reply.body == OK
    assert bench.asked == ["a"]
    tally = bench.tally
    assert (tally.target, tally.provider, tally.trail) == ("a", "openai", ["a:200"])
    assert (tally.retries, tally.fallbacks) == (0, 0)


def test_the_target_gets_the_call_as_it_came() -> None:
    call = ask(wishes={"timeout_s": 7.0, "num_retries": 1})
    bench = Bench({"a": [OK]})
    run(bench, call)
    assert bench.upstream.calls[0].call is call


@pytest.mark.parametrize("kind", GOES_ON)
def test_the_next_target_answers_after_every_failure_that_another_may_do_better(
    kind: Kind,
) -> None:
    bench = one_lap({"a": [kind], "b": [OK]})
    assert isinstance(run(bench), Completion)
    assert bench.asked == ["a", "b"]
    assert bench.tally.fallbacks == 1
    assert bench.tally.trail == [f"a:{kind.value}", "b:200"]
    assert bench.clock.slept == []


def test_the_trail_names_statuses_where_there_was_one() -> None:
    bench = one_lap({"a": [Fails(Kind.TRANSIENT, 503)], "b": [Kind.UNREACHABLE], "c": [OK]})
    run(bench)
    assert bench.tally.trail == ["a:503", "b:unreachable", "c:200"]


def test_a_target_of_another_provider_than_the_rings_first_is_foreign() -> None:
    members = [target("a", provider="openai"), target("b", provider="anthropic")]
    bench = one_lap(
        {"a": [Kind.UNREACHABLE], "b": [Kind.UNREACHABLE], "c": [OK]},
        ring=Ring("m", (group("m", *members), group("n", target("c", provider="openai")))),
    )
    run(bench)
    assert [each.foreign for each in bench.upstream.calls] == [False, True, False]


# The same target again


@pytest.mark.parametrize("kind", [Kind.TRANSIENT, Kind.OVERLOADED])
def test_a_fault_that_may_pass_is_asked_again_and_then_fallen_back_from(kind: Kind) -> None:
    bench = Bench({"a": [kind, kind, kind], "b": [OK]}, num_retries=2)
    run(bench)
    assert bench.asked == ["a", "a", "a", "b"]
    assert bench.clock.slept == [0.125, 0.25]
    assert (bench.tally.retries, bench.tally.fallbacks) == (2, 1)
    assert bench.tally.waits_s == pytest.approx(0.375)


def test_the_same_target_is_asked_again_once_by_default() -> None:
    bench = Bench({"a": [Kind.TRANSIENT, OK], "b": []})
    run(bench)
    assert bench.asked == ["a", "a"]
    assert bench.tally.trail == ["a:transient", "a:200"]


@pytest.mark.parametrize(
    "kind",
    [Kind.UNREACHABLE, Kind.SILENT, Kind.CREDENTIAL, Kind.EXHAUSTED, Kind.MISSING, Kind.OVERSIZED],
)
def test_what_does_not_pass_by_itself_is_not_asked_again(kind: Kind) -> None:
    bench = Bench({"a": [kind], "b": [OK]}, num_retries=5)
    run(bench)
    assert bench.asked == ["a", "b"]


@given(st.integers(0, 10), st.floats(0, 1, exclude_max=True))
@settings(deadline=None, max_examples=50)
def test_retries_are_bounded_and_their_waits_fully_jittered(retries: int, number: float) -> None:
    bench = Bench(
        {"a": repeat(Kind.TRANSIENT)},
        chance=lambda: number,
        num_retries=retries,
        laps=1,
        retry_budget={"min": 100},
        breaker={"failures": 100, "min_calls": 100},
    )
    with pytest.raises(NoTargetAvailable):
        run(bench)
    assert len(bench.asked) == 1 + retries
    assert bench.clock.slept == [min(4.0, 0.25 * 2.0**retry) * number for retry in range(retries)]


def test_the_rings_own_number_of_retries_beats_the_policys() -> None:
    bench = Bench(
        {"a": [Kind.TRANSIENT, Kind.TRANSIENT, OK]},
        ring=ring("a", num_retries=2),
        num_retries=0,
    )
    run(bench)
    assert bench.asked == ["a", "a", "a"]


def test_a_requests_wish_for_retries_beats_both() -> None:
    bench = Bench({"a": [Kind.TRANSIENT], "b": [OK]}, ring=ring("a", "b", num_retries=2))
    run(bench, ask(wishes={"num_retries": 0}))
    assert bench.asked == ["a", "b"]
    many = Bench({"a": [*[Kind.TRANSIENT] * 3, OK]}, num_retries=0)
    run(many, ask(wishes={"num_retries": 3}))
    assert many.asked == ["a"] * 4


@pytest.mark.parametrize("failure", [Kind.TRANSIENT, limited(1.0)])
def test_a_request_that_wants_no_retries_never_meets_a_target_twice(failure: Script) -> None:
    bench = Bench({"a": [failure], "b": [failure]}, laps=5)
    refused(bench, ask(wishes={"num_retries": 0}))
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == []


def test_a_target_whose_breaker_has_opened_is_not_asked_again() -> None:
    bench = Bench({"a": [Kind.TRANSIENT], "b": [OK]}, breaker={"failures": 1})
    run(bench)
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == [], "there was nothing to wait for"
    assert bench.tally.retries == 0


# Rate limits


def test_a_short_retry_after_is_waited_for_exactly_and_the_same_target_asked_again() -> None:
    bench = Bench({"a": [limited(1.75), OK], "b": []})
    run(bench)
    assert bench.asked == ["a", "a"]
    assert bench.clock.slept == [1.75]
    assert bench.tally.trail == ["a:429", "a:200"]


def test_others_go_round_a_target_that_a_request_is_waiting_for() -> None:
    bench = Bench({"a": [limited(1.0), OK], "b": [OK]})

    async def main() -> None:
        async def another() -> None:
            await bench.run(ask())
            assert bench.asked == ["a", "b"]

        bench.clock.meanwhile = another
        await bench.run(ask())
        assert bench.asked == ["a", "b", "a"]

    asyncio.run(main())


def test_a_short_retry_after_is_waited_for_as_often_as_a_fault_is_asked_again() -> None:
    bench = Bench({"a": repeat(limited(0.5)), "b": [OK]}, num_retries=2)
    run(bench)
    assert bench.asked == ["a", "a", "a", "b"]
    default = Bench({"a": repeat(limited(0.5)), "b": [OK]}, num_retries=0)
    run(default)
    assert default.asked == ["a", "a", "b"]


@pytest.mark.parametrize(
    ("retry_after_s", "cools_s"), [(2.25, 2.25), (30.0, 30.0), (1e9, 3600.0), (None, 5.0)]
)
def test_a_longer_or_missing_retry_after_goes_on_at_once_and_cools_for_everybody(
    retry_after_s: float | None, cools_s: float
) -> None:
    bench = Bench({"a": [limited(retry_after_s), OK], "b": [OK, OK]})
    run(bench)
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == []
    assert bench.away_s("a") == cools_s
    run(bench)
    assert bench.asked == ["a", "b", "b"]
    bench.clock.pass_(cools_s)
    run(bench)
    assert bench.asked == ["a", "b", "b", "a"]


def test_cooldowns_without_a_header_double_from_request_to_request() -> None:
    bench = Bench({"a": repeat(limited()), "b": repeat(OK)})
    for cools_s in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        run(bench)
        assert bench.away_s("a") == cools_s
        bench.clock.pass_(cools_s)


def test_rate_limits_never_open_a_breaker() -> None:
    bench = Bench({"a": repeat(limited(3.0)), "b": repeat(OK)})
    for _ in range(30):
        run(bench)
        bench.clock.pass_(3.0)
    assert bench.asked.count("a") == 30


def test_a_retry_after_on_a_503_is_a_floor_for_the_wait() -> None:
    bench = Bench({"a": [Fails(Kind.TRANSIENT, 503, retry_after_s=1.5), OK]})
    run(bench)
    assert bench.clock.slept == [1.5]
    longer = Bench({"a": [Fails(Kind.TRANSIENT, 503, retry_after_s=0.1), OK]}, chance=lambda: 0.8)
    run(longer)
    assert longer.clock.slept == [pytest.approx(0.2)]


def test_a_long_retry_after_on_a_503_goes_on_and_leaves_the_target_alone() -> None:
    bench = Bench({"a": [Fails(Kind.TRANSIENT, 503, retry_after_s=20.0)], "b": [OK, OK]})
    run(bench)
    run(bench)
    assert bench.asked == ["a", "b", "b"]
    assert bench.away_s("a") == 20.0


# Whose fault it is


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_bad_request_is_neither_retried_nor_passed_on_nor_blamed(status: int) -> None:
    bad = Fails(Kind.CALLER, status, message="no such field", code="bad", type="invalid")
    bench = Bench({"a": [bad], "b": []}, breaker={"failures": 1, "min_calls": 1})
    error = refused(bench)
    assert isinstance(error, Refused)
    assert (error.status, error.message, error.code) == (status, "no such field", "bad")
    assert bench.asked == ["a"]
    assert not bench.blamed("a")
    assert bench.away_s("a") == 0.0


def dialects() -> Ring:
    members = [
        target("a", provider="openai"),
        target("b", provider="anthropic"),
        target("c", provider="openai"),
        target("d", provider="gemini"),
    ]
    return ring(*members)


def test_a_bad_request_after_the_provider_changed_is_a_matter_of_dialect() -> None:
    bench = one_lap({"a": [Kind.TRANSIENT], "b": [Fails(Kind.CALLER, 400)], "c": [OK]})
    bench.ring = dialects()
    run(bench)
    assert bench.asked == ["a", "b", "c"]
    assert not bench.blamed("b")


def test_back_at_the_first_provider_a_bad_request_is_the_callers_again() -> None:
    bad = Fails(Kind.CALLER, 400, message="it is you")
    bench = one_lap({"a": [Kind.TRANSIENT], "b": [Fails(Kind.CALLER, 400)], "c": [bad], "d": []})
    bench.ring = dialects()
    assert refused(bench).message == "it is you"
    assert bench.asked == ["a", "b", "c"]


def test_the_first_provider_asked_decides_even_when_the_rings_first_rests() -> None:
    bench = Bench({"a": [], "b": [Fails(Kind.CALLER, 400, message="it is you")]}, ring=dialects())
    with (
        pytest.raises(UpstreamFailure),
        bench.health.watch(bench.ring.groups[0].targets[0], bench.policy),
    ):
        raise limited(100.0).failure()
    assert refused(bench).message == "it is you"
    assert bench.asked == ["b"]


def test_refused_dialects_leave_the_first_providers_error() -> None:
    bench = one_lap(
        {
            "a": [Fails(Kind.DIALECT, message="a cannot")],
            "b": [Fails(Kind.CALLER, 422, message="b cannot")],
            "c": [Fails(Kind.DIALECT, message="c cannot")],
            "d": [Kind.DIALECT],
        },
        ring=dialects(),
    )
    error = refused(bench)
    assert (error.status, error.message) == (400, "a cannot")
    assert bench.asked == ["a", "b", "c", "d"]


def test_a_target_that_does_not_speak_the_dialect_is_not_asked_in_another_lap() -> None:
    bench = Bench(
        {"a": [Kind.TRANSIENT, OK], "b": [Fails(Kind.CALLER, 400)]},
        ring=ring("a", target("b", provider="anthropic")),
        num_retries=0,
    )
    run(bench)
    assert bench.asked == ["a", "b", "a"]


def test_the_earliest_return_is_that_of_a_target_that_could_answer() -> None:
    bench = Bench(
        {"a": [limited(30.0)], "b": [Fails(Kind.CALLER, 400)]},
        ring=ring("a", target("b", provider="anthropic")),
    )
    error = refused(bench)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 30.0


# Too long, and refused content


def small(label: str, window: int | None = 1000, **facts: Any) -> Any:
    return target(label, facts=ModelFacts(max_input_tokens=window), **facts)


def test_a_request_too_long_goes_to_the_next_target_not_known_to_be_as_small() -> None:
    members = [
        small("a"),
        small("b", 999),
        small("c", 1000),
        small("d", None, model="a"),
        small("e", None),
    ]
    bench = one_lap(
        {"a": [Kind.OVERSIZED], "e": [Kind.OVERSIZED], "f": [OK]},
        ring=Ring("m", (group("m", *members), group("n", small("f", 2000)))),
    )
    run(bench)
    assert bench.asked == ["a", "e", "f"]


def test_a_request_too_long_for_everybody_is_the_400() -> None:
    long = Fails(Kind.OVERSIZED, 400, message="at most 1000", code="context_length_exceeded")
    bench = Bench({"a": [long], "b": [Kind.OVERSIZED]})
    error = refused(bench)
    assert (error.status, error.message, error.code) == (
        400,
        "at most 1000",
        "context_length_exceeded",
    )
    assert bench.asked == ["a", "b"]
    assert not bench.blamed("a")


def special(**groups: Any) -> Ring:
    return Ring("m", (group("m", "a", "b"), group("n", "c")), **groups)


def test_context_window_fallbacks_are_asked_instead_of_the_rest_of_the_ring() -> None:
    bench = Bench(
        {"a": [Kind.OVERSIZED], "b": [], "c": [], "x": [Kind.TRANSIENT] * 2, "y": [OK]},
        ring=special(oversized=(group("x", "x"), group("y", "y"))),
    )
    run(bench)
    assert bench.asked == ["a", "x", "x", "y"]


def test_content_policy_fallbacks_are_asked_instead_of_the_rest_of_the_ring() -> None:
    bench = Bench(
        {"a": [Kind.CONTENT], "b": [], "c": [], "x": [OK]},
        ring=special(content=(group("x", "x"),)),
    )
    run(bench)
    assert bench.asked == ["a", "x"]


def test_refused_content_without_fallbacks_is_the_providers_reason() -> None:
    bench = Bench(
        {"a": [Fails(Kind.CONTENT, 400, message="not that")]},
        ring=special(oversized=(group("x", "x"),)),
    )
    error = refused(bench)
    assert (error.status, error.message) == (400, "not that")
    assert bench.asked == ["a"]
    assert not bench.blamed("a")


@pytest.mark.parametrize(
    ("kind", "where"), [(Kind.OVERSIZED, "oversized"), (Kind.CONTENT, "content")]
)
def test_the_same_model_is_never_asked_again_under_another_key(kind: Kind, where: str) -> None:
    again = target("again", model="a")
    bench = Bench(
        {"a": [kind], "x": [kind], "y": [OK]},
        ring=special(**{where: (group("x", again, "x", target("x2", model="x"), "y"),)}),
    )
    run(bench)
    assert bench.asked == ["a", "x", "y"]


@pytest.mark.parametrize(
    ("kind", "where"), [(Kind.OVERSIZED, "oversized"), (Kind.CONTENT, "content")]
)
def test_special_fallbacks_are_gone_through_once(kind: Kind, where: str) -> None:
    bench = one_lap(
        {"a": [kind], "x": [Kind.UNREACHABLE], "y": [kind], "z": [OK]},
        ring=special(**{where: (group("x", "x", "y", "z"),)}),
    )
    run(bench)
    assert bench.asked == ["a", "x", "y", "z"]


@pytest.mark.parametrize(
    ("kind", "where"), [(Kind.OVERSIZED, "oversized"), (Kind.CONTENT, "content")]
)
def test_special_fallbacks_that_fail_too_leave_the_400(kind: Kind, where: str) -> None:
    bench = Bench(
        {"a": [Fails(kind, 400, message="first")], "x": [Kind.UNREACHABLE]},
        ring=special(**{where: (group("x", "x"),)}),
    )
    error = refused(bench)
    assert (error.status, error.message) == (400, "first")


def test_content_fallbacks_without_a_key_leave_the_400() -> None:
    unset = target("x", missing="X_KEY")
    bench = Bench(
        {"a": [Fails(Kind.CONTENT, 400, message="not that")]},
        ring=special(content=(group("x", unset),)),
    )
    error = refused(bench)
    assert (error.status, error.message) == (400, "not that")


def test_context_window_fallbacks_without_a_key_leave_the_rest_of_the_ring() -> None:
    unset = target("x", missing="X_KEY")
    bench = Bench(
        {"a": [Kind.OVERSIZED], "b": [OK]},
        ring=special(oversized=(group("x", unset),)),
    )
    run(bench)
    assert bench.asked == ["a", "b"]


def test_a_request_may_be_too_long_first_and_refused_then() -> None:
    bench = Bench(
        {"a": [Kind.OVERSIZED], "x": [Kind.CONTENT], "y": [Kind.OVERSIZED], "z": [OK]},
        ring=special(oversized=(group("x", "x"),), content=(group("y", "y", "z"),)),
    )
    run(bench)
    assert bench.asked == ["a", "x", "y", "z"]


# Keys, accounts and models


def test_refused_keys_go_on_and_rest_and_with_nobody_left_are_a_502() -> None:
    bench = Bench({"a": [Fails(Kind.CREDENTIAL, 401)], "b": [Fails(Kind.CREDENTIAL, 403)]})
    error = refused(bench)
    assert isinstance(error, ProviderAuthFailed)
    assert (error.status, error.should_retry) == (502, False)
    assert (bench.away_s("a"), bench.away_s("b")) == (300.0, 300.0)
    assert isinstance(refused(bench), ProviderAuthFailed)
    assert bench.asked == ["a", "b"], "the second request called nobody"


def test_an_empty_account_takes_every_target_on_its_key_out_of_the_walk() -> None:
    same = target("b", credential="credential of a")
    bench = Bench(
        {"a": [Fails(Kind.EXHAUSTED, 429)], "c": [OK, OK]},
        ring=ring("a", same, "c"),
    )
    run(bench)
    run(bench)
    assert bench.asked == ["a", "c", "c"]
    assert bench.tally.fallbacks == 1, "c was asked for a and b, which rest"


def test_a_model_that_nobody_knows_is_a_404_and_any_other_absence_a_503() -> None:
    unknown = refused(Bench({"a": [Fails(Kind.MISSING, 404)], "b": [Fails(Kind.MISSING, 404)]}))
    assert isinstance(unknown, ModelUnknown)
    assert (unknown.status, unknown.code) == (404, "model_not_found")
    moved = refused(Bench({"a": [Fails(Kind.MISSING, 301)]}))
    assert (moved.status, moved.should_retry) == (503, False)


def test_a_provider_that_is_not_there_rests() -> None:
    bench = Bench({"a": [Fails(Kind.MISSING, 410)], "b": [OK, OK]})
    run(bench)
    run(bench)
    assert bench.asked == ["a", "b", "b"]


# Laps


def test_the_ring_begins_again_after_its_last_target() -> None:
    bench = Bench({"a": [Kind.TRANSIENT, OK], "b": [Kind.TRANSIENT]}, num_retries=0)
    run(bench)
    assert bench.asked == ["a", "b", "a"]
    assert bench.clock.slept == [0.125]


@pytest.mark.parametrize("laps", [1, 2, 3, 10])
def test_there_are_at_most_so_many_laps(laps: int) -> None:
    bench = Bench(
        {"a": repeat(Kind.TRANSIENT), "b": repeat(Kind.OVERLOADED)},
        laps=laps,
        num_retries=0,
        retry_budget={"min": 100},
        breaker={"failures": 100, "min_calls": 100},
    )
    refused(bench)
    assert bench.asked == ["a", "b"] * laps


def test_a_lap_waits_for_the_first_target_to_return() -> None:
    bench = Bench(
        {"a": [limited(1.75), limited(1.75), OK], "b": [limited(30.0)]}, num_retries=0, laps=2
    )
    run(bench)
    assert bench.asked == ["a", "a", "b", "a"]
    assert bench.clock.slept == [1.75, 1.75]


def test_there_is_no_lap_when_nobody_returns_soon_enough() -> None:
    bench = Bench({"a": [limited(2.5)], "b": [limited(2.25)]}, laps=5)
    error = refused(bench)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 2.25
    assert bench.clock.slept == []


@pytest.mark.parametrize(
    "kind", [Kind.UNREACHABLE, Kind.SILENT, Kind.CREDENTIAL, Kind.MISSING, Kind.OVERSIZED]
)
def test_there_is_no_lap_for_faults_that_do_not_pass(kind: Kind) -> None:
    bench = Bench({"a": [kind], "b": [kind]}, laps=5)
    refused(bench)
    assert bench.asked == ["a", "b"]


def test_a_silent_target_is_not_asked_twice_not_even_in_another_lap() -> None:
    bench = Bench({"a": [Kind.SILENT], "b": [Kind.TRANSIENT, OK]}, num_retries=0)
    run(bench)
    assert bench.asked == ["a", "b", "b"]


def test_a_target_that_was_too_slow_for_its_caller_is_not_asked_twice_either() -> None:
    bench = Bench({"a": [Kind.IMPATIENT], "b": [Kind.TRANSIENT, OK]}, num_retries=0)
    run(bench)
    assert bench.asked == ["a", "b", "b"]


def test_callers_in_a_hurry_leave_a_target_as_well_as_it_was() -> None:
    bench = Bench({"a": [*repeat(Kind.IMPATIENT, 20), OK]}, laps=5)
    for _ in range(20):
        error = refused(bench, ask(wishes={"timeout_s": 0.1}))
        assert isinstance(error, DeadlineExceeded)
        assert not bench.blamed("a")
        assert bench.away_s("a") == 0.0
    assert isinstance(run(bench), Completion)
    assert bench.asked == ["a"] * 21
    assert bench.clock.slept == []


def test_a_lap_does_not_begin_when_all_that_could_answer_are_out() -> None:
    bench = Bench({"a": [Kind.SILENT], "b": [limited(60.0)]}, laps=5)
    error = refused(bench)
    assert isinstance(error, NoTargetAvailable)
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == []


# The deadline


def test_no_attempt_starts_after_the_deadline() -> None:
    bench = Bench({"a": [(Passes(10.0), Kind.UNREACHABLE)], "b": []}, deadline=10)
    error = refused(bench)
    assert isinstance(error, DeadlineExceeded)
    assert (error.status, error.should_retry) == (504, False)
    assert bench.asked == ["a"]


def test_an_attempt_that_started_in_time_may_end_late() -> None:
    bench = Bench({"a": [(Passes(9.9), Kind.UNREACHABLE)], "b": [(Passes(100.0), OK)]}, deadline=10)
    assert isinstance(run(bench), Completion)


def test_a_wait_that_would_end_after_the_deadline_is_not_begun() -> None:
    bench = Bench({"a": [(Passes(9.0), limited(1.0))], "b": [OK]}, deadline=10)
    run(bench)
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == []


def test_a_lap_that_would_begin_after_the_deadline_is_not_begun() -> None:
    bench = Bench({"a": [(Passes(8.5), limited(1.6))]}, deadline=10, num_retries=0)
    error = refused(bench)
    assert isinstance(error, RateLimited)
    assert bench.clock.slept == []


@given(
    st.lists(
        st.tuples(st.floats(0, 5), st.sampled_from([Kind.TRANSIENT, Kind.SILENT, limited(1.5)])),
        min_size=1,
        max_size=12,
    ),
    st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None, max_examples=100)
def test_whatever_happens_every_attempt_starts_before_the_deadline(
    steps: list[tuple[float, Any]], number: float
) -> None:
    starts: list[float] = []

    def script() -> Any:
        for took_s, failure in steps:
            starts.append(bench.clock.now())
            yield (Passes(took_s), failure)
        while True:
            starts.append(bench.clock.now())
            yield (Passes(1.0), Kind.TRANSIENT)

    bench = Bench(
        {"a": script(), "b": script()}, chance=lambda: number, deadline=6, laps=10, num_retries=5
    )
    began_s = bench.clock.now()
    refused(bench)
    assert max(starts) < began_s + 6


# Nobody left


def test_nobody_left_after_rate_limits_is_the_last_providers_429() -> None:
    bench = Bench({"a": [limited(40.0, "a is busy")], "b": [limited(20.0, "b is busy")]})
    error = refused(bench)
    assert isinstance(error, RateLimited)
    assert (error.message, error.code, error.retry_after_s) == (
        "b is busy",
        "rate_limit_exceeded",
        20.0,
    )


def test_a_ring_that_cools_altogether_is_a_429_at_once_without_a_call() -> None:
    bench = Bench({"a": [limited(40.0, "a is busy")], "b": [limited(20.0, "b is busy")]})
    refused(bench)
    bench.clock.pass_(5.0)
    error = refused(bench)
    assert isinstance(error, RateLimited)
    assert (error.message, error.retry_after_s) == ("a is busy", 15.0)
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == []


def test_a_ring_whose_breakers_are_open_is_a_503_at_once_without_a_call() -> None:
    bench = Bench(
        {"a": [Kind.UNREACHABLE], "b": [Kind.UNREACHABLE]}, breaker={"failures": 1, "rest": 10}
    )
    refused(bench)
    bench.clock.pass_(4.0)
    error = refused(bench)
    assert isinstance(error, NoTargetAvailable)
    assert (error.retry_after_s, error.should_retry) == (6.0, False)
    assert bench.asked == ["a", "b"]
    assert bench.clock.slept == []


def test_a_mixed_end_is_a_503_with_the_earliest_return() -> None:
    error = refused(Bench({"a": [limited(40.0)], "b": [Kind.UNREACHABLE]}, breaker={"failures": 1}))
    assert isinstance(error, NoTargetAvailable)
    assert (error.retry_after_s, error.should_retry) == (10.0, False)


def test_a_ring_without_any_configured_target_names_the_variable() -> None:
    bench = Bench({}, ring=ring(target("a", missing="OPENAI_API_KEY")))
    error = refused(bench)
    assert error.status == 503
    assert "OPENAI_API_KEY" in error.message
    assert bench.asked == []


# The retry budget


def test_the_budget_bounds_retries_of_all_requests_but_never_going_on() -> None:
    bench = Bench(
        {"a": repeat(Kind.TRANSIENT), "b": repeat(OK)},
        num_retries=1,
        breaker={"failures": 1000, "share": 1, "min_calls": 1000},
        retry_budget={"share": 0, "min": 3},
    )
    for _ in range(10):
        assert isinstance(run(bench), Completion)
    assert bench.asked.count("a") == 10 + 3
    assert bench.asked.count("b") == 10


def test_the_budget_grows_with_the_requests_and_forgets_after_ten_seconds() -> None:
    bench = Bench(
        {"a": repeat(Kind.TRANSIENT), "b": repeat(OK)},
        chance=lambda: 0.0,
        breaker={"failures": 1000, "share": 1, "min_calls": 1000},
        retry_budget={"share": 0.2, "min": 0},
    )
    for _ in range(20):
        run(bench)
    assert bench.asked.count("a") == 20 + 4
    bench.clock.pass_(10.0)
    run(bench)
    assert bench.asked.count("a") == 24 + 1, "of one request a fifth is none"


def test_the_budget_bounds_laps_and_short_waits_too() -> None:
    lap = Bench({"a": [Kind.TRANSIENT]}, num_retries=0, retry_budget={"share": 0, "min": 0})
    refused(lap)
    assert lap.asked == ["a"]
    wait = Bench({"a": [limited(1.0)], "b": [OK]}, retry_budget={"share": 0, "min": 0})
    run(wait)
    assert wait.asked == ["a", "b"]


# Breakers and probes


def opened(bench: Bench) -> None:
    """Open the breaker of `a`, and let its rest pass."""
    refused(bench)
    assert bench.away_s("a") == 10.0
    bench.clock.pass_(10.0)


def test_exactly_one_of_many_concurrent_requests_probes_a_half_open_target() -> None:
    gate = Gate()
    bench = Bench(
        {"a": [Kind.UNREACHABLE, (gate, OK), OK], "b": [Kind.UNREACHABLE, *[OK] * 20]},
        breaker={"failures": 1},
    )
    opened(bench)
    bench.upstream.calls.clear()

    async def main() -> None:
        probe = asyncio.create_task(bench.run())
        await gate.reached.wait()
        others = [asyncio.create_task(bench.run()) for _ in range(20)]
        done, _ = await asyncio.wait(others, timeout=5)
        assert len(done) == 20, "nobody waits for the probe"
        assert (bench.asked.count("a"), bench.asked.count("b")) == (1, 20)
        gate.opened.set()
        await probe
        await bench.run()
        assert bench.asked.count("a") == 2, "it is well again"

    asyncio.run(main())


def test_requests_that_plan_together_do_not_probe_together() -> None:
    gate = Gate()
    bench = Bench(
        {"a": [Kind.UNREACHABLE, (gate, OK)], "b": [Kind.UNREACHABLE, *[OK] * 9]},
        breaker={"failures": 1},
    )
    opened(bench)
    bench.upstream.calls.clear()

    async def main() -> None:
        requests = [asyncio.create_task(bench.run()) for _ in range(10)]
        await gate.reached.wait()
        await asyncio.wait(requests, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        gate.opened.set()
        await asyncio.gather(*requests)
        assert (bench.asked.count("a"), bench.asked.count("b")) == (1, 9)

    asyncio.run(main())


def test_a_probe_whose_request_is_cancelled_leaves_its_place_to_the_next() -> None:
    gate = Gate()
    bench = Bench({"a": [Kind.UNREACHABLE, (gate, OK), OK]}, breaker={"failures": 1})
    opened(bench)

    async def main() -> None:
        await gate.cancel(bench.run())
        assert bench.tally.trail == ["a:cancelled"]
        assert isinstance(await bench.run(), Completion)

    asyncio.run(main())


def test_a_single_target_is_protected_too() -> None:
    bench = Bench({"a": repeat(Kind.UNREACHABLE, 5)}, laps=1)
    for _ in range(8):
        refused(bench)
    assert bench.asked == ["a"] * 5


# Streams


def stream(bench: Bench, read: Callable[[ChunkStream], Any]) -> Any:
    async def main() -> Any:
        reply = await bench.run(ask(stream=True))
        assert isinstance(reply, ChunkStream)
        try:
            return await read(reply)
        finally:
            await reply.aclose()
            # At once, and not when somebody collects them.
            assert all(source.closed == 1 for source in bench.upstream.sources)

    return asyncio.run(main())


async def to_the_end(reply: ChunkStream) -> list[Any]:
    return sent([chunk async for chunk in reply])


@pytest.mark.parametrize(
    "broken",
    [
        [],
        [role()],
        [Kind.UNREACHABLE],
        [role(), Kind.TRANSIENT],
        [b"{"],
        [b"[1]"],
        [{"error": {"message": "out of memory", "type": "server_error"}}],
        [role(), {"error": {"message": "overloaded", "type": "overloaded_error"}}],
    ],
)
def test_a_stream_that_fails_before_its_first_content_is_an_ordinary_failure(
    broken: list[Any],
) -> None:
    bench = one_lap({"a": [broken], "b": [[role(), delta("t0"), finish()]]})
    assert stream(bench, to_the_end) == [role(), delta("t0"), finish()]
    assert bench.asked == ["a", "b"]
    assert (bench.tally.target, bench.tally.fallbacks) == ("b", 1)
    assert bench.blamed("a")
    assert len(bench.upstream.sources) == 2


def test_a_target_is_well_only_when_its_stream_has_ended_well() -> None:
    bench = Bench({"a": [Kind.TRANSIENT, [delta("t0"), finish()]]})

    async def read(reply: ChunkStream) -> None:
        await anext(reply)
        assert bench.blamed("a")
        await to_the_end(reply)

    stream(bench, read)
    assert not bench.blamed("a")


def test_a_stream_that_breaks_after_content_is_blamed_and_not_asked_again() -> None:
    bench = Bench({"a": [[delta("t0"), Kind.TRANSIENT]], "b": []}, breaker={"failures": 1})

    async def read(reply: ChunkStream) -> None:
        assert sent([await anext(reply)]) == [delta("t0")]
        with pytest.raises(UpstreamFailure) as caught:
            await anext(reply)
        assert caught.value.kind is Kind.BROKEN

    stream(bench, read)
    assert bench.asked == ["a"]
    assert bench.away_s("a") == 10.0
    assert bench.tally.trail == ["a:200"]


@pytest.mark.parametrize("read_chunks", [0, 1, 2])
def test_a_reader_who_leaves_blames_nobody_and_closes_the_upstream(read_chunks: int) -> None:
    bench = Bench(
        {"a": [Kind.TRANSIENT, [delta("t0"), delta("t1"), delta("t2"), finish()]]},
        breaker={"failures": 2},
    )

    async def read(reply: ChunkStream) -> None:
        for _ in range(read_chunks):
            await anext(reply)

    stream(bench, read)
    assert bench.blamed("a"), "the failure before it stands, and no success has wiped it out"
    assert bench.away_s("a") == 0.0


def test_a_slow_first_token_opens_the_breaker_though_the_answer_was_delivered() -> None:
    bench = Bench(
        {"a": [[Passes(4.0), delta("t0"), finish()]], "b": [OK]},
        breaker={"failures": 1, "slow": 3},
    )
    assert stream(bench, to_the_end) == [delta("t0"), finish()]
    run(bench)
    assert bench.asked == ["a", "b"]


def test_a_long_whole_answer_is_not_slow() -> None:
    bench = Bench({"a": [(Passes(30.0), OK), OK]}, breaker={"failures": 1, "slow": 3})
    run(bench)
    run(bench)
    assert bench.asked == ["a", "a"]


def test_time_upstream_is_told_apart_from_time_spent_waiting() -> None:
    bench = Bench({"a": [(Passes(2.0), Kind.TRANSIENT), (Passes(3.0), OK)]})
    run(bench)
    assert bench.tally.upstream_s == 5.0
    assert bench.tally.waits_s == 0.125


def test_a_fallback_is_counted_when_another_is_asked_also_for_one_that_rests() -> None:
    bench = Bench({"a": [limited(30.0)], "b": [limited(30.0), OK], "c": [OK, OK]})
    run(bench)
    assert bench.tally.fallbacks == 2
    bench.clock.pass_(30.0)
    with (
        pytest.raises(UpstreamFailure),
        bench.health.watch(bench.ring.groups[0].targets[0], bench.policy),
    ):
        raise limited(30.0).failure()
    run(bench)
    assert bench.tally.fallbacks == 1
    failing = one_lap({"a": [limited(2.5), Kind.UNREACHABLE], "b": [limited(30.0)]})
    refused(failing)
    assert failing.tally.fallbacks == 1
    failing.clock.pass_(2.5)
    refused(failing)
    assert failing.tally.fallbacks == 0


def test_the_backoff_is_what_retry_says() -> None:
    bench = Bench({"a": [Kind.TRANSIENT, OK]}, chance=lambda: 0.7, backoff_base=2, backoff_cap=1)
    run(bench)
    assert bench.clock.slept == [backoff_s(bench.policy, 1, 0.7)] == [0.7]


@pytest.mark.parametrize("where", ["groups", "oversized"])
def test_fallbacks_are_asked_in_turns_too(where: str) -> None:
    turns = group("n", "x", "y", strategy=Strategy.ROUND_ROBIN)
    own = group("m", "a", strategy=Strategy.ROUND_ROBIN)
    ring = Ring("m", (own, turns)) if where == "groups" else Ring("m", (own,), oversized=(turns,))
    bench = one_lap({"a": [Kind.OVERSIZED] * 4, "x": [OK] * 2, "y": [OK] * 2}, ring=ring)
    for _ in range(4):
        run(bench)
    assert bench.asked == ["a", "x", "a", "y"] * 2


def test_neither_an_explanation_nor_a_session_takes_a_turn() -> None:
    turns = group("m", "x", "y", strategy=Strategy.ROUND_ROBIN)
    bench = Bench({"x": [OK] * 9, "y": [OK] * 9}, ring=Ring("m", (turns,)))
    for number in range(4):
        run(bench)
        run(bench, ask(wishes={"session": str(number)}))
        bench.attempts.plan(bench.ring, bench.policy)
    assert bench.asked[::2] == ["x", "y", "x", "y"]


def test_a_plan_can_be_explained_without_asking_anybody() -> None:
    bench = Bench({"a": [limited(9.0)], "b": [OK]})
    run(bench)
    plan = bench.attempts.plan(bench.ring, bench.policy)
    assert [(step.target.label, step.reason) for step in plan.steps] == [
        ("b", "healthy"),
        ("a", "resting 9.0 s: rate limited (429)"),
    ]
    assert bench.asked == ["a", "b"]
