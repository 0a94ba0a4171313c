"""When a request gives up on a target, and when altogether: time, tries, and keys that are not set.

No span is measured: the journals say who was asked, and how often.
"""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.e2e.provider_configs import HELLO, OPENAI_FIRST, SAID, Lab, Shape, lab, ways
from tests.e2e.stream_checks import target
from tests.harness import Mobius
from tests.providers import Answer, Fails, FakeOpenAI, Silent

pytestmark = pytest.mark.e2e

DEADLINE_S = 1.0
LATER_S = 1.5  # than the deadline, but within what a request waits for
SLOW_S = 0.5
RETRIES = 3  # that the budget allows in ten seconds
SILENT_FIRST = Shape(
    ("openai",),
    general=("backup",),
    first=(("timeout", LATER_S), ("stream_timeout", LATER_S)),
)


@pytest.fixture(scope="module")
def hurried() -> Iterator[Lab]:
    """A deadline of a moment, and breakers that open with the first failure."""
    breaker = {"failures": 1, "slow": SLOW_S}
    with lab({SILENT_FIRST: 4, OPENAI_FIRST: 8}, deadline=DEADLINE_S, breaker=breaker) as running:
        yield running


@pytest.fixture(scope="module")
def thrifty() -> Iterator[Lab]:
    """A few retries for all requests together, and breakers that never open."""
    settings = {
        "retry_budget": {"share": 0, "min": RETRIES},
        "breaker": {"failures": 1000, "min_calls": 1000},
    }
    with lab({OPENAI_FIRST: 4}, **settings) as running:
        yield running


@ways
def test_after_the_deadline_nobody_is_asked_any_more(hurried: Lab, stream: bool) -> None:
    ring = hurried.take(SILENT_FIRST)
    ring.places[0].always(Silent())
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0]
    assert (refusal.status, refusal.code) == (504, "deadline_exceeded")
    assert refusal.trail == ["0:silent"]
    assert not refusal.sdk_may_retry


@ways
def test_what_would_return_after_the_deadline_is_not_waited_for(hurried: Lab, stream: bool) -> None:
    ring = hurried.take(OPENAI_FIRST)
    ring.places[0].always(Fails(429, headers={"retry-after-ms": str(int(LATER_S * 1000))}))
    assert ring.ask(stream=stream).trail == ["0:429", "1:200"]
    assert ring.asked == [0, 1]


def test_a_first_token_that_is_slow_is_delivered_and_rests_its_target(hurried: Lab) -> None:
    ring = hurried.take(OPENAI_FIRST)
    ring.places[0].script(Answer(first_token_s=2 * SLOW_S))
    answer = ring.ask(stream=True)
    assert (answer.text, answer.target) == (SAID, 0)
    assert ring.ask(stream=True).target == 1
    assert ring.asked == [0, 1]


def test_all_requests_share_one_budget_of_retries_and_going_on_is_free(thrifty: Lab) -> None:
    ring = thrifty.take(OPENAI_FIRST)
    ring.places[0].always(Fails(500))
    for number in range(2 * RETRIES):
        assert ring.ask(stream=number % 2 > 0).target == 1
    assert ring.asked == [0, 0, 1] * RETRIES + [0, 1] * RETRIES


def test_a_target_without_its_variable_is_gone_by_and_alone_it_is_named() -> None:
    with FakeOpenAI() as fake:
        unset = {"base": fake.base_url, "api_key": "os.environ/NOT_SET_ANYWHERE"}
        config = {
            "model_list": [
                target("openai/one", name="chat", **unset),
                target("openai/two", fake.base_url, name="chat"),
                target("openai/one", name="alone", **unset),
            ],
            "router_settings": {"routing_strategy": "health-based"},
        }
        with Mobius(config) as mobius:
            client = mobius.openai()
            assert client.chat.completions.create(model="chat", messages=HELLO).model == "two"
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(model="alone", messages=HELLO)
            assert (caught.value.status_code, caught.value.code) == (503, "no_target_available")
            assert "NOT_SET_ANYWHERE is not set" in caught.value.message
        assert [entry.model for entry in fake.journal.requests()] == ["two"]
