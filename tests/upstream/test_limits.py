"""A provider's rate limits, as OpenAI spells them, and as the plan reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.leeway import Leeway, ProviderUnit
from proxy.upstream.limits import ANTHROPIC, LONGEST_RESET_S, leeways, rate_limits

WALL_S = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def test_openais_own_names_stay_and_other_headers_do_not_pass() -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "6m0s",
        "set-cookie": "a=b",
        "openai-organization": "org-secret",
        "retry-after": "3",
    }
    assert rate_limits(headers, wall_s=WALL_S) == {
        name: value for name, value in headers.items() if name.startswith("x-ratelimit-")
    }


def test_anthropics_names_become_openais() -> None:
    headers = {name: str(number) for number, name in enumerate(ANTHROPIC)}
    assert rate_limits(headers, wall_s=WALL_S) == {
        "x-ratelimit-limit-requests": "0",
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "2",
        "x-ratelimit-limit-tokens": "3",
        "x-ratelimit-remaining-tokens": "4",
        "x-ratelimit-reset-tokens": "5",
    }


def test_where_both_are_sent_openais_stand() -> None:
    headers = {
        "anthropic-ratelimit-requests-limit": "1",
        "x-ratelimit-limit-requests": "2",
    }
    assert rate_limits(headers, wall_s=WALL_S) == {"x-ratelimit-limit-requests": "2"}


def test_an_answer_without_any_has_none() -> None:
    assert rate_limits({"content-type": "application/json"}, wall_s=WALL_S) == {}


@pytest.mark.parametrize(
    ("date", "duration"),
    [
        ("2027-01-15T08:00:12Z", "12s"),
        ("2027-01-15T08:00:01.500Z", "1.5s"),
        ("2027-01-15T08:06:00+00:00", "6m0s"),
        ("2027-01-15T10:00:30Z", "2h0m30s"),
        ("2027-01-15T07:59:00Z", "0s"),
        ("soon", "soon"),
    ],
)
def test_a_moment_of_anthropics_becomes_a_duration_of_openais(date: str, duration: str) -> None:
    headers = {"anthropic-ratelimit-tokens-reset": date}
    assert rate_limits(headers, wall_s=WALL_S) == {"x-ratelimit-reset-tokens": duration}


def read(**headers: str) -> tuple[Leeway, ...]:
    return leeways({k.replace("_", "-"): v for k, v in headers.items()}, wall_s=WALL_S)


def test_what_openai_and_azure_say_is_left_is_read() -> None:
    assert read(
        x_ratelimit_limit_requests="60",
        x_ratelimit_remaining_requests="59",
        x_ratelimit_reset_requests="1s",
        x_ratelimit_limit_tokens="150000",
        x_ratelimit_remaining_tokens="149984",
        x_ratelimit_reset_tokens="6m0s",
    ) == (
        Leeway(ProviderUnit.REQUESTS, 59, 60, 1.0),
        Leeway(ProviderUnit.TOKENS, 149_984, 150_000, 360.0),
    )


def test_what_anthropic_says_is_left_is_read_of_all_four_units() -> None:
    units = ("requests", "tokens", "input-tokens", "output-tokens")
    facts = {"limit": "50", "remaining": "7", "reset": "2027-01-15T08:00:12Z"}
    headers = {
        f"anthropic-ratelimit-{unit}-{fact}": text for unit in units for fact, text in facts.items()
    }
    assert leeways(headers, wall_s=WALL_S) == tuple(
        Leeway(unit, 7, 50, 12.0) for unit in ProviderUnit
    )


def test_of_two_spellings_openais_is_read() -> None:
    (found,) = read(anthropic_ratelimit_requests_remaining="1", x_ratelimit_remaining_requests="2")
    assert found.remaining == 2


def test_a_limit_and_a_reset_may_be_missing() -> None:
    assert read(x_ratelimit_remaining_requests="3") == (Leeway(ProviderUnit.REQUESTS, 3),)


def test_without_what_is_left_there_is_nothing_to_read() -> None:
    assert read(x_ratelimit_limit_requests="60", x_ratelimit_reset_requests="1s") == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17ms", 0.017),
        ("1s", 1.0),
        ("1.5s", 1.5),
        ("6m0s", 360.0),
        ("2h0m30s", 7230.0),
        ("1d", 86_400.0),
        ("2m59.56s", 179.56),
        ("1s500ms", 1.5),
        ("0s", 0.0),
        ("58", 58.0),  # Azure's
        ("2027-01-15T08:00:01.500Z", 1.5),
        ("2027-01-15T08:00:02", 2.0),
        ("2027-01-15T07:00:00Z", 0.0),
    ],
)
def test_a_reset_is_a_duration_or_seconds_or_a_moment(text: str, seconds: float) -> None:
    (found,) = read(x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests=text)
    assert found.reset_s == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "-5s", "1x", "nan", "inf", "٣s", "s", "1s1m"])
def test_a_reset_that_cannot_be_read_is_none(text: str) -> None:
    (found,) = read(x_ratelimit_remaining_requests="1", x_ratelimit_reset_requests=text)
    assert found.reset_s is None


@pytest.mark.parametrize(
    "junk",
    ["", "-1", "many", "1.5", "1e3", "nan", "inf", "0x10", "٣", "1, 2", "9" * 13, "9" * 10_000],
)
def test_a_count_that_is_none_is_ignored(junk: str) -> None:
    assert read(x_ratelimit_remaining_requests=junk) == ()
    (found,) = read(x_ratelimit_remaining_requests="1", x_ratelimit_limit_requests=junk)
    assert found.limit is None


@pytest.mark.parametrize(
    "reset", ["1700000000", "99999h", "400d", "9999-12-31T23:59:59Z", "9" * 12 + "ms", "1e300"]
)
def test_a_limit_that_is_back_in_more_than_a_day_is_not_believed(reset: str) -> None:
    for left in ("0", "5"):
        headers = {"x_ratelimit_remaining_tokens": left, "x_ratelimit_reset_tokens": reset}
        found = read(**headers)
        assert all(each.reset_s is None for each in found), found


def test_a_limit_of_nothing_is_no_limit() -> None:
    assert read(x_ratelimit_remaining_requests="0", x_ratelimit_limit_requests="0") == ()


def test_more_left_than_there_is_is_not_believed() -> None:
    assert read(x_ratelimit_remaining_requests="61", x_ratelimit_limit_requests="60") == ()


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_no_header_is_an_error(remaining: str, limit: str, reset: str) -> None:
    for found in read(
        x_ratelimit_remaining_tokens=remaining,
        x_ratelimit_limit_tokens=limit,
        x_ratelimit_reset_tokens=reset,
        anthropic_ratelimit_tokens_reset=reset,
    ):
        assert found.remaining >= 0
        assert found.limit is None or found.limit > 0
        assert found.reset_s is None or 0 <= found.reset_s <= LONGEST_RESET_S
