"""A provider that says 429: whether the request waits or goes on, and how long the target cools.

A span is read from what the gateway says of it (`Retry-After`), never measured with a clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import openai
import pytest

from tests.e2e.provider_configs import (
    ALONE,
    FIRST,
    OPENAI,
    OPENAI_FIRST,
    SAID,
    TOGETHER,
    Lab,
    Shape,
    both_ways,
    lab,
    suspects,
    ways,
    within,
)
from tests.harness import total
from tests.providers import Answer, Fails, anthropic_errors, openai_errors
from tests.providers.steps import Step

pytestmark = pytest.mark.e2e

COOLDOWN_S = 5.0  # `cooldown_time`, where the provider says nothing of use
CAP_S = 3600.0  # a Retry-After is believed up to this
TWO_KEYS = Shape(("openai", "openai"), one_model=True)


@pytest.fixture(scope="module")
def rings() -> Iterator[Lab]:
    shapes = dict.fromkeys(FIRST.values(), 36) | dict.fromkeys(ALONE.values(), 28)
    with lab(shapes | {TOGETHER: 12, TWO_KEYS: 4}) as running:
        yield running


def limited(**headers: str) -> Fails:
    """429 with these headers, `_` for `-`."""
    return Fails(429, headers={name.replace("_", "-"): text for name, text in headers.items()})


# A short one is waited for.


@ways
@suspects
@pytest.mark.parametrize(
    "headers", [{"retry_after_ms": "20"}, {"retry_after": "0.02"}, {"retry_after": "0"}], ids=str
)
def test_a_short_retry_after_is_waited_for_by_the_request_that_got_it(
    rings: Lab, suspect: str, stream: bool, headers: Mapping[str, str]
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(limited(**headers))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0]
    assert (answer.text, answer.target) == (SAID, 0)
    assert answer.trail == ["0:429", "0:200"]


@ways
def test_a_short_retry_after_is_waited_for_once(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(limited(retry_after_ms="10"))
    assert ring.ask(stream=stream).trail == ["0:429", "0:429", "1:200"]
    assert ring.asked == [0, 0, 1]


def test_others_go_round_a_target_that_somebody_waits_for(rings: Lab) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].script(limited(retry_after_ms="1500"), Answer(text="worth the wait"))
    label = ring.places[0].label

    def rests() -> bool:
        # Counted before it is settled, and known to the plan only after that.
        return total(rings.mobius.metrics(), "mobius_target_healthy", target=label) == 0

    with ThreadPoolExecutor() as pool:
        assert not rests()
        patient = pool.submit(ring.ask)
        rings.mobius.wait_until(rests, what="the target to rest")
        for stream in (False, True):
            assert ring.ask(stream=stream).trail == ["1:200"]
        assert ring.asked == [0, 1, 1]
        assert patient.result().text == "worth the wait"
    assert ring.asked == [0, 1, 1, 0]


# Any other sends the request on at once, and the target cools for everybody.

USELESS: list[Mapping[str, str]] = [
    {},
    {"retry_after": ""},
    {"retry_after": "soon"},
    {"retry_after": "-5"},
    {"retry_after": "nan"},
    {"retry_after": "inf"},
    {"retry_after": "Thu, 01 Jan 1970 00:00:10 GMT"},
    {"retry_after": "Wed, 99 Foo 2026 99:99:99 GMT"},
    {"retry_after_ms": "-1"},
    {"retry_after_ms": "x", "retry_after": "y"},
]
USEFUL: list[tuple[Mapping[str, str], float]] = [
    ({"retry_after": "30"}, 30.0),
    ({"retry_after": " 30 "}, 30.0),
    ({"retry_after": "30.5"}, 30.5),
    ({"retry_after_ms": "45000"}, 45.0),
    ({"retry_after_ms": "45000", "retry_after": "90"}, 45.0),
    ({"retry_after_ms": "junk", "retry_after": "90"}, 90.0),
    ({"retry_after": "99999999999"}, CAP_S),
    ({"retry_after_ms": "1e300"}, CAP_S),
    ({"retry_after": "Fri, 31 Dec 9999 23:59:59 GMT"}, CAP_S),
]


@both_ways(
    "headers", [*USELESS, *(headers for headers, _ in USEFUL)], streamed=[{}, {"retry_after": "30"}]
)
def test_any_other_retry_after_sends_the_request_on_at_once(
    rings: Lab, stream: bool, headers: Mapping[str, str]
) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(limited(**headers))
    assert ring.ask(stream=stream).trail == ["0:429", "1:200"]
    assert ring.ask(stream=stream).trail == ["1:200"]
    assert ring.asked == [0, 1, 1]


@suspects
@pytest.mark.parametrize("headers", USELESS, ids=str)
def test_a_target_without_a_usable_retry_after_cools_for_the_usual_time(
    rings: Lab, suspect: str, headers: Mapping[str, str]
) -> None:
    ring = rings.take(ALONE[suspect])
    ring.places[0].always(limited(**headers))
    for _ in range(2):
        refusal = ring.refused()
        assert refusal.raised is openai.RateLimitError
        assert within(refusal.retry_after_s, COOLDOWN_S / 2, COOLDOWN_S)
    assert ring.asked == [0]


@suspects
@pytest.mark.parametrize(("headers", "cools_s"), USEFUL, ids=str)
def test_a_target_cools_as_long_as_it_says(
    rings: Lab, suspect: str, headers: Mapping[str, str], cools_s: float
) -> None:
    ring = rings.take(ALONE[suspect])
    ring.places[0].always(limited(**headers))
    for stream in (False, True):
        refusal = ring.refused(stream=stream)
        assert refusal.raised is openai.RateLimitError
        assert within(refusal.retry_after_s, cools_s - 10, cools_s)
    assert ring.asked == [0]


@ways
def test_a_date_is_as_good_as_seconds(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI)
    ring.places[0].always(limited(retry_after=formatdate(time.time() + 100, usegmt=True)))
    assert within(ring.refused(stream=stream).retry_after_s, 80, 100)
    assert ring.asked == [0]


def test_rate_limits_never_open_the_breaker(rings: Lab) -> None:
    ring = rings.take(OPENAI)
    ring.places[0].script(*[limited(retry_after="0")] * 20)
    while ring.places[0].fake and ring.places[0].fake.steps_left:
        assert ring.refused().status == 429
    assert ring.ask().text == SAID


@ways
def test_an_empty_account_is_no_rate_limit(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI)
    ring.places[0].always(openai_errors.insufficient_quota())
    refusal = ring.refused(stream=stream)
    assert (refusal.status, refusal.code) == (503, "no_target_available")
    assert refusal.retry_after_s is not None
    assert refusal.retry_after_s > COOLDOWN_S
    assert not refusal.sdk_may_retry
    assert ring.asked == [0]


# Nobody left.


@ways
def test_when_everybody_is_limited_the_last_one_is_told_and_the_earliest_return(
    rings: Lab, stream: bool
) -> None:
    ring = rings.take(TOGETHER)
    ring.places[0].always(openai_errors.rate_limited("20"))
    ring.places[1].always(anthropic_errors.rate_limited("40"))
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0, 1]
    assert refusal.raised is openai.RateLimitError
    assert (refusal.type, refusal.code) == ("rate_limit_error", "rate_limit_exceeded")
    assert "your organization's rate limit" in refusal.message
    assert within(refusal.retry_after_s, 10, 20)
    assert refusal.sdk_may_retry  # it can wait so long itself


@ways
def test_when_everybody_cools_nobody_is_asked_and_the_answer_is_the_same(
    rings: Lab, stream: bool
) -> None:
    ring = rings.take(TWO_KEYS)
    told = openai_errors.error("Slow down, sk-proj-0123456789.", "requests", "rate_limit_exceeded")
    ring.places[0].always(Fails(429, told, headers={"retry-after": "60"}))
    ring.places[1].always(Fails(429, told, headers={"retry-after": "30"}))
    for _ in range(3):
        refusal = ring.refused(stream=stream)
        assert (refusal.status, refusal.code, refusal.type) == (
            429, "rate_limit_exceeded", "requests",
        )  # fmt: skip
        assert refusal.message == "Slow down, [redacted]"
        assert within(refusal.retry_after_s, 20, 30)
    assert ring.asked == [0, 1]


@pytest.mark.parametrize("other", [Fails(503), Fails(401)], ids=["503", "401"])
def test_a_rate_limit_beside_another_fault_is_nobody_available(rings: Lab, other: Step) -> None:
    ring = rings.take(TOGETHER)
    ring.places[0].always(limited(retry_after="30"))
    ring.places[1].always(other)
    refusal = ring.refused()
    assert (refusal.status, refusal.code) == (503, "no_target_available")
    assert not refusal.sdk_may_retry


def test_many_at_once_meet_a_limited_target_as_often_as_they_were_already_under_way(
    rings: Lab,
) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(limited(retry_after="30"))
    together = threading.Barrier(8)

    def ask(number: int) -> int | None:
        together.wait(10)
        return ring.ask(stream=number % 2 == 0).target

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [1] * 8
    met = ring.asked.count(0)
    assert 1 <= met <= 8
    ring.ask()
    assert ring.asked.count(0) == met
