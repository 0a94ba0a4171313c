from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.breaker import PROBE_LEASE_S, Breaker, Permit, State
from proxy.policy import BreakerPolicy


@dataclass
class Model:
    """
    What faults.md says of a breaker, written down as one would tell it, with no eye to speed.

    A period is the time between two changes of what is asked of the target: a result counts only
    in the period in which its call began, save that a good one of any probe of this half-open time
    closes it.
    """

    policy: BreakerPolicy
    state: State = State.CLOSED
    period: int = 0
    half_open_after: int = 0  # probes of a half-open time are of later periods
    results: list[tuple[float, bool]] = field(default_factory=list)  # of this closed period
    openings: int = 0  # in a row
    opens_again_s: float = 0.0
    probed_s: float | None = None

    def look(self, now_s: float) -> None:
        if self.state is State.OPEN and now_s >= self.opens_again_s:
            self.state, self.probed_s = State.HALF_OPEN, None

    def away_s(self, now_s: float) -> float:
        if self.state is State.OPEN:
            return self.opens_again_s - now_s
        if self.state is State.HALF_OPEN and self.probed_s is not None:
            return max(0.0, self.probed_s + 60 - now_s)
        return 0.0

    def ask(self, now_s: float) -> int | None:
        if self.away_s(now_s) > 0:
            return None
        if self.state is State.HALF_OPEN:
            self.probed_s = now_s
            self.period += 1
        return self.period

    def tell(self, period: int, ok: bool | None, now_s: float) -> None:
        late = period != self.period
        probe = self.state is State.HALF_OPEN and period > self.half_open_after
        if late and not (probe and ok):
            return
        if self.state is State.HALF_OPEN:
            self.probed_s = None
            if ok:
                self.openings, self.results = 0, []
                self.state, self.period = State.CLOSED, self.period + 1
            elif ok is False:
                self._open(now_s)
        elif ok is not None:
            self.results.append((now_s, ok))
            if not ok and (self._streak() or self._share(now_s)):
                self._open(now_s)

    def _streak(self) -> bool:
        last = [ok for _, ok in self.results[-self.policy.failures :]]
        return len(last) == self.policy.failures and not any(last)

    def _share(self, now_s: float) -> bool:
        recent = [ok for told_s, ok in self.results if now_s - told_s < 30]
        bad = recent.count(False)
        return len(recent) >= self.policy.min_calls and bad / len(recent) >= self.policy.share

    def _open(self, now_s: float) -> None:
        self.openings += 1
        rest_s = min(self.openings * self.policy.rest, self.policy.rest_cap)
        self.opens_again_s = now_s + rest_s
        self.state, self.period = State.OPEN, self.period + 1
        self.half_open_after = self.period


