"""What a request's failures amount to."""

from __future__ import annotations

import pytest

from proxy import verdict
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
from proxy.retry import Kind
from proxy.routing import Plan, Step
from proxy.standing import Standing
from tests.fakes import Fails, limited, target

PLAN = Plan((Step(target("a"), "healthy"), Step(target("b"), "healthy")))


def told(
    *failures: Kind | Fails, away_s: tuple[float, ...] = (0.0,), out_of_time: bool = False
) -> ProxyError:
    each = [f.failure() if isinstance(f, Fails) else Fails(f).failure() for f in failures]
    return verdict.nobody_left("m", PLAN, each, away_s=away_s, out_of_time=out_of_time)


def test_only_rate_limits_are_a_429_with_the_last_providers_words_and_the_earliest_return() -> None:
    error = told(limited(9.0, "first"), limited(5.0, "second"), away_s=(9.0, 5.0))
    assert isinstance(error, RateLimited)
    assert (error.status, error.message, error.retry_after_s) == (429, "second", 5.0)
    assert (error.type, error.code) == ("rate_limit_error", "rate_limit_exceeded")


def test_a_429_carries_the_last_providers_own_code_and_type() -> None:
    last = Fails(Kind.RATE_LIMITED, 429, 5.0, "busy", "tokens_per_min", "tokens")
    error = told(limited(), last)
    assert (error.type, error.code) == ("tokens", "tokens_per_min")


def test_a_rate_limit_beside_another_fault_is_a_503_that_the_sdk_does_not_multiply() -> None:
    error = told(limited(9.0), Kind.TRANSIENT, away_s=(9.0, 3.5))
    assert isinstance(error, NoTargetAvailable)
    assert (error.status, error.code) == (503, "no_target_available")
    assert (error.retry_after_s, error.should_retry) == (3.5, False)


def test_a_return_within_the_second_is_still_a_second_away() -> None:
    assert told(limited(), away_s=(0.2, 7.0)).retry_after_s == 1.0


@pytest.mark.parametrize(
    "kind", [Kind.TRANSIENT, Kind.OVERLOADED, Kind.UNREACHABLE, Kind.RESTING, Kind.EXHAUSTED]
)
def test_targets_that_are_down_are_a_503(kind: Kind) -> None:
    error = told(kind, kind)
    assert (error.status, error.code, error.should_retry) == (503, "no_target_available", False)


def test_time_that_ran_out_is_a_504() -> None:
    error = told(Kind.TRANSIENT, out_of_time=True)
    assert isinstance(error, DeadlineExceeded)
    assert (error.status, error.should_retry) == (504, False)
    assert isinstance(told(out_of_time=True), DeadlineExceeded)


def test_targets_that_are_all_silent_are_a_504() -> None:
    assert isinstance(told(Kind.SILENT, Kind.SILENT), DeadlineExceeded)
    assert isinstance(told(Kind.SILENT, Kind.UNREACHABLE), NoTargetAvailable)


def test_refused_keys_alone_are_a_502_and_never_a_401() -> None:
    error = told(Fails(Kind.CREDENTIAL, 401), Fails(Kind.CREDENTIAL, 403), away_s=(300.0, 300.0))
    assert isinstance(error, ProviderAuthFailed)
    assert (error.status, error.code) == (502, "provider_auth_error")
    assert error.should_retry is False
    assert isinstance(told(Kind.CREDENTIAL, Kind.TRANSIENT), NoTargetAvailable)


def test_a_model_that_no_provider_knows_is_a_404() -> None:
    error = told(Fails(Kind.MISSING, 404), Fails(Kind.MISSING, 410))
    assert isinstance(error, ModelUnknown)
    assert (error.status, error.code) == (404, "model_not_found")


@pytest.mark.parametrize("status", [301, 405, 410, 501])
def test_a_provider_that_is_not_where_the_file_says_is_a_503(status: int) -> None:
    assert isinstance(told(Fails(Kind.MISSING, status)), NoTargetAvailable)


@pytest.mark.parametrize("kind", [Kind.OVERSIZED, Kind.CONTENT, Kind.FORGOTTEN])
def test_what_the_caller_can_mend_outweighs_what_happened_to_the_other_targets(kind: Kind) -> None:
    own = Fails(kind, 400, message="too much", code="the_code")
    for others in ((), (Kind.TRANSIENT,), (limited(),), (Kind.CREDENTIAL,)):
        error = told(own, *others)
        assert isinstance(error, Refused)
        assert (error.status, error.message, error.code) == (400, "too much", "the_code")


