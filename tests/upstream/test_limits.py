"""A provider's rate limits, as OpenAI spells them."""

from __future__ import annotations

import pytest

from proxy.upstream.limits import ANTHROPIC, rate_limits

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
