from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.policy import RetryBudget, RingPolicy
from proxy.retry import RULES, Budget, Kind, Rest, backoff_s, cooldown_s

POLICY = RingPolicy()


def test_every_kind_has_a_rule() -> None:
    assert set(RULES) == set(Kind)


def test_only_what_may_pass_by_itself_is_asked_again() -> None:
    assert {kind for kind in Kind if RULES[kind].retry} == {Kind.TRANSIENT, Kind.OVERLOADED}


def test_the_ring_goes_on_unless_nobody_could_do_better_or_content_is_out() -> None:
    stops = {kind for kind in Kind if not RULES[kind].fall_back}
    assert stops == {Kind.CALLER, Kind.CONTENT, Kind.BROKEN}


def test_only_a_target_that_is_ill_is_blamed() -> None:
    assert {kind for kind in Kind if RULES[kind].blame} == {
        Kind.TRANSIENT,
        Kind.OVERLOADED,
        Kind.UNREACHABLE,
        Kind.SILENT,
        Kind.BROKEN,
    }


def test_a_target_rests_as_long_as_its_fault_lasts() -> None:
    assert {kind: rule.rest for kind, rule in RULES.items() if rule.rest is not Rest.NONE} == {
        Kind.RATE_LIMITED: Rest.COOL,
        Kind.MISSING: Rest.COOL,
        Kind.CREDENTIAL: Rest.LONG,
        Kind.EXHAUSTED: Rest.CREDENTIAL,
    }


JITTER = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 10_000), JITTER)
@settings(deadline=None)
def test_a_wait_is_anywhere_between_nothing_and_a_doubling_ceiling(
    retry: int, jitter: float
) -> None:
    ceiling_s = min(Fraction(1, 4) * 2 ** (retry - 1), 4)
    wait_s = backoff_s(POLICY, retry, jitter)
    assert 0 <= wait_s < ceiling_s
    assert wait_s == pytest.approx(float(ceiling_s * Fraction(jitter)))


def test_a_cooldown_doubles_from_the_first_up_to_its_cap() -> None:
    rests = [cooldown_s(POLICY, None, times) for times in (1, 2, 3, 4, 5, 6, 10_000)]
    assert rests == [5, 10, 20, 40, 60, 60, 60]


@given(st.floats(0, 1e9), st.integers(1, 100))
@settings(deadline=None)
def test_a_retry_after_is_taken_as_it_is_up_to_its_own_cap(asked_s: float, times: int) -> None:
    assert cooldown_s(POLICY, asked_s, times) == min(asked_s, 3600)


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.0, 0.0, 0.5, 3.0, 9.5, 10.0]),  # seconds since the step before
        st.booleans(),  # a retry, else a request
    ),
    max_size=120,
)


@given(STEPS, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 4))
@settings(deadline=None)
def test_retries_of_ten_seconds_are_a_share_of_their_requests_or_the_minimum(
    steps: list[tuple[float, bool]], share: float, least: int
) -> None:
    budget = Budget(RetryBudget(share=share, min=least))
    now_s = 0.0
    requests: list[float] = []
    retries: list[float] = []
    for wait_s, retry in steps:
        now_s += wait_s
        if not retry:
            budget.request(now_s)
            requests.append(now_s)
            continue
        recent = sum(moment > now_s - 10 for moment in requests)
        taken = sum(moment > now_s - 10 for moment in retries)
        fits = taken < least or taken + 1 <= share * recent
        assert budget.take(now_s) == fits
        retries += [now_s] if fits else []


def test_a_hundred_requests_that_all_fail_make_twenty_retries() -> None:
    budget = Budget(RetryBudget())
    for _ in range(100):
        budget.request(0.0)
    assert [budget.take(1.0) for _ in range(100)].count(True) == 20


def test_a_quiet_service_may_retry_three_times_in_ten_seconds() -> None:
    budget = Budget(RetryBudget())
    budget.request(0.0)
    assert [budget.take(now_s) for now_s in (0.0, 1.0, 2.0, 9.9, 10.0, 10.5, 11.0)] == [
        *(True, True, True),
        False,
        True,  # the one of second 0 has left the window
        False,
        True,
    ]


def test_what_is_refused_is_not_counted() -> None:
    budget = Budget(RetryBudget(min=1))
    assert budget.take(0.0)
    assert not any(budget.take(moment) for moment in (1.0, 5.0, 9.0))
    assert budget.take(10.0)


def test_a_new_policy_holds_for_what_was_counted_before() -> None:
    budget = Budget(RetryBudget(min=3))
    assert [budget.take(0.0) for _ in range(3)] == [True] * 3
    budget.policy = RetryBudget(min=2)
    assert not budget.take(1.0)
    budget.policy = RetryBudget(min=4)
    assert budget.take(1.0)
