"""What the caller is told when a limit leaves no room."""

from __future__ import annotations

import pytest

from proxy import refusals
from proxy.allowance import Allowance
from proxy.errors import BudgetSpent, LimitReached, TooManyTokens
from proxy.limits import Limit, Refusal, Scope, ScopeKind, Unit, Window
from proxy.retry import Kind

WEB = Scope(ScopeKind.KEY, "web")
RPM = Limit(WEB, Unit.REQUESTS, Window.MINUTE, 60, "rpm")
TPD = Limit(WEB, Unit.TOKENS, Window.DAY, 1000, "tpd")
DAY = Limit(WEB, Unit.NANO_USD, Window.DAY, 5_000_000_000, "budget_usd.day")


def test_the_sentence_says_which_limit_how_much_is_left_and_when_there_is_more() -> None:
    error = refusals.limit_reached(Refusal(TPD, used=900, wanted=150, retry_after_s=7260.0))
    assert error.message == (
        "limit of key `web` is reached: tpd 1000, 900 used or set aside, 100 left, 150 asked for; "
        "there is room again in 2h1m0s"
    )
    assert error.retry_after_s == 7260.0


def test_money_is_told_in_dollars_to_the_last_digit() -> None:
    refusal = Refusal(DAY, used=4_999_999_997, wanted=1_234_500_000, retry_after_s=60.0)
    assert "budget_usd.day $5, $4.999999997 used or set aside, $0.000000003 left, $1.2345" in (
        refusals.limit_reached(refusal).message
    )
    million = Limit(WEB, Unit.NANO_USD, Window.TOTAL, 10**15, "budget_usd.total")
    assert "budget_usd.total $1000000, $0 used" in (
        refusals.limit_reached(Refusal(million, 0, 10**15 + 1, None)).message
    )


def test_what_never_fits_is_told_apart_from_what_does_not_come_back() -> None:
    never = refusals.limit_reached(Refusal(TPD, used=0, wanted=1001, retry_after_s=None))
    assert never.message.endswith("no single request may take so much")
    gone = refusals.limit_reached(
        Refusal(DAY, used=4_000_000_000, wanted=2 * 10**9, retry_after_s=None)
    )
    assert gone.message.endswith("it does not come back by itself")


@pytest.mark.parametrize(
    ("limit", "kind", "type_", "code"),
    [
        (RPM, LimitReached, "requests", "rate_limit_exceeded"),
        (TPD, LimitReached, "tokens", "rate_limit_exceeded"),
        (DAY, BudgetSpent, "insufficient_quota", "insufficient_quota"),
    ],
)
def test_the_error_is_openais(
    limit: Limit, kind: type[LimitReached], type_: str, code: str
) -> None:
    error = refusals.limit_reached(Refusal(limit, limit.most, 1, 1.0))
    assert (type(error), error.status, error.type, error.code) == (kind, 429, type_, code)


@pytest.mark.parametrize(
    ("retry_after_s", "should_retry"), [(1.0, None), (60.0, None), (60.1, False), (None, False)]
)
def test_an_sdk_tries_again_only_where_that_helps(
    retry_after_s: float | None, should_retry: bool | None
) -> None:
    error = refusals.limit_reached(Refusal(RPM, 60, 1, retry_after_s))
    assert error.should_retry is should_retry


def test_a_deployment_that_is_full_is_a_failure_of_its_own_kind() -> None:
    limit = Limit(Scope(ScopeKind.TARGET, "x"), Unit.REQUESTS, Window.MINUTE, 1, "rpm")
    failure = refusals.target_full(Refusal(limit, 1, 1, 3.0))
    assert (failure.kind, failure.retry_after_s) == (Kind.FULL, 3.0)


def test_who_may_not_be_sent_to_a_target_without_a_price_hears_what_to_do() -> None:
    error = refusals.price_unknown(refusals.unpriced("m/openai/x"))
    assert (error.status, error.code, error.should_retry) == (403, "price_unknown", False)
    for word in ("m/openai/x", "input_cost_per_token", "unknown_price: free"):
        assert word in error.message


def test_too_many_tokens_for_one_request_are_refused_with_both_numbers() -> None:
    allowance = Allowance((), most_tokens=(WEB, 50))
    refusals.check_tokens(allowance, 50)
    refusals.check_tokens(Allowance(()), 10**9)
    with pytest.raises(TooManyTokens, match=r"at most 50 .* key `web`.* asks for 51") as refused:
        refusals.check_tokens(allowance, 51)
    assert (refused.value.status, refused.value.param) == (400, "max_tokens")
