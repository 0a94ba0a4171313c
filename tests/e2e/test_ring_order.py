"""Who is asked, in which order, and who is left alone: fallbacks, laps, breakers, unknown names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.e2e.provider_configs import (
    HELLO,
    MASTER_KEY,
    OPENAI,
    OPENAI_FIRST,
    SAID,
    TOGETHER,
    Answered,
    Lab,
    Shape,
    Trial,
    lab,
    ways,
)
from tests.harness import Mobius, mobius_command, total
from tests.providers import Answer, Fails, Gate, Resets
from tests.providers.steps import Step

pytestmark = pytest.mark.e2e

LONG = Shape(("openai", "anthropic"), general=("backup", "openai", "anthropic"))
CLOSED = Shape(("closed",))
FAILURES = 5  # in a row, and a breaker opens
INVENTED = 300  # names; the law says 10,000 of them change nothing


@pytest.fixture(scope="module")
def rings() -> Iterator[Lab]:
    shapes = {LONG: 18} | dict.fromkeys([OPENAI, OPENAI_FIRST, TOGETHER, CLOSED], 8)
    with lab(shapes) as running:
        yield running


@pytest.fixture(scope="module")
def restless() -> Iterator[Lab]:
    """Breakers that open early and rest shortly; cooldowns within what a request waits for."""
    settings = {
        "breaker": {"failures": 3, "rest": 0.3},
        "cooldown_time": 1.1,
        "laps": 3,
        "num_retries": 0,
    }
    with lab({OPENAI: 8}, **settings) as running:
        yield running


# The order.


@ways
def test_targets_are_asked_in_the_order_of_the_file(rings: Lab, stream: bool) -> None:
    ring = rings.take(LONG)
    for place in ring.places:
        place.always(Fails(401))
    assert ring.refused(stream=stream).code == "provider_auth_error"
    assert ring.asked == [0, 1, 2, 3, 4]


@ways
@pytest.mark.parametrize("answers", range(5))
def test_the_first_that_answers_is_the_last_that_is_asked(
    rings: Lab, answers: int, stream: bool
) -> None:
    ring = rings.take(LONG)
    for place in ring.places[:answers]:
        place.always(Fails(403))
    answer = ring.ask(stream=stream)
    assert ring.asked == list(range(answers + 1))
    assert (answer.text, answer.target) == (SAID, answers)
    assert answer.trail == [*(f"{at}:403" for at in range(answers)), f"{answers}:200"]


@ways
def test_the_next_request_begins_with_whoever_is_healthy(rings: Lab, stream: bool) -> None:
    ring = rings.take(LONG)
    ring.places[0].always(Fails(401))
    ring.ask(stream=stream)
    ring.places[1].always(Fails(401))
    ring.ask(stream=stream)
    ring.ask(stream=stream)
    assert ring.asked == [0, 1, 1, 2, 2]


def test_a_caller_may_forbid_fallbacks(rings: Lab) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Fails(401))
    refusal = ring.refused(extra_body={"disable_fallbacks": True})
    assert refusal.code == "provider_auth_error"
    assert ring.asked == [0]


def test_a_caller_may_name_other_fallbacks(rings: Lab) -> None:
    ring, other = rings.take(OPENAI_FIRST), rings.take(OPENAI)
    ring.places[0].always(Fails(401))
    response = ring.client.chat.completions.with_raw_response.create(
        model=ring.name, messages=[{"role": "user", "content": "hi"}],
        extra_body={"fallbacks": [other.name]},
    )  # fmt: skip
    assert response.headers["x-mobius-target"] == other.places[0].label
    assert (ring.asked, other.asked) == ([0], [0])
    assert "fallbacks" not in other.places[0].requests[0].json


@ways
def test_each_target_gets_the_request_as_it_was_sent(rings: Lab, stream: bool) -> None:
    ring = rings.take(LONG)
    ring.places[0].always(Fails(401))
    ring.places[1].always(Fails(401))
    ring.places[2].always(Fails(401))
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Grüße 👋"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ring.ask(stream=stream, messages=messages, tools=[tool], max_tokens=77)
    assert ring.asked == [0, 1, 2, 3]
    for number in (0, 2, 3):
        place = ring.places[number]
        sent = place.requests[0].json
        assert (sent["messages"], sent["tools"], sent["max_tokens"]) == (messages, [tool], 77)
        assert sent["model"] == place.model
    claude = ring.places[1].requests[0].json
    assert claude["max_tokens"] == 77
    assert [tool["name"] for tool in claude["tools"]] == ["f"]
    assert claude["messages"][0]["content"][0]["text"] == "Grüße 👋"
    assert claude["system"][0]["text"] == "Be brief."


# Laps.


@ways
def test_a_ring_is_gone_round_again_while_it_may_pass(rings: Lab, stream: bool) -> None:
    ring = rings.take(TOGETHER)
    ring.places[0].script(Fails(503), Fails(503))
    ring.places[1].script(Fails(529), Fails(529))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0, 1, 1, 0]
    assert (answer.text, answer.target) == (SAID, 0)


@ways
def test_a_ring_is_gone_round_twice_and_no_more(rings: Lab, stream: bool) -> None:
    ring = rings.take(TOGETHER)
    for place in ring.places:
        place.always(Fails(500))
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0, 0, 1, 1, 0, 0, 1, 1]
    assert (refusal.status, refusal.code) == (503, "no_target_available")
    assert not refusal.sdk_may_retry
    assert refusal.retry_after_s is not None


# Everybody is down.


@ways
def test_once_its_breakers_are_open_a_ring_asks_nobody(rings: Lab, stream: bool) -> None:
    ring = rings.take(TOGETHER)
    for place in ring.places:
        place.always(Fails(500))
    while len(set(map(len, (ring.asked, _again(ring, stream=stream).asked)))) > 1:
        pass
    asked = ring.asked
    assert [asked.count(0), asked.count(1)] == [FAILURES, FAILURES]
    for _ in range(3):
        refusal = ring.refused(stream=stream)
        assert (refusal.raised, refusal.status) == (openai.InternalServerError, 503)
        assert (refusal.code, refusal.trail) == ("no_target_available", [])
        assert not refusal.sdk_may_retry
        assert refusal.retry_after_s is not None
        assert 0 < refusal.retry_after_s <= 10
    assert ring.asked == asked


def _again(ring: Trial, *, stream: bool) -> Trial:
    ring.refused(stream=stream)
    return ring


@ways
def test_connections_that_are_refused_open_a_breaker_too(rings: Lab, stream: bool) -> None:
    ring = rings.take(CLOSED)
    trails = [ring.refused(stream=stream).trail for _ in range(FAILURES + 2)]
    assert trails == [["0:unreachable"]] * FAILURES + [[]] * 2


@ways
def test_an_open_breaker_is_passed_over(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Resets())
    for _ in range(FAILURES + 3):
        assert ring.ask(stream=stream).text == SAID
    assert ring.asked == [0, 1] * FAILURES + [1] * 3


def test_a_success_in_between_keeps_the_breaker_closed(rings: Lab) -> None:
    ring = rings.take(OPENAI)
    for _ in range(4):
        ring.places[0].script(Resets(), Resets(), *[Answer()] * 5)
        assert ring.refused().status == 503
        assert ring.refused().status == 503
        for _ in range(5):
            assert ring.ask().text == SAID
    assert ring.asked == [0] * 28


def test_half_of_many_calls_failing_opens_a_breaker(rings: Lab) -> None:
    ring = rings.take(OPENAI)
    ring.places[0].script(*_alternating(5))
    for _ in range(5):
        assert ring.ask().text == SAID
        assert ring.refused().trail == ["0:unreachable"]
    assert ring.refused().trail == []
    assert ring.asked == [0] * 10


def _alternating(times: int) -> list[Step]:
    return [Answer(), Resets()] * times


def test_the_same_place_under_two_names_has_one_breaker(rings: Lab) -> None:
    rings.openai.always(Resets(), model="shared")
    for number in range(FAILURES * 2):
        name = "any-shared" if number % 2 else "other-shared"
        with pytest.raises(openai.InternalServerError):
            rings.client.chat.completions.create(model=name, messages=HELLO)
    assert len(rings.openai.journal.requests("shared")) == FAILURES


# A breaker that has rested.


def _break(ring: Trial) -> None:
    """The breaker of a single target is open."""
    ring.places[0].script(*[Resets()] * 3)
    for _ in range(3):
        ring.refused()
    assert ring.asked == [0, 0, 0]


def _try(ring: Trial, *, stream: bool) -> Answered | openai.APIStatusError:
    try:
        return ring.ask(stream=stream)
    except openai.APIStatusError as error:
        return error


@ways
def test_after_its_rest_exactly_one_probe_goes_to_a_target(restless: Lab, stream: bool) -> None:
    ring = restless.take(OPENAI)
    _break(ring)
    gate = Gate()
    ring.places[0].script(Answer(gate=gate, text="well again"))
    with ThreadPoolExecutor(8) as pool:
        # Each waits for the end of the rest, which is shorter than a request is willing to wait.
        asking = [pool.submit(_try, ring, stream=stream) for _ in range(8)]
        try:
            restless.mobius.wait_until(lambda: sum(f.done() for f in asking) == 7, what="7 refused")
            restless.mobius.wait_until(lambda: len(ring.asked) > 3, what="a probe")
            assert ring.asked == [0] * 4
        finally:
            gate.open()
        told = [each.result() for each in asking]
    assert [each.text for each in told if isinstance(each, Answered)] == ["well again"]
    for error in told:
        if isinstance(error, openai.APIStatusError):
            assert (error.status_code, error.code) == (503, "no_target_available")
            assert error.response.headers["x-should-retry"] == "false"
    for _ in range(3):
        assert ring.ask(stream=stream).text == SAID  # closed
    assert ring.asked == [0] * 7


def test_a_probe_that_fails_opens_the_breaker_again(restless: Lab) -> None:
    ring = restless.take(OPENAI)
    _break(ring)
    ring.places[0].script(Fails(503), Fails(503))
    # Its laps: the rest, a probe, a longer rest, a probe.
    assert ring.refused().trail == ["0:503"] * 2
    assert ring.asked == [0] * 5
    assert ring.ask().text == SAID
    assert ring.asked == [0] * 6


def test_a_probe_whose_client_leaves_frees_its_place(restless: Lab) -> None:
    ring = restless.take(OPENAI)
    _break(ring)
    ring.places[0].script(Answer(gate=Gate()))
    impatient = ring.client.with_options(timeout=1.0)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model=ring.name, messages=HELLO)
    assert ring.asked == [0] * 4
    restless.mobius.wait_until(lambda: ring.places[0].requests[-1].closed_by == "client")
    assert ring.ask().text == SAID


def test_cooldowns_in_a_row_double_and_a_success_ends_the_row(restless: Lab) -> None:
    ring = restless.take(OPENAI)
    ring.places[0].script(*[Fails(429)] * 2)
    # It waits 1.1 s for the first; the second is longer than it is willing to wait.
    refusal = ring.refused()
    assert ring.asked == [0, 0]
    assert refusal.retry_after_s is not None
    assert 2.0 < refusal.retry_after_s <= 2.2


# What a person is told of it.


def _explained(lab: Lab, ring: Trial) -> list[str]:
    """What `mobius explain` prints about each target, by its number: its place and its state."""
    done = mobius_command("explain", ring.name, "--url", lab.mobius.url, "--key", MASTER_KEY)
    assert (done.returncode, done.stderr) == (0, "")
    name, *lines = done.stdout.splitlines()
    assert name == ring.name
    numbers = {place.label: number for number, place in enumerate(ring.places)}
    words = [line.split(maxsplit=2) for line in lines]
    return [f"{place} {numbers[label]} {said}" for place, label, said in words]


def test_a_person_is_told_why_a_target_rests_and_for_how_long(rings: Lab) -> None:
    ring = rings.take(LONG)
    assert _explained(rings, ring) == [f"{at + 1}. {at} healthy" for at in range(5)]
    ring.places[0].always(Fails(401))
    ring.places[1].script(Fails(429, headers={"retry-after": "1800"}))
    ring.places[2].always(Resets())
    ring.places[3].always(Fails(500))
    for _ in range(FAILURES):
        ring.ask()
    *well, broken, failing, refused, limited = _explained(rings, ring)
    assert well == ["1. 4 healthy"]
    opened = r"resting \d+(\.\d)? s: 5 failures in a row, last "
    assert re.fullmatch(rf"2\. [23] {opened}.*", broken)
    assert {line.split(maxsplit=2)[1] for line in (broken, failing)} == {"2", "3"}
    told = {line.rpartition(", last ")[2] for line in (broken, failing)}
    assert told == {"unreachable", "an error of its own (500)"}
    assert re.fullmatch(r"4\. 0 resting \d+ s: refused our key \(401\)", refused)
    assert re.fullmatch(r"5\. 1 resting \d+ s: rate limited \(429\)", limited)


def test_a_person_is_told_of_the_one_probe(restless: Lab) -> None:
    ring = restless.take(OPENAI)
    _break(ring)
    half_open = ["1. 0 half open: one probe"]
    restless.mobius.wait_until(lambda: _explained(restless, ring) == half_open, what="its rest")
    gate = Gate()
    ring.places[0].script(Answer(gate=gate))
    with ThreadPoolExecutor(1) as pool:
        probing = pool.submit(ring.ask)
        try:
            restless.mobius.wait_until(lambda: len(ring.asked) == 4, what="the probe")
            (line,) = _explained(restless, ring)
            assert re.fullmatch(
                r"1\. 0 resting \d+ s: its one probe is under way, last unreachable", line
            )
        finally:
            gate.open()
        assert probing.result().text == SAID
    assert _explained(restless, ring) == ["1. 0 healthy"]


# Names that nobody configured.


def test_invented_models_are_not_found_and_leave_no_series(rings: Lab) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        rings.client.chat.completions.create(model="invented", messages=HELLO)
    assert caught.value.code == "model_not_found"
    before = _series(rings.mobius)
    for number in range(INVENTED):
        assert _status(rings, f"invented-{number}", MASTER_KEY) == 404
    assert _series(rings.mobius) == before
    assert total(rings.mobius.metrics(), "mobius_request_seconds_count", model="unknown") >= 1


def test_invented_keys_are_refused_and_leave_no_series(rings: Lab) -> None:
    ring = rings.take(OPENAI)

    stranger = rings.client.with_options(api_key="sk-stranger")
    with pytest.raises(openai.AuthenticationError) as caught:
        stranger.chat.completions.create(model=ring.name, messages=HELLO)
    assert caught.value.code == "invalid_api_key"
    before = _series(rings.mobius)
    for number in range(INVENTED):
        assert _status(rings, ring.name, f"{MASTER_KEY}-{number}") == 401
    assert _series(rings.mobius) == before
    assert ring.asked == []


def _status(rings: Lab, model: str, key: str) -> int:
    """What a request is answered with; hundreds of them need no SDK."""
    body, headers = {"model": model, "messages": HELLO}, {"authorization": f"Bearer {key}"}
    return rings.mobius.http.post("/v1/chat/completions", json=body, headers=headers).status_code


@ways
def test_invented_names_under_a_wildcard_leave_no_series(rings: Lab, stream: bool) -> None:
    def ask(name: str) -> None:
        response = rings.client.chat.completions.create(
            model=f"any-{name}", messages=HELLO, stream=stream
        )
        if isinstance(response, openai.Stream):
            list(response)

    ask("before")
    before = _series(rings.mobius)
    for number in range(30):
        ask(f"{stream}-{number}")
    assert _series(rings.mobius) == before
    assert rings.openai.journal.requests(f"{stream}-29")


def _series(mobius: Mobius) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return set(mobius.metrics())