class BreakerAndModel(RuleBasedStateMachine):
    """Asks both the same; whole seconds, because the breaker's window moves by the second."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.out: list[tuple[Permit, int]] = []
        self.breaker = Breaker(BreakerPolicy())
        self.model = Model(BreakerPolicy())

    @initialize(
        failures=st.integers(1, 6),
        min_calls=st.integers(1, 12),
        share=st.sampled_from([0.25, 0.5, 0.75, 1.0]),
        cap=st.sampled_from([10.0, 25.0, 30.0]),
    )
    def begin(self, failures: int, min_calls: int, share: float, cap: float) -> None:
        policy = BreakerPolicy(failures=failures, min_calls=min_calls, share=share, rest_cap=cap)
        self.breaker, self.model = Breaker(policy), Model(policy)

    @rule(seconds=st.sampled_from([1, 1, 5, 10, 29, 30, 59, 60]))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds

    @rule()
    def wait_until_it_opens_again(self) -> None:
        self.now_s += self.model.away_s(self.now_s)

    @rule()
    def ask(self) -> None:
        permit, period = self.breaker.enter(self.now_s), self.model.ask(self.now_s)
        assert (permit is None) == (period is None)
        if permit is not None and period is not None:
            assert permit.probe == (self.model.state is State.HALF_OPEN)
            self.out.append((permit, period))

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0), ok=st.sampled_from([True, False, False, None]))
    def tell(self, which: int, ok: bool | None) -> None:
        permit, period = self.out.pop(which % len(self.out))
        self.breaker.leave(permit, ok=ok, now_s=self.now_s)
        self.model.tell(period, ok, self.now_s)

    @rule(results=st.lists(st.sampled_from([True, False, False]), min_size=1, max_size=15))
    def several_calls_in_a_row(self, results: list[bool]) -> None:
        for ok in results:
            before = len(self.out)
            self.ask()
            if len(self.out) > before:
                self.tell(before, ok)

    @invariant()
    def they_say_the_same(self) -> None:
        self.model.look(self.now_s)
        away_s = self.model.away_s(self.now_s)
        assert self.breaker.admits(self.now_s) == (away_s == 0)
        assert self.breaker.returns_in_s(self.now_s) == away_s
        assert self.breaker.state(self.now_s) is self.model.state


TestTheBreakerDoesWhatTheModelSays = BreakerAndModel.TestCase
TestTheBreakerDoesWhatTheModelSays.settings = settings(deadline=None, stateful_step_count=60)


def entered(breaker: Breaker, now_s: float) -> Permit:
    permit = breaker.enter(now_s)
    assert permit is not None
    return permit


def told(breaker: Breaker, results: list[bool], now_s: float = 0.0) -> State:
    """The state after calls with these results, one after the other."""
    for ok in results:
        breaker.leave(entered(breaker, now_s), ok=ok, now_s=now_s)
    return breaker.state(now_s)


def opened(policy: BreakerPolicy | None = None) -> Breaker:
    breaker = Breaker(policy or BreakerPolicy())
    assert told(breaker, [False] * breaker.policy.failures) is State.OPEN
    return breaker


def test_five_failures_in_a_row_open_it_however_far_apart_they_are() -> None:
    breaker = Breaker(BreakerPolicy())
    for hour in range(4):
        assert told(breaker, [False], now_s=3600.0 * hour) is State.CLOSED
    assert told(breaker, [False], now_s=3600.0 * 4) is State.OPEN


def test_a_success_ends_the_row() -> None:
    assert told(Breaker(BreakerPolicy()), [False] * 4 + [True] + [False] * 4) is State.CLOSED


def test_half_of_ten_calls_within_thirty_seconds_open_it() -> None:
    assert told(Breaker(BreakerPolicy()), [True, False] * 4 + [True]) is State.CLOSED
    assert told(Breaker(BreakerPolicy()), [True, False] * 5) is State.OPEN


def test_what_is_older_than_thirty_seconds_is_no_part_of_the_share() -> None:
    breaker = Breaker(BreakerPolicy())
    told(breaker, [True, False] * 4, now_s=0.0)
    assert told(breaker, [True, False], now_s=30.0) is State.CLOSED
    breaker = Breaker(BreakerPolicy())
    told(breaker, [True, False] * 4, now_s=0.0)
    assert told(breaker, [True, False], now_s=29.0) is State.OPEN


def test_it_rests_longer_with_every_opening_in_a_row_up_to_the_cap() -> None:
    breaker, now_s, rests = opened(), 0.0, []
    for _ in range(5):
        rests.append(breaker.returns_in_s(now_s))
        now_s += rests[-1]
        told(breaker, [False], now_s)
    assert rests == [10, 20, 30, 30, 30]


def test_a_good_probe_closes_it_and_the_next_rest_is_a_short_one_again() -> None:
    breaker = opened()
    told(breaker, [False], now_s=10.0)
    assert told(breaker, [True], now_s=30.0) is State.CLOSED
    assert told(breaker, [False] * 5, now_s=30.0) is State.OPEN
    assert breaker.returns_in_s(30.0) == 10


def test_it_closes_with_a_clean_slate() -> None:
    breaker = opened()
    told(breaker, [True], now_s=10.0)
    assert told(breaker, [True] * 3 + [False] * 4, now_s=10.0) is State.CLOSED


def test_exactly_one_probe_goes_when_the_rest_is_over() -> None:
    breaker = opened()
    assert breaker.enter(9.9) is None
    assert breaker.admits(10.0)  # looking takes nothing
    assert entered(breaker, 10.0).probe
    assert not breaker.admits(10.0)
    assert breaker.enter(10.0) is None
    assert breaker.returns_in_s(11.0) == PROBE_LEASE_S - 1


def test_a_lost_probe_frees_its_place_and_its_failure_is_not_heard() -> None:
    breaker = opened()
    lost = entered(breaker, 10.0)
    assert breaker.enter(10.0 + PROBE_LEASE_S - 0.1) is None
    second = entered(breaker, 10.0 + PROBE_LEASE_S)
    for ok in (None, False):
        breaker.leave(lost, ok=ok, now_s=75.0)
        assert breaker.state(75.0) is State.HALF_OPEN
        assert breaker.enter(75.0) is None
    breaker.leave(second, ok=True, now_s=75.0)
    assert breaker.state(75.0) is State.CLOSED


def test_a_probe_slower_than_its_lease_closes_it_all_the_same() -> None:
    breaker = opened()
    slow = entered(breaker, 10.0)
    second = entered(breaker, 10.0 + PROBE_LEASE_S)
    breaker.leave(slow, ok=True, now_s=75.0)
    assert breaker.state(75.0) is State.CLOSED
    breaker.leave(second, ok=False, now_s=80.0)
    assert told(breaker, [False] * 4, now_s=80.0) is State.CLOSED, "of a former state"


def test_a_probe_of_a_former_half_open_time_closes_nothing() -> None:
    breaker = opened()
    former = entered(breaker, 10.0)
    breaker.leave(entered(breaker, 70.0), ok=False, now_s=70.0)
    assert breaker.state(90.0) is State.HALF_OPEN
    breaker.leave(former, ok=True, now_s=90.0)
    assert breaker.state(90.0) is State.HALF_OPEN


def test_it_says_why_it_lets_nobody_through() -> None:
    breaker = opened()
    assert breaker.why(0.0) == "5 failures in a row"
    assert breaker.why(10.0) == ""
    told(breaker, [False], now_s=10.0)
    assert breaker.why(10.0) == "its probe failed"
    entered(breaker, 30.0)
    assert breaker.why(30.0) == "its one probe is under way"
    breaker = Breaker(BreakerPolicy())
    told(breaker, [True, False] * 5)
    assert breaker.why(0.0) == "5 of 10 calls failed"
    assert opened(BreakerPolicy(failures=1)).why(0.0) == "1 failure in a row"


def test_a_probe_that_says_nothing_lets_another_go() -> None:
    breaker = opened()
    breaker.leave(entered(breaker, 10.0), ok=None, now_s=11.0)
    assert breaker.state(11.0) is State.HALF_OPEN
    assert entered(breaker, 11.0).probe


@pytest.mark.parametrize("ok", [True, False])
def test_a_result_from_before_it_opened_is_dropped(ok: bool) -> None:
    breaker = Breaker(BreakerPolicy(failures=1))
    early, late = entered(breaker, 0.0), entered(breaker, 0.0)
    told(breaker, [False])
    breaker.leave(early, ok=ok, now_s=5.0)
    assert breaker.returns_in_s(5.0) == 5
    probe = entered(breaker, 10.0)
    breaker.leave(late, ok=ok, now_s=10.0)
    assert breaker.state(10.0) is State.HALF_OPEN
    breaker.leave(probe, ok=True, now_s=10.0)
    assert breaker.state(10.0) is State.CLOSED


def test_what_says_nothing_of_the_target_counts_neither_way() -> None:
    breaker = Breaker(BreakerPolicy())
    for _ in range(4):
        told(breaker, [False])
        breaker.leave(entered(breaker, 0.0), ok=None, now_s=0.0)
    assert told(breaker, [False]) is State.OPEN
    breaker = Breaker(BreakerPolicy())
    for _ in range(20):
        breaker.leave(entered(breaker, 0.0), ok=None, now_s=0.0)
    assert told(breaker, [False] * 4) is State.CLOSED