def test_nothing_but_dialects_is_the_first_providers_error() -> None:
    first = Fails(Kind.DIALECT, 422, message="first")
    error = told(first, Fails(Kind.DIALECT, 400, message="second"))
    assert (error.status, error.message) == (422, "first")


def test_what_a_second_provider_thinks_of_the_dialect_is_no_news() -> None:
    dialect = Fails(Kind.DIALECT, 400, message="unknown parameter")
    assert isinstance(told(Kind.TRANSIENT, dialect), NoTargetAvailable)
    assert isinstance(told(limited(), dialect), RateLimited)


def test_a_plan_without_targets_names_the_variables_that_are_not_set() -> None:
    left_out = (
        Step(target("a"), "unconfigured: OPENAI_API_KEY is not set"),
        Step(target("b"), "unconfigured: B_KEY is not set"),
    )
    error = verdict.nobody_left("m", Plan((), left_out), (), away_s=(), out_of_time=False)
    assert (error.status, error.code, error.should_retry) == (503, "no_target_available", False)
    assert "OPENAI_API_KEY" in error.message
    assert "B_KEY" in error.message


def test_special_fallbacks_that_nobody_can_be_asked_of_leave_the_providers_refusal() -> None:
    own = Fails(Kind.CONTENT, 400, message="not that").failure()
    error = verdict.nobody_left("m", Plan(()), [own], away_s=(), out_of_time=False)
    assert (error.status, error.message) == (400, "not that")


@pytest.mark.parametrize(("status", "told"), [(400, 400), (413, 413), (422, 422), (None, 400)])
def test_a_refusal_keeps_the_providers_status_where_that_is_the_callers(
    status: int | None, told: int
) -> None:
    failure = Fails(Kind.CALLER, status, message="no", code="c", type="t").failure()
    error = verdict.refused(failure)
    assert (error.status, error.message, error.code, error.type) == (told, "no", "c", "t")


def test_an_oversized_500_is_told_as_a_400() -> None:
    assert verdict.refused(Fails(Kind.OVERSIZED, 500).failure()).status == 400


def test_a_bad_request_is_a_dialect_only_after_the_provider_changed() -> None:
    kinds = {
        (kind, changed): verdict.in_dialect(Fails(kind).failure(), changed=changed).kind
        for kind in (Kind.CALLER, Kind.CONTENT)
        for changed in (True, False)
    }
    assert kinds == {
        (Kind.CALLER, True): Kind.DIALECT,
        (Kind.CALLER, False): Kind.CALLER,
        (Kind.CONTENT, True): Kind.CONTENT,
        (Kind.CONTENT, False): Kind.CONTENT,
    }


def test_a_cooling_target_answers_with_what_made_it_cool_and_an_open_one_with_its_rest() -> None:
    failure = UpstreamFailure("x", kind=Kind.RATE_LIMITED)
    cooling = Standing(cooling_s=3.0, failure=failure)
    assert verdict.resting(cooling).kind is Kind.RATE_LIMITED
    opened = Standing(admits=False, open_for_s=3.0, closed=False, failure=failure)
    assert verdict.resting(opened).kind is Kind.RESTING


def test_the_same_model_is_the_same_provider_and_name_whatever_the_key() -> None:
    a, twin = target("a"), target("a#2", model="a")
    elsewhere, other = target("c", model="a", provider="azure"), target("b")
    assert verdict.same_model(a, [a, twin, elsewhere, other]) == {a.identity, twin.identity}


def test_too_small_are_those_known_to_be_no_larger_and_the_same_model() -> None:
    a = target("a", facts=ModelFacts(max_input_tokens=1000))
    equal = target("b", facts=ModelFacts(max_input_tokens=1000))
    larger = target("c", facts=ModelFacts(max_input_tokens=1001))
    unknown, twin = target("d"), target("e", model="a")
    everybody = [a, equal, larger, unknown, twin]
    assert verdict.too_small(a, everybody) == {t.identity for t in (a, equal, twin)}
    assert verdict.too_small(unknown, everybody) == {unknown.identity}


def test_a_lap_is_worth_it_where_a_fault_may_pass() -> None:
    def worth(*kinds: Kind) -> bool:
        return verdict.worth_a_lap(Fails(kind).failure() for kind in kinds)

    assert worth(Kind.MISSING, Kind.RATE_LIMITED)
    assert worth(Kind.OVERLOADED)
    assert not worth(Kind.MISSING, Kind.CREDENTIAL, Kind.SILENT, Kind.DIALECT)
