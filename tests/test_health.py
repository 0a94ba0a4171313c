"""What is known of the targets, and how attempts change it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest

from proxy.breaker import PROBE_LEASE_S
from proxy.errors import UpstreamFailure
from proxy.health import RECORDS, Health, Watch
from proxy.pace import LEAST_TIMES
from proxy.policy import RingPolicy
from proxy.retry import RULES, UNASKED, Kind, Rest
from proxy.standing import Standing
from proxy.types import Target, TargetTimeouts
from tests.fakes import Fails, FakeClock, limited, target

A = target("a")
FATAL = {"breaker": {"failures": 1}}


class Ward:
    """The health of targets, and attempts that end as a test says."""

    def __init__(self, **policy: Any) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock)
        self.policy = RingPolicy.model_validate(policy)

    def of(self, which: Target = A) -> Standing:
        return self.health.standing(which, self.policy)

    def succeeds(self, which: Target = A, *, first_token_s: float = 0.0) -> None:
        with self.health.watch(which, self.policy) as watch:
            assert watch is not None
            self.clock.pass_(first_token_s)
            watch.answered(streamed=True)

    def fails(self, how: Kind | Fails, which: Target = A) -> None:
        failing = how if isinstance(how, Fails) else Fails(how)
        self.ends(failing.failure(), which=which)

    def ends(
        self,
        ending: BaseException,
        during: Callable[[Watch], object] = lambda watch: None,
        *,
        which: Target = A,
    ) -> None:
        """Make an attempt that ends so, after `during`."""
        with pytest.raises(type(ending)):
            self._end(ending, during, which)

    def _end(self, ending: BaseException, during: Callable[[Watch], object], which: Target) -> None:
        with self.health.watch(which, self.policy) as watch:
            assert watch is not None
            during(watch)
            raise ending

    def admitted(self, which: Target = A) -> bool:
        """Say whether an attempt may be made, by making one."""
        with self.health.watch(which, self.policy) as watch:
            return watch is not None


def test_a_target_nothing_is_known_of_is_healthy() -> None:
    standing = Ward().of()
    assert standing == Standing()
    assert standing.healthy


@pytest.mark.parametrize("kind", [kind for kind in Kind if RULES[kind].blame])
def test_a_blamed_failure_opens_the_breaker(kind: Kind) -> None:
    ward = Ward(breaker={"failures": 2})
    ward.fails(kind)
    assert ward.of().admits
    ward.fails(kind)
    assert not ward.of().admits
    assert ward.of().open_for_s == 10.0


@pytest.mark.parametrize("kind", [kind for kind in Kind if not RULES[kind].blame])
def test_what_is_not_the_targets_fault_never_opens_it(kind: Kind) -> None:
    ward = Ward(breaker={"failures": 1, "min_calls": 1})
    for _ in range(20):
        ward.fails(kind)
    assert ward.of().closed


@pytest.mark.parametrize("kind", sorted(UNASKED))
@pytest.mark.parametrize("retry_after_s", [None, 30.0])
def test_a_call_that_was_never_made_leaves_nothing_behind(
    kind: Kind, retry_after_s: float | None
) -> None:
    ward = Ward()
    ward.fails(Fails(kind, retry_after_s=retry_after_s))
    assert ward.of() == Standing()


def test_a_probe_that_was_never_made_lets_another_go() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    ward.fails(Fails(Kind.FULL, retry_after_s=30.0))
    assert not ward.of().closed
    assert ward.admitted()


def test_a_caller_in_a_hurry_leaves_nothing_behind() -> None:
    ward = Ward(breaker={"failures": 2})
    ward.fails(Kind.IMPATIENT)
    assert ward.of() == Standing()
    ward.fails(Kind.TRANSIENT)
    ward.fails(Kind.IMPATIENT)
    assert ward.of().closed
    ward.fails(Kind.TRANSIENT)
    assert not ward.of().admits, "the streak of failures went on"


def test_a_probe_of_a_caller_in_a_hurry_lets_another_go() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    ward.fails(Kind.IMPATIENT)
    assert not ward.of().closed
    assert ward.admitted()
    assert ward.of().closed


def test_leaving_by_cancellation_says_nothing() -> None:
    ward = Ward(breaker={"failures": 2})
    ward.fails(Kind.TRANSIENT)
    ward.ends(asyncio.CancelledError())
    ward.fails(Kind.TRANSIENT)
    assert not ward.of().admits, "the streak of failures went on"


def test_a_bug_of_ours_says_nothing_either_and_gives_the_probe_back() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    ward.ends(ZeroDivisionError())
    assert ward.admitted()


def test_a_retry_after_cools_exactly_that_long() -> None:
    ward = Ward()
    ward.fails(limited(17.25))
    assert ward.of().cooling_s == 17.25
    ward.clock.pass_(17.0)
    assert ward.of().cooling_s == 0.25
    ward.clock.pass_(0.25)
    assert ward.of().healthy


def test_an_absurd_retry_after_is_believed_up_to_the_cap() -> None:
    ward = Ward()
    ward.fails(limited(10.0**9))
    assert ward.of().cooling_s == 3600.0


def test_without_a_header_cooldowns_double_to_the_cap_and_begin_anew_after_a_success() -> None:
    ward = Ward()
    for expected_s in (5.0, 10.0, 20.0, 40.0, 60.0, 60.0):
        ward.fails(limited())
        assert ward.of().cooling_s == expected_s
        ward.clock.pass_(expected_s)
    ward.succeeds()
    ward.fails(limited())
    assert ward.of().cooling_s == 5.0


def test_a_rest_that_a_header_named_does_not_count_towards_the_doubling() -> None:
    ward = Ward()
    for retry_after_s in (3.0, 3.0, 3.0, None):
        ward.fails(limited(retry_after_s))
        ward.clock.pass_(3.0)
    assert ward.of().cooling_s == 2.0


def test_the_many_answers_of_one_limit_double_its_cooldown_once() -> None:
    ward = Ward()
    with ExitStack() as asked_before:
        for _ in range(10):
            asked_before.enter_context(pytest.raises(UpstreamFailure))
            asked_before.enter_context(ward.health.watch(A, ward.policy))
            asked_before.push(_raise_limited)
        ward.clock.pass_(1.0)
    assert ward.of().cooling_s == 5.0
    ward.clock.pass_(5.0)
    ward.fails(limited())
    assert ward.of().cooling_s == 10.0


def test_an_answer_to_a_call_from_before_the_cooldown_does_not_end_the_doubling() -> None:
    ward = Ward()
    with ward.health.watch(A, ward.policy):
        ward.clock.pass_(1.0)
        ward.fails(limited())
    ward.clock.pass_(5.0)
    ward.fails(limited())
    assert ward.of().cooling_s == 10.0


def _raise_limited(*_: object) -> bool:
    raise limited().failure()


def test_a_rest_is_not_cut_short_by_a_later_and_milder_failure() -> None:
    ward = Ward()
    ward.ends(limited(1.0).failure(), lambda _: ward.fails(Kind.CREDENTIAL))
    assert ward.of().cooling_s == 300.0
    cause = ward.of().failure
    assert cause is not None
    assert cause.kind is Kind.CREDENTIAL


def test_a_503_with_a_retry_after_is_left_alone_as_long_and_blamed_all_the_same() -> None:
    ward = Ward(breaker={"failures": 2})
    ward.fails(Fails(Kind.TRANSIENT, 503, retry_after_s=20.0))
    assert ward.of().cooling_s == 20.0
    ward.fails(Kind.TRANSIENT)
    assert not ward.of().admits


def test_a_refused_key_rests_its_target_long() -> None:
    ward, other = Ward(), target("b", credential=A.credential)
    ward.fails(Kind.CREDENTIAL)
    assert ward.of().cooling_s == 300.0
    assert ward.of(other).healthy


def test_an_empty_account_rests_every_target_on_the_same_key() -> None:
    ward, same, other = Ward(), target("b", credential=A.credential), target("c")
    ward.fails(Kind.EXHAUSTED)
    assert ward.of(A).cooling_s == ward.of(same).cooling_s == 300.0
    assert ward.of(other).healthy
    cause = ward.of(same).failure
    assert cause is not None
    assert cause.kind is Kind.EXHAUSTED


def test_a_missing_model_cools() -> None:
    ward = Ward()
    ward.fails(Kind.MISSING)
    assert ward.of().cooling_s == 5.0


@pytest.mark.parametrize("kind", [kind for kind in Kind if RULES[kind].rest is Rest.NONE])
def test_no_other_failure_rests_a_target_by_itself(kind: Kind) -> None:
    ward = Ward()
    ward.fails(kind)
    assert ward.of().cooling_s == 0.0


def test_exactly_one_probe_goes_when_the_rest_is_over() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    assert not ward.admitted()
    ward.clock.pass_(10)
    with ward.health.watch(A, ward.policy) as probe:
        assert probe is not None
        assert not ward.admitted()
        assert not ward.of().admits
    assert ward.admitted()
    assert ward.of().closed


def test_a_lost_probe_frees_its_place_when_its_lease_is_over() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    with ward.health.watch(A, ward.policy):
        assert ward.of().away_s == 60.0
        ward.clock.pass_(60)
        assert ward.admitted()


def test_a_probe_that_is_cancelled_frees_its_place_at_once() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    ward.ends(asyncio.CancelledError())
    assert ward.admitted()


def test_a_probe_closes_the_breaker_with_its_first_content_and_can_still_be_blamed_later() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)

    def answers(probe: Watch) -> None:
        probe.answered(streamed=True)
        assert ward.of().closed

    ward.ends(Fails(Kind.BROKEN).failure(), answers)
    assert not ward.of().admits


def test_a_first_token_later_than_slow_is_a_failure() -> None:
    ward = Ward(breaker={"failures": 2, "slow": 3})
    ward.succeeds(first_token_s=3.0)
    ward.succeeds(first_token_s=3.1)
    assert ward.of().admits
    ward.succeeds(first_token_s=3.1)
    assert not ward.of().admits


def test_a_quick_first_token_ends_a_streak_of_slow_ones() -> None:
    ward = Ward(breaker={"failures": 2, "slow": 3})
    for first_token_s in (4.0, 1.0, 4.0, 1.0):
        ward.succeeds(first_token_s=first_token_s)
    assert ward.of().admits


def test_a_late_first_token_counts_when_it_comes_even_if_the_reader_does_not_stay() -> None:
    ward = Ward(breaker={"failures": 1, "slow": 3})

    def answers_late(watch: Watch) -> None:
        ward.clock.pass_(4)
        watch.answered(streamed=True)
        assert not ward.of().admits

    ward.ends(asyncio.CancelledError(), answers_late)
    assert not ward.of().admits


def test_one_slow_call_that_breaks_as_well_is_one_failure() -> None:
    ward = Ward(breaker={"failures": 2, "slow": 3})

    def answers_late(watch: Watch) -> None:
        ward.clock.pass_(4)
        watch.answered(streamed=True)

    ward.ends(Fails(Kind.BROKEN).failure(), answers_late)
    assert ward.of().admits


@pytest.mark.parametrize("streamed", [False, True])
def test_a_probe_slower_than_its_lease_that_answers_closes_it(streamed: bool) -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    with ward.health.watch(A, ward.policy) as slow:
        assert slow is not None
        ward.clock.pass_(PROBE_LEASE_S)

        def meanwhile(_: Watch) -> None:
            assert ward.of().cause == "its one probe is under way"
            slow.answered(streamed=streamed)
            assert ward.of().closed

        ward.ends(Fails(Kind.TRANSIENT).failure(), meanwhile)
        assert ward.of().closed, "the second probe is of a former state"
    assert ward.of().closed


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_to_a_lost_probe_does_not_end_the_rest_that_came_after_it(
    streamed: bool,
) -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    with ward.health.watch(A, ward.policy) as lost:
        assert lost is not None
        ward.clock.pass_(PROBE_LEASE_S)
        ward.fails(Kind.TRANSIENT)
        ward.clock.pass_(1)
        lost.answered(streamed=streamed)
        assert not ward.of().admits
    assert ward.of().open_for_s == 19.0


def test_a_lost_probe_that_fails_after_the_breaker_closed_is_not_heard() -> None:
    ward = Ward(**FATAL)
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)

    def meanwhile(_: Watch) -> None:
        ward.clock.pass_(PROBE_LEASE_S)
        ward.succeeds()

    ward.ends(Fails(Kind.TRANSIENT).failure(), meanwhile)
    assert ward.of().closed


def test_a_slow_probe_leaves_the_breaker_open() -> None:
    ward = Ward(breaker={"failures": 1, "slow": 3})
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    ward.succeeds(first_token_s=4.0)
    assert not ward.of().admits
    assert ward.of().open_for_s == 20.0


def test_a_whole_answer_has_no_first_token_that_could_be_late() -> None:
    ward = Ward(breaker={"failures": 1, "slow": 3})
    with ward.health.watch(A, ward.policy) as watch:
        assert watch is not None
        ward.clock.pass_(30)
        watch.answered(streamed=False)
    assert ward.of().admits


def test_slow_is_off_by_default() -> None:
    ward = Ward(breaker={"failures": 1})
    ward.succeeds(first_token_s=500.0)
    assert ward.of().admits


def test_latency_is_a_decaying_average_of_the_times_to_first_content() -> None:
    ward = Ward()
    ward.succeeds(first_token_s=1.0)
    assert ward.of().latency_s == 1.0
    ward.succeeds(first_token_s=2.0)
    assert ward.of().latency_s == pytest.approx(1.2)


def test_two_names_of_the_same_place_share_what_is_known() -> None:
    ward, alias = Ward(), target("z", identity=A.identity)
    ward.fails(limited(9.0))
    assert ward.of(alias).cooling_s == 9.0


def test_a_reload_keeps_what_is_known_and_applies_the_new_numbers() -> None:
    ward = Ward(breaker={"failures": 5})
    for _ in range(3):
        ward.fails(Kind.TRANSIENT)
    ward.policy = RingPolicy.model_validate({"breaker": {"failures": 4, "rest": 7}})
    ward.fails(Kind.TRANSIENT)
    assert ward.of().open_for_s == 7.0, "the fourth in a row, under the new numbers"
    ward.policy = RingPolicy()
    assert ward.of().open_for_s == 7.0, "a rest that has begun is not changed"


def test_a_reload_keeps_cooldowns_and_empty_accounts() -> None:
    ward = Ward()
    ward.fails(limited(30.0))
    ward.fails(Kind.EXHAUSTED, target("b"))
    ward.policy = RingPolicy.model_validate({"cooldown_time": 1})
    assert ward.of().cooling_s == 30.0
    assert ward.of(target("b")).cooling_s == 300.0


def test_what_is_known_of_targets_is_bounded_and_the_longest_forgotten_goes_first() -> None:
    ward = Ward()
    ward.fails(limited(3000.0))
    for number in range(RECORDS + 500):
        ward.of(target(f"wild-{number}"))
        if number % 1000 == 0:
            assert ward.of().cooling_s == 3000.0, "it is in use: a stranger's names do not push it"
    assert len(ward.health._records) == RECORDS


def test_a_failure_is_remembered_without_the_request_that_met_it() -> None:
    class Prompt:
        pass

    ward = Ward()

    def attempt() -> weakref.ref[Prompt]:
        prompt = Prompt()
        with pytest.raises(UpstreamFailure), ward.health.watch(A, ward.policy):
            _blame(prompt)
        return weakref.ref(prompt)

    met = attempt()
    gc.collect()
    assert met() is None
    known = ward.of().failure
    assert known is not None
    assert (known.kind, known.provider_status, known.provider_message, known.provider_code) == (
        Kind.RATE_LIMITED,
        429,
        "slow down",
        "rate_limit_exceeded",
    )


def _blame(prompt: object) -> None:
    try:
        raise ValueError(prompt)
    except ValueError as exc:
        raise limited().failure() from exc


def test_the_late_answer_to_a_lost_probe_takes_no_other_probe_s_place() -> None:
    ward = Ward(breaker={"failures": 1})
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    with ward.health.watch(A, ward.policy) as lost:
        assert lost is not None
        ward.clock.pass_(60)  # its lease is over
        ward.fails(Kind.TRANSIENT)  # the second probe fails: open for twenty seconds
        ward.clock.pass_(20)
        lost.answered(streamed=False)
        assert ward.of().admits
    assert not ward.of().closed


def test_who_has_told_and_who_is_telling_is_not_quiet() -> None:
    ward = Ward()
    assert ward.health.quiet_s(A, ward.policy) == float("inf")
    ward.succeeds()
    ward.clock.pass_(3)
    assert ward.health.quiet_s(A, ward.policy) == 3
    ward.fails(Kind.CALLER)
    assert ward.health.quiet_s(A, ward.policy) == 0
    ward.clock.pass_(3)
    ward.fails(Kind.FULL)  # it was never asked
    assert ward.health.quiet_s(A, ward.policy) == 3
    ward.ends(asyncio.CancelledError())
    assert ward.health.quiet_s(A, ward.policy) == 3
    with ward.health.watch(A, ward.policy):
        assert ward.health.quiet_s(A, ward.policy) == 0
    assert ward.health.quiet_s(target("b"), ward.policy) == float("inf")


def test_a_stream_has_told_with_its_first_content() -> None:
    ward = Ward()
    ward.ends(asyncio.CancelledError(), lambda watch: watch.answered(streamed=True))
    ward.clock.pass_(2)
    assert ward.health.quiet_s(A, ward.policy) == 2


# What a first token is expected to take


def asked(ward: Ward, opened: ExitStack, *, streamed: bool = True) -> Watch:
    """Return the watch over a call that goes on until `opened` closes."""
    watch = opened.enter_context(ward.health.watch(A, ward.policy, streamed=streamed))
    assert watch is not None
    return watch


def test_nobody_has_an_idea_of_a_target_that_has_never_answered() -> None:
    ward = Ward()
    ward.fails(Kind.TRANSIENT)
    assert ward.of().expected_s is None


def test_it_is_a_decaying_average_of_streams_where_there_are_any() -> None:
    ward = Ward()
    with ExitStack() as opened:
        whole = asked(ward, opened, streamed=False)
        ward.clock.pass_(9.0)
        whole.answered(streamed=False)
    assert ward.of().expected_s == 9.0
    for first_token_s in (1.0, 2.0):
        ward.succeeds(first_token_s=first_token_s)
    assert ward.of().expected_s == pytest.approx(1.2)
    assert ward.of().latency_s == pytest.approx(9.0 - 0.2 * 8.0 - 0.2 * 5.4)


def test_what_nobody_asks_is_believed_less_by_one_request_at_a_time() -> None:
    ward = Ward()
    ward.succeeds(first_token_s=8.0)
    ward.clock.pass_(60.0)
    assert ward.of().expected_s == pytest.approx(2.0)
    with ExitStack() as opened:
        watch = asked(ward, opened)
        assert ward.of().expected_s == 8.0, "the others do not follow before it has its answer"
        ward.clock.pass_(1.0)
        watch.answered(streamed=True)
        assert ward.of().expected_s == pytest.approx(6.6)
        ward.clock.pass_(30.0)
        assert ward.of().expected_s == pytest.approx(3.3), "a long stream is no reason not to try"


def test_a_first_token_that_is_overdue_is_expected_no_sooner_than_it_is_late() -> None:
    ward = Ward()
    ward.succeeds(first_token_s=1.0)
    with ExitStack() as opened:
        asked(ward, opened)
        ward.clock.pass_(3.5)
        assert ward.of().expected_s == 1.0
        ward.clock.pass_(3.0)
        assert ward.of().expected_s == 6.5
        later = asked(ward, opened)
        ward.clock.pass_(1.0)
        later.answered(streamed=True)
        assert ward.of().expected_s == 1.0, "it answers: one that got stuck is no news of it"
    assert ward.of().in_flight == 0


def test_a_whole_answer_is_never_overdue() -> None:
    ward = Ward()
    ward.succeeds(first_token_s=1.0)
    with ExitStack() as opened:
        asked(ward, opened, streamed=False)
        ward.clock.pass_(30.0)
        assert ward.of().expected_s == 1.0


@pytest.mark.parametrize("streamed", [True, False])
def test_one_that_was_given_up_took_at_least_so_long(streamed: bool) -> None:
    ward = Ward()
    with ExitStack() as opened:
        watch = asked(ward, opened, streamed=streamed)
        ward.clock.pass_(1.0)
        watch.answered(streamed=streamed)
    silent = ward.health.watch(A, ward.policy, streamed=streamed)
    with suppress(UpstreamFailure), silent:
        ward.clock.pass_(31.0)
        raise UpstreamFailure("silent", kind=Kind.SILENT)
    assert ward.of().expected_s == pytest.approx(7.0)
    assert ward.of().latency_s == 1.0, "it is the latency of answers"


def test_a_call_that_is_cancelled_is_awaited_no_longer() -> None:
    ward = Ward()
    ward.succeeds(first_token_s=1.0)
    with suppress(asyncio.CancelledError), ward.health.watch(A, ward.policy, streamed=True):
        ward.clock.pass_(50.0)
        raise asyncio.CancelledError
    assert ward.of().expected_s == pytest.approx(2 ** (-50 / 30))


def hung(
    ward: Ward, opened: ExitStack, calls: int, after_s: float, *, streamed: bool = True
) -> float:
    """Return for how long a target hangs after so many calls, which have waited so long."""
    for _ in range(calls):
        asked(ward, opened, streamed=streamed)
    ward.clock.pass_(after_s)
    return ward.of().hung_s


@pytest.mark.parametrize(
    ("calls", "after_s", "hangs"), [(2, 9.0, False), (3, 2.0, False), (3, 9.0, True)]
)
def test_a_target_hangs_when_as_many_streams_wait_too_long_as_would_open_its_breaker(
    calls: int, after_s: float, hangs: bool
) -> None:
    ward = Ward(breaker={"failures": 3})
    ward.succeeds(first_token_s=1.0)
    with ExitStack() as opened:
        assert hung(ward, opened, calls, after_s) == (after_s if hangs else 0.0)
        assert ward.of().healthy, "nobody is blamed for what may still come"
    assert ward.of().hung_s == 0


def test_whole_answers_may_take_longer_before_their_target_hangs() -> None:
    ward = Ward(breaker={"failures": 3})
    with ExitStack() as opened:
        whole = asked(ward, opened, streamed=False)
        ward.clock.pass_(1.0)
        whole.answered(streamed=False)
        assert hung(ward, opened, 2, 4.0, streamed=False) == 0
        assert hung(ward, opened, 1, 5.0, streamed=False) == 0
        assert hung(ward, opened, 1, 7.0, streamed=False) == 0, "two are overdue"
        assert hung(ward, opened, 1, 4.0, streamed=False) == 16.0


def test_one_that_hangs_is_tried_now_and_then() -> None:
    ward = Ward(breaker={"failures": 3})
    ward.succeeds(first_token_s=1.0)
    with ExitStack() as opened:
        assert hung(ward, opened, 3, 9.0)
        ward.clock.pass_(1.0)
        assert ward.of().hung_s == 0
        tried = asked(ward, opened)
        assert ward.of().hung_s == 10.0, "by one alone"
        tried.answered(streamed=True)
        assert ward.of().hung_s == 0


def test_a_target_that_answers_anybody_later_does_not_hang() -> None:
    ward = Ward(breaker={"failures": 3})
    ward.succeeds(first_token_s=1.0)
    with ExitStack() as opened:
        assert hung(ward, opened, 5, 9.0)
        ward.succeeds(first_token_s=1.0)
        assert ward.of().hung_s == 0


def test_nobody_knows_whether_a_target_hangs_that_has_never_answered() -> None:
    ward = Ward(breaker={"failures": 3})
    with ExitStack() as opened:
        assert hung(ward, opened, 5, 9.0) == 0


def auto(label: str = "a") -> Target:
    return target(label, timeouts=TargetTimeouts(auto=True))


def test_a_first_token_is_waited_for_as_the_last_ones_say() -> None:
    ward, patient = Ward(), auto()
    assert ward.health.timed(patient, ward.policy).timeouts.first_token_s == 30.0
    for _ in range(LEAST_TIMES):
        ward.succeeds(patient, first_token_s=2.0)
    timed = ward.health.timed(patient, ward.policy)
    assert timed.timeouts.first_token_s == 6.0
    assert timed == replace(patient, timeouts=replace(patient.timeouts, first_token_s=6.0))
    assert ward.health.timed(patient, ward.policy) is timed, "as long as it is the same"


def test_one_that_was_given_up_gets_more_time_the_next_time() -> None:
    ward, patient = Ward(), auto()
    ward.health.timed(patient, ward.policy)
    for _ in range(LEAST_TIMES):
        ward.succeeds(patient, first_token_s=2.0)
    with suppress(UpstreamFailure), ward.health.watch(patient, ward.policy, streamed=True):
        ward.clock.pass_(6.0)
        raise Fails(Kind.SILENT).failure()
    assert ward.health.timed(patient, ward.policy).timeouts.first_token_s == 18.0


def test_what_the_file_says_in_seconds_is_what_is_waited() -> None:
    ward = Ward()
    ward.health.timed(A, ward.policy)
    assert ward.health.timed(A, ward.policy) is A
    assert ward.health.record(A, ward.policy).pace.lately is None


def test_an_edit_of_the_file_is_followed_with_what_is_known() -> None:
    ward, patient = Ward(), auto()
    ward.health.timed(patient, ward.policy)
    for _ in range(LEAST_TIMES):
        ward.succeeds(patient, first_token_s=2.0)
    ward.health.timed(patient, ward.policy)
    edited = replace(patient, weight=3.0)
    timed = ward.health.timed(edited, ward.policy)
    assert (timed.weight, timed.timeouts.first_token_s) == (3.0, 6.0)
    fixed = replace(patient, timeouts=TargetTimeouts(first_token_s=9.0))
    assert ward.health.timed(fixed, ward.policy).timeouts.first_token_s == 9.0


def test_one_that_was_overtaken_is_known_to_be_slow_and_not_blamed() -> None:
    ward = Ward()
    ward.succeeds(first_token_s=1.0)
    ward.health.overtaken(A, ward.policy, 6.0, streamed=True)
    assert ward.of().expected_s == pytest.approx(2.0)
    assert ward.of().latency_s == 1.0
    assert ward.of().healthy
