"""The words that quota and its stores share."""

from __future__ import annotations

import pytest

from proxy.limits import (
    NOTHING,
    Limit,
    Refusal,
    Scope,
    ScopeKind,
    Spent,
    Standing,
    Unit,
    Window,
    duration,
    worst,
)

WEB = Scope(ScopeKind.KEY, "web")
LIMIT = Limit(WEB, Unit.TOKENS, Window.MINUTE, 100, "tpm")


def refusal(retry_after_s: float | None, kind: ScopeKind = ScopeKind.KEY) -> Refusal:
    scope = Scope(kind, "x")
    return Refusal(Limit(scope, Unit.TOKENS, Window.DAY, 5, "tpd"), 5, 1, retry_after_s)


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.0001, "1ms"),
        (0.017, "17ms"),
        (0.9994, "999ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m0s"),
        (60, "1m0s"),
        (360, "6m0s"),
        (3600, "1h0m0s"),
        (86_399.5, "23h59m59.5s"),
        (2_678_400, "744h0m0s"),
    ],
)
def test_a_time_is_written_as_openai_does(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_nothing_is_left_of_what_is_used_up_or_overdrawn() -> None:
    assert [Standing(LIMIT, used, 0.0).remaining for used in (0, 99, 100, 130)] == [100, 1, 0, 0]
    assert Refusal(LIMIT, 130, 1, None).remaining == 0


def test_a_refusal_is_a_standing_too() -> None:
    assert Refusal(LIMIT, 90, 20, 5.0, 30.0).standing() == Standing(LIMIT, 90, 30.0)


def test_another_number_is_the_same_counter() -> None:
    other = Limit(WEB, Unit.TOKENS, Window.MINUTE, 7, "tpm")
    assert LIMIT.counter == other.counter
    assert LIMIT.counter != Limit(WEB, Unit.TOKENS, Window.DAY, 100, "tpd").counter


def test_the_longest_wait_is_told_and_before_it_what_no_waiting_helps() -> None:
    short, long, never = refusal(1.0), refusal(50.0), refusal(None)
    assert worst([]) is None
    assert worst([short, long]) is long
    assert worst([long, never, short]) is never


def test_the_callers_own_limit_is_told_rather_than_a_deployments() -> None:
    own, target = refusal(1.0), refusal(None, ScopeKind.TARGET)
    assert worst([target, own]) is own
    assert worst([target]) is target


def test_what_is_spent_is_tokens_and_money() -> None:
    spent = Spent(tokens=5, nano_usd=7)
    assert [spent.of(unit) for unit in Unit] == [0, 5, 7, 0]
    assert [NOTHING.of(unit) for unit in Unit] == [0, 0, 0, 0]
