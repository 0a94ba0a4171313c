"""What a provider refuses, and what it cannot answer: statuses, silence, and no connection at all.

The judges are the fakes' journals (`Trial.asked`: which targets were really asked, in which order)
and what the official SDK makes of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.e2e.provider_configs import (
    ALONE,
    FIRST,
    HELLO,
    OPENAI,
    OPENAI_FIRST,
    SAID,
    TOGETHER,
    Lab,
    Shape,
    answers,
    both_ways,
    lab,
    suspects,
    ways,
    within,
)
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeOpenAI,
    Resets,
    Silent,
    anthropic_errors,
    openai_errors,
    redirects,
)
from tests.providers.steps import BreakKind, Step

pytestmark = pytest.mark.e2e

WAITS_S = 0.5  # `retry_after_wait`
PATIENT_S = 0.3  # how long the first target of an IMPATIENT ring is waited for
IMPATIENT = {
    suspect: Shape(
        (suspect,),
        general=("backup",),
        first=(("timeout", PATIENT_S), ("stream_timeout", PATIENT_S)),
    )
    for suspect in ("openai", "anthropic")
}
IMPATIENT_ALONE = Shape(("openai",), first=(("timeout", PATIENT_S), ("stream_timeout", PATIENT_S)))
HURRIED = 12  # more than a breaker needs, whether it counts a row or a share
TWINS = Shape(("openai", "openai"), general=("backup",), one_model=True)
TRANSLATED = Shape(("openai", "anthropic", "backup"))
NOT_DROPPED = Shape(("anthropic",), general=("backup",), first=(("drop_params", False),))
TWO_KEYS_GONE = Shape(("openai", "anthropic"))
ONE_KEY = Shape(("openai", "openai"), general=("backup",), one_key=True)
ONE_CLAUDE_KEY = Shape(("anthropic", "anthropic"), general=("backup",), one_key=True)
WIDER = Shape(("openai", "backup", "anthropic"), windows=(8_000, 8_000, 200_000))
FOR_LONG = Shape(("openai", "openai"), ("backup",), oversized=("anthropic",), one_model=True)
FOR_LONG_TOO_SMALL = Shape(("openai",), ("backup",), oversized=("anthropic",))
FOR_CONTENT = Shape(("openai", "openai"), ("backup",), content=("anthropic",), one_model=True)
FOR_CONTENT_SAME = Shape(("openai",), content=("openai", "anthropic"), one_model=True)
AWAY = {
    where: Shape((where,), general=("backup",))
    for where in (
        "closed",
        "closed anthropic",
        "unanswered",
        "nameless",
        "nameless anthropic",
        "tls",
        "tls anthropic",
    )
}
ALL_AWAY = Shape(("closed", "tls", "nameless"))


@pytest.fixture(scope="module")
def rings() -> Iterator[Lab]:
    counts = {FIRST["openai"]: 117, FIRST["anthropic"]: 97}
    counts |= dict.fromkeys(ALONE.values(), 24)
    counts |= dict.fromkeys([TOGETHER, *IMPATIENT.values()], 12)
    few = [TWINS, TRANSLATED, NOT_DROPPED, TWO_KEYS_GONE, ONE_KEY, ONE_CLAUDE_KEY, WIDER, FOR_LONG]
    few += [FOR_LONG_TOO_SMALL, FOR_CONTENT, FOR_CONTENT_SAME, IMPATIENT_ALONE, ALL_AWAY]
    waits = {"timeouts": {"connect": 0.5}, "retry_after_wait": WAITS_S}
    with lab(dict.fromkeys([*few, *AWAY.values()], 5) | counts, **waits) as running:
        yield running


# The caller's own mistakes.


RAISED: dict[int, type[openai.APIStatusError]] = {
    400: openai.BadRequestError,
    413: openai.APIStatusError,
    418: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    431: openai.APIStatusError,
}


@both_ways("status", RAISED, streamed=[400, 422])
@suspects
def test_the_callers_mistake_is_told_by_the_first_target_and_asked_of_no_other(
    rings: Lab, suspect: str, stream: bool, status: int
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Fails(status))
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0]
    assert (refusal.raised, refusal.status) == (RAISED[status], status)
    assert refusal.type
    assert refusal.trail == [f"0:{status}"]
    assert "x-mobius-target" not in refusal.headers


@suspects
def test_the_callers_mistake_is_not_blamed_on_the_target(rings: Lab, suspect: str) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(*[Fails(400)] * 12)
    for _ in range(12):
        assert ring.refused().status == 400
    assert ring.ask().text == SAID
    assert ring.asked == [0] * 13


def test_a_refusals_words_arrive_without_keys_and_addresses(rings: Lab) -> None:
    ring = rings.take(OPENAI_FIRST)
    told = (
        f"Bad tool 'f': see https://internal.host/x?token=abcdef, Authorization: Bearer abc.def, "
        f"{ring.places[0].key} and sk-proj-0123456789abcdef"
    )
    body = openai_errors.error(told, "invalid_request_error", "bad_tool", "tools[0]")
    ring.places[0].script(Fails(400, body))
    refusal = ring.refused()
    assert refusal.message.startswith("Bad tool 'f': see [redacted]")
    for secret in ("internal.host", "abcdef", "abc.def", ring.places[0].key, "sk-proj"):
        assert secret not in refusal.message
    assert (refusal.code, refusal.param) == ("bad_tool", "tools[0]")
    assert refusal.type == "invalid_request_error"


def test_a_refusal_that_is_no_json_still_arrives_as_an_envelope(rings: Lab) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].script(Fails(400, b"<html>bad request</html>"))
    refusal = ring.refused()
    assert (refusal.status, refusal.code) == (400, None)
    assert "html" not in refusal.message
    assert ring.asked == [0]


# After the provider changed, a refusal is about its dialect.


@both_ways("status", [400, 413, 422], streamed=[400])
def test_a_refusal_of_another_provider_is_not_the_callers_and_the_next_is_asked(
    rings: Lab, stream: bool, status: int
) -> None:
    ring = rings.take(TRANSLATED)
    ring.places[0].always(Fails(503))
    ring.places[1].always(Fails(status))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0, 1, 2]
    assert (answer.text, answer.target) == (SAID, 2)
    assert answer.trail == ["0:503", "0:503", f"1:{status}", "2:200"]


@ways
def test_a_refusal_of_another_provider_hides_behind_the_first_ones_error(
    rings: Lab, stream: bool
) -> None:
    ring = rings.take(TOGETHER)
    ring.places[0].always(Fails(401))
    ring.places[1].always(Fails(400))
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0, 1]
    assert (refusal.status, refusal.code) == (502, "provider_auth_error")


@ways
def test_what_another_provider_does_not_know_is_dropped_and_named(rings: Lab, stream: bool) -> None:
    ring = rings.take(TOGETHER)
    ring.places[0].always(Fails(401))
    answer = ring.ask(stream=stream, temperature=1.7, logit_bias={"1": 2}, seed=7, top_p=0.5)
    assert ring.asked == [0, 1]
    first, second = (place.requests[0].json for place in ring.places)
    assert (first["temperature"], first["logit_bias"], first["seed"]) == (1.7, {"1": 2}, 7)
    assert second["temperature"] == 1.0
    assert not {"logit_bias", "seed"} & second.keys()
    assert second["top_p"] == 0.5
    dropped = set(answer.headers["x-mobius-dropped"].split(","))
    assert dropped == {"temperature", "logit_bias", "seed"}


def test_the_first_provider_gets_all_that_was_sent_and_nothing_is_named(rings: Lab) -> None:
    ring = rings.take(TOGETHER)
    answer = ring.ask(temperature=1.7, logit_bias={"1": 2}, extra_body={"nobody_knows": [1]})
    sent = ring.places[0].requests[0].json
    assert (sent["temperature"], sent["nobody_knows"]) == (1.7, [1])
    assert "x-mobius-dropped" not in answer.headers


@ways
def test_a_parameter_that_a_provider_cannot_be_sent_sends_the_request_on(
    rings: Lab, stream: bool
) -> None:
    ring = rings.take(NOT_DROPPED)
    answer = ring.ask(stream=stream, logit_bias={"1": 2})
    assert ring.asked == [1]
    assert answer.trail == ["0:dialect", "1:200"]
    assert ring.places[1].requests[0].json["logit_bias"] == {"1": 2}


@ways
def test_a_parameter_that_the_only_provider_has_no_word_for_is_dropped_and_named(
    rings: Lab, stream: bool
) -> None:
    ring = rings.take(ALONE["anthropic"])
    answer = ring.ask(stream=stream, logit_bias={"1": 2}, seed=3, top_p=0.5)
    assert ring.asked == [0]
    sent = ring.places[0].requests[0].json
    assert not {"logit_bias", "seed"} & sent.keys()
    assert sent["top_p"] == 0.5
    assert set(answer.headers["x-mobius-dropped"].split(",")) == {"logit_bias", "seed"}


def test_a_caller_cannot_rest_the_account_with_words_that_a_provider_quotes(rings: Lab) -> None:
    ring = rings.take(ALONE["openai"])
    message = "Invalid value: 'payment'. Supported values are: 'a' and 'b'."
    error = {"message": message, "type": "invalid_request_error", "code": "invalid_value"}
    ring.places[0].always(Fails(400, body={"error": error}))
    for _ in range(2):
        assert ring.refused().status == 400
    assert ring.asked == [0, 0]


NONSENSE: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": 5}]},
    {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
    {"messages": [{"role": "pope", "content": "hello"}]},
    {"tools": [{"type": "function"}]},
    {"response_format": {"type": "json_schema"}},
]


@both_ways("body", NONSENSE, streamed=NONSENSE[:1])
def test_a_body_that_cannot_be_translated_is_the_callers_and_blames_no_target(
    rings: Lab, stream: bool, body: dict[str, Any]
) -> None:
    ring = rings.take(ALONE["anthropic"])
    for _ in range(6):
        refusal = ring.refused(stream=stream, **body)
        assert (refusal.raised, refusal.status) == (openai.BadRequestError, 400)
        assert "Received Messages" not in refusal.message
    assert ring.ask(stream=stream).text == SAID
    assert ring.asked == [0]


# Accounts and keys.


@ways
@pytest.mark.parametrize(
    ("shape", "step"),
    [
        (ONE_CLAUDE_KEY, anthropic_errors.credit_balance_too_low()),
        (ONE_KEY, openai_errors.insufficient_quota()),
        (ONE_KEY, Fails(400, openai_errors.error("No.", "billing_error", "billing_not_active"))),
    ],
    ids=["credit balance", "insufficient quota", "billing"],
)
def test_an_empty_account_rests_with_every_target_on_its_key(
    rings: Lab, shape: Shape, step: Step, stream: bool
) -> None:
    ring = rings.take(shape)
    ring.places[0].always(step)
    assert ring.ask(stream=stream).trail == ["0:" + str(_status(step)), "2:200"]
    assert ring.ask(stream=stream).trail == ["2:200"]
    assert ring.asked == [0, 2, 2]


def _status(step: Step) -> int:
    assert isinstance(step, Fails)
    return step.status


@ways
def test_nothing_but_an_empty_account_is_nobody_available(rings: Lab, stream: bool) -> None:
    ring = rings.take(ALONE["anthropic"])
    ring.places[0].always(anthropic_errors.credit_balance_too_low())
    for _ in range(2):
        refusal = ring.refused(stream=stream)
        assert (refusal.status, refusal.code) == (503, "no_target_available")
        assert "credit" not in refusal.message
    assert ring.asked == [0]


@both_ways("status", [401, 402, 403], streamed=[401])
@suspects
def test_a_refused_key_of_ours_sends_the_request_on_and_rests(
    rings: Lab, suspect: str, stream: bool, status: int
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Fails(status))
    assert ring.ask(stream=stream).trail == [f"0:{status}", "1:200"]
    assert ring.ask(stream=stream).trail == ["1:200"]
    assert ring.asked == [0, 1, 1]


@both_ways("status", [401, 402, 403], streamed=[401])
@suspects
def test_a_refused_key_of_ours_is_never_told_as_the_callers(
    rings: Lab, suspect: str, stream: bool, status: int
) -> None:
    ring = rings.take(ALONE[suspect])
    ring.places[0].always(Fails(status))
    for _ in range(2):
        refusal = ring.refused(stream=stream)
        assert refusal.raised is openai.InternalServerError
        assert (refusal.status, refusal.code) == (502, "provider_auth_error")
        assert "api key" not in refusal.message.lower()
        assert not refusal.sdk_may_retry
    assert ring.asked == [0]


def test_refused_keys_everywhere_are_an_auth_error_and_beside_an_outage_they_are_not(
    rings: Lab,
) -> None:
    ring = rings.take(TWO_KEYS_GONE)
    ring.places[0].always(Fails(401))
    ring.places[1].always(Fails(403))
    assert ring.refused().code == "provider_auth_error"
    assert ring.asked == [0, 1]
    ring = rings.take(TWO_KEYS_GONE)
    ring.places[0].always(Fails(401))
    ring.places[1].always(Resets())
    assert ring.refused().code == "no_target_available"


# The provider is not what the file says.


@both_ways("status", [301, 302, 303, 307, 308], streamed=[307])
@suspects
def test_a_redirect_is_never_followed(rings: Lab, suspect: str, stream: bool, status: int) -> None:
    ring = rings.take(FIRST[suspect])
    with FakeOpenAI() as elsewhere:
        ring.places[0].always(redirects(f"{elsewhere.base_url}/chat/completions", status))
        assert ring.ask(stream=stream).trail == [f"0:{status}", "1:200"]
        assert ring.ask(stream=stream).trail == ["1:200"]
        assert elsewhere.journal.accepted == 0
    assert ring.asked == [0, 1, 1]


@both_ways("status", [204, 304, 404, 405, 410, 501], streamed=[404, 501])
@suspects
def test_a_target_that_is_not_there_rests_and_the_next_is_asked(
    rings: Lab, suspect: str, stream: bool, status: int
) -> None:
    ring = rings.take(FIRST[suspect])
    body = b"" if status in (204, 304) else None
    ring.places[0].always(Fails(status, body))
    assert ring.ask(stream=stream).trail == [f"0:{status}", "1:200"]
    assert ring.ask(stream=stream).trail == ["1:200"]
    assert ring.asked == [0, 1, 1]


@both_ways("status", [302, 405, 410, 501], streamed=[302])
def test_nothing_but_a_target_that_is_not_there_is_nobody_available(
    rings: Lab, stream: bool, status: int
) -> None:
    ring = rings.take(OPENAI)
    ring.places[0].always(Fails(status, b"Gone elsewhere"))
    refusal = ring.refused(stream=stream)
    assert (refusal.status, refusal.code) == (503, "no_target_available")
    assert "elsewhere" not in refusal.message
    assert ring.asked == [0]


@ways
@suspects
def test_a_model_that_the_provider_does_not_know_is_not_found(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(ALONE[suspect])
    ring.places[0].always(Fails(404))
    for _ in range(2):
        refusal = ring.refused(stream=stream)
        assert (refusal.raised, refusal.status) == (openai.NotFoundError, 404)
        assert refusal.code == "model_not_found"
        assert ring.name in refusal.message
        assert ring.places[0].model not in refusal.message
    assert ring.asked == [0]


# Too long, or not allowed: a property of the request and the model together.

TOO_LONG = {
    "openai": openai_errors.context_length_exceeded(),
    "anthropic": anthropic_errors.prompt_too_long(),
}


@ways
def test_a_prompt_too_long_is_never_asked_of_the_same_model_again(rings: Lab, stream: bool) -> None:
    ring = rings.take(TWINS)
    ring.places[0].always(TOO_LONG["openai"])
    assert ring.ask(stream=stream).target == 2
    assert ring.asked == [0, 2]


@ways
def test_a_prompt_too_long_goes_where_the_window_is_not_known_to_be_as_small(
    rings: Lab, stream: bool
) -> None:
    ring = rings.take(WIDER)
    ring.places[0].always(TOO_LONG["openai"])
    assert ring.ask(stream=stream).target == 2
    assert ring.asked == [0, 2]


@ways
def test_a_prompt_too_long_goes_to_the_fallbacks_for_it(rings: Lab, stream: bool) -> None:
    ring = rings.take(FOR_LONG)
    ring.places[0].always(TOO_LONG["openai"])
    assert ring.ask(stream=stream).target == 3
    assert ring.asked == [0, 3]
    assert ring.ask(stream=stream).target == 3
    assert ring.asked == [0, 3, 0, 3]


@ways
def test_a_prompt_too_long_for_everybody_is_the_first_refusal(rings: Lab, stream: bool) -> None:
    ring = rings.take(FOR_LONG_TOO_SMALL)
    ring.places[0].always(TOO_LONG["openai"])
    ring.places[2].always(TOO_LONG["anthropic"])
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0, 2]
    assert (refusal.status, refusal.code) == (400, "context_length_exceeded")
    assert "8192 tokens" in refusal.message


@ways
@suspects
def test_a_prompt_too_long_with_nobody_else_is_the_400(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(ALONE[suspect])
    ring.places[0].always(TOO_LONG[suspect])
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0]
    assert (refusal.raised, refusal.status) == (openai.BadRequestError, 400)
    if suspect == "openai":
        assert (refusal.code, refusal.param) == ("context_length_exceeded", "messages")
    else:
        assert "prompt is too long" in refusal.message


FORBIDDEN = {
    "openai": openai_errors.content_policy_violation(),
    "azure": openai_errors.azure_content_filter(),
    "anthropic": anthropic_errors.content_filtered(),
}


@ways
def test_forbidden_content_goes_to_the_fallbacks_for_it_alone(rings: Lab, stream: bool) -> None:
    ring = rings.take(FOR_CONTENT)
    ring.places[0].always(FORBIDDEN["openai"])
    assert ring.ask(stream=stream).target == 3
    assert ring.asked == [0, 3]


@ways
def test_forbidden_content_never_goes_to_the_same_model_again(rings: Lab, stream: bool) -> None:
    ring = rings.take(FOR_CONTENT_SAME)
    ring.places[0].always(FORBIDDEN["openai"])
    assert ring.ask(stream=stream).target == 2
    assert ring.asked == [0, 2]


@ways
def test_content_that_everybody_forbids_is_the_first_refusal(rings: Lab, stream: bool) -> None:
    ring = rings.take(FOR_CONTENT)
    ring.places[0].always(FORBIDDEN["openai"])
    ring.places[3].always(FORBIDDEN["anthropic"])
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0, 3]
    assert (refusal.status, refusal.code) == (400, "content_policy_violation")


@ways
@pytest.mark.parametrize("says", ["openai", "azure", "anthropic"])
def test_forbidden_content_without_fallbacks_for_it_is_the_400(
    rings: Lab, says: str, stream: bool
) -> None:
    ring = rings.take(FIRST["anthropic" if says == "anthropic" else "openai"])
    step = FORBIDDEN[says]
    assert isinstance(step.body, dict)
    ring.places[0].always(step)
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0]
    assert (refusal.raised, refusal.status) == (openai.BadRequestError, 400)
    assert refusal.message == step.body["error"]["message"]
    if says == "openai":
        assert refusal.code == "content_policy_violation"


# Faults that may pass.

PASSING = [408, 409, 500, 502, 503, 504, 520, 522, 529]


@both_ways("status", PASSING, streamed=[500, 503, 529])
@suspects
def test_a_passing_fault_is_asked_again_and_then_elsewhere(
    rings: Lab, suspect: str, stream: bool, status: int
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Fails(status))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0, 1], answer.trail
    assert (answer.text, answer.target) == (SAID, 1)
    assert answer.trail == [f"0:{status}", f"0:{status}", "1:200"]


@ways
@suspects
def test_a_fault_that_passed_is_not_seen_by_the_caller(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(Fails(502))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0]
    assert (answer.text, answer.finish, answer.target) == (SAID, "stop", 0)


@ways
def test_a_caller_may_wish_for_no_retry_and_for_more(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Fails(503))
    ring.ask(stream=stream, extra_body={"num_retries": 0})
    assert ring.asked == [0, 1]
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].script(*[Fails(503)] * 3)
    ring.ask(stream=stream, extra_body={"num_retries": 3})
    assert ring.asked == [0, 0, 0, 0]


@ways
@suspects
def test_a_short_retry_after_of_an_outage_is_waited_for(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(Fails(503, headers={"retry-after-ms": "20"}))
    assert ring.ask(stream=stream).target == 0
    assert ring.asked == [0, 0]


@ways
@suspects
def test_a_long_retry_after_of_an_outage_is_a_cooldown(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Fails(503, headers={"retry-after": "30"}))
    assert ring.ask(stream=stream).target == 1
    assert ring.ask(stream=stream).target == 1
    assert ring.asked == [0, 1, 1]
    ring.places[1].always(Fails(503, headers={"retry-after": "50"}))
    refusal = ring.refused(stream=stream)
    assert (refusal.status, refusal.code) == (503, "no_target_available")
    assert within(refusal.retry_after_s, 20, 30)


@ways
def test_the_sdk_does_not_multiply_what_the_gateway_has_tried(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI)
    ring.places[0].always(Fails(500))
    stubborn = rings.mobius.openai(api_key=ring.client.api_key, max_retries=2)
    with pytest.raises(openai.InternalServerError) as caught:
        stubborn.chat.completions.create(model=ring.name, messages=HELLO, stream=stream)
    assert caught.value.status_code == 503
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert ring.asked == [0] * 4  # asked again, and both once more in a second lap


def test_the_sdk_repeats_a_rate_limit_when_the_gateway_says_when(rings: Lab) -> None:
    ring = rings.take(OPENAI)
    headers = {"retry-after-ms": str(int(WAITS_S * 1000) + 1)}
    ring.places[0].script(Fails(429, headers=headers), Answer(text="at last"))
    patient = rings.mobius.openai(api_key=ring.client.api_key, max_retries=1)
    answer = patient.chat.completions.create(model=ring.name, messages=HELLO)
    assert answer.choices[0].message.content == "at last"
    assert ring.asked == [0, 0]


# No connection, no answer.


@ways
@pytest.mark.parametrize("where", AWAY)
def test_a_target_that_cannot_be_reached_is_passed_over(
    rings: Lab, where: str, stream: bool
) -> None:
    ring = rings.take(AWAY[where])
    answer = ring.ask(stream=stream)
    assert (answer.text, answer.target) == (SAID, 1)
    assert answer.trail == ["0:unreachable", "1:200"]
    # TLS is never given up: nothing was sent to the provider that speaks plain HTTP.
    assert ring.asked == [1]


@ways
def test_a_ring_that_cannot_be_reached_is_nobody_available(rings: Lab, stream: bool) -> None:
    ring = rings.take(ALL_AWAY)
    refusal = ring.refused(stream=stream)
    assert (refusal.status, refusal.code) == (503, "no_target_available")
    assert refusal.trail == ["0:unreachable", "1:unreachable", "2:unreachable"]
    assert not refusal.sdk_may_retry
    assert "127.0.0.1" not in refusal.message


@ways
@suspects
@pytest.mark.parametrize("step", [Resets(), Resets(how="eof")], ids=["reset", "eof"])
def test_a_reset_before_the_headers_sends_the_request_on(
    rings: Lab, suspect: str, stream: bool, step: Step
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(step)
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 1]
    assert answer.trail == ["0:unreachable", "1:200"]


def test_a_connection_that_died_while_it_was_idle_is_not_an_outage(rings: Lab) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Answer(hang_up=True))
    for _ in range(5):
        assert ring.ask().target == 0
        # It has died before the next request, which is what this is about.
        rings.mobius.wait_until(lambda: all(entry.over for entry in ring.places[0].requests))
    assert ring.asked == [0] * 5


@ways
@suspects
def test_a_silent_target_is_asked_once_and_left(rings: Lab, suspect: str, stream: bool) -> None:
    ring = rings.take(IMPATIENT[suspect])
    ring.places[0].always(Silent())
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 1]
    assert answer.trail == ["0:silent", "1:200"]
    left = rings.mobius.wait_until(lambda: [e for e in ring.places[0].requests if e.over])
    assert left[0].closed_by == "client"


@suspects
@pytest.mark.parametrize(
    ("how", "opening"),
    [("stall", True), ("comments", True), ("comments", False), ("drip", True), ("drip", False)],
)
def test_a_stream_without_a_first_token_is_silent_whatever_it_sends(
    rings: Lab, suspect: str, how: BreakKind, opening: bool
) -> None:
    ring = rings.take(IMPATIENT[suspect])
    ring.places[0].always(Breaks(0, how, opening=opening))
    answer = ring.ask(stream=True)
    assert ring.asked == [0, 1]
    assert (answer.text, answer.trail) == (SAID, ["0:silent", "1:200"])


@suspects
@pytest.mark.parametrize("how", ["stall", "drip"])
def test_a_whole_answer_that_never_ends_is_left(rings: Lab, suspect: str, how: BreakKind) -> None:
    ring = rings.take(IMPATIENT[suspect])
    ring.places[0].always(Breaks(2, how))
    assert ring.ask().trail[-1] == "1:200"
    assert ring.asked == [0, 1]


@ways
def test_nothing_but_silence_is_a_timeout(rings: Lab, stream: bool) -> None:
    ring = rings.take(IMPATIENT_ALONE)
    ring.places[0].always(Silent())
    refusal = ring.refused(stream=stream)
    assert ring.asked == [0]
    assert (refusal.status, refusal.code) == (504, "deadline_exceeded")
    assert not refusal.sdk_may_retry


@ways
def test_a_caller_may_wish_for_a_shorter_timeout(rings: Lab, stream: bool) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Silent())
    assert ring.ask(stream=stream, extra_body={"timeout": 0.3}).trail == ["0:impatient", "1:200"]


@ways
@suspects
def test_callers_in_a_hurry_neither_blame_a_target_nor_keep_others_from_it(
    rings: Lab, suspect: str, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Silent())
    hurry = {"timeout": 0.05, "disable_fallbacks": True}
    for _ in range(HURRIED):
        refusal = ring.refused(stream=stream, extra_body=hurry)
        assert (refusal.status, refusal.code) == (504, "deadline_exceeded")
        assert refusal.trail == ["0:impatient"]
    ring.places[0].always(Answer())
    answer = ring.ask(stream=stream)
    assert (answer.text, answer.trail) == (SAID, ["0:200"])
    assert "timeout" not in ring.places[0].requests[-1].json


# Answers that break before there is anything to show.


@suspects
@pytest.mark.parametrize(
    "how", ["eof", "reset", "ends", "malformed", "garbage_utf8", "html", "error_event"]
)
def test_a_whole_answer_that_breaks_is_asked_again_and_then_elsewhere(
    rings: Lab, suspect: str, how: BreakKind
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Breaks(2, how))
    answer = ring.ask()
    assert ring.asked == [0, 0, 1], answer.trail
    assert (answer.text, answer.target) == (SAID, 1)


@suspects
@pytest.mark.parametrize("opening", [True, False], ids=["opened", "bare"])
@pytest.mark.parametrize(
    "how", ["eof", "reset", "ends", "malformed", "garbage_utf8", "html", "error_event"]
)
def test_a_stream_that_breaks_before_its_content_is_asked_again_and_then_elsewhere(
    rings: Lab, suspect: str, how: BreakKind, opening: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(Breaks(0, how, opening=opening, close=True))
    answer = ring.ask(stream=True)
    assert ring.asked == [0, 0, 1], answer.trail
    assert (answer.text, answer.finish, answer.target) == (SAID, "stop", 1)


@ways
@pytest.mark.parametrize(
    ("error", "asked"),
    [
        ({"message": "too long", "code": "context_length_exceeded"}, [0, 1]),
        ({"message": "empty", "code": "insufficient_quota"}, [0, 1]),
        ({"message": "busy", "code": "rate_limit_exceeded"}, [0, 1]),
        ({"message": "what?", "code": "nobody_knows"}, [0, 0, 1]),
    ],
    ids=lambda value: value["code"] if isinstance(value, dict) else "",
)
def test_an_error_inside_an_answer_of_200_is_an_error(
    rings: Lab, error: dict[str, str], asked: list[int], stream: bool
) -> None:
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(Breaks(0, "error_event", error={"error": error}))
    assert ring.ask(stream=stream).target == 1
    assert ring.asked == asked


NO_ANSWERS = [
    answers(b"", close=True),
    answers(b"null"),
    answers(b"[]"),
    answers({"object": "chat.completion", "choices": []}),
    answers({"object": "chat.completion", "choices": [{"index": 0}]}),
    answers({"choices": "none"}),
    answers(b"it works!", content_type="text/plain"),
    answers(b"<html><body>Sign in</body></html>", content_type="text/html"),
    answers(b"\x89PNG\r\n\x1a\n", content_type="image/png"),
]


@both_ways("step", NO_ANSWERS, streamed=NO_ANSWERS[::3])
@suspects
def test_what_is_no_answer_is_not_delivered(
    rings: Lab, suspect: str, step: Step, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].always(step)
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0, 1], answer.trail
    assert (answer.text, answer.target) == (SAID, 1)


def test_an_answer_in_the_wrong_form_is_not_delivered(rings: Lab) -> None:
    whole = {"choices": [{"index": 0, "message": {"content": "no"}, "finish_reason": "stop"}]}
    ring = rings.take(OPENAI_FIRST)
    ring.places[0].always(answers(whole, content_type="application/json"))
    assert ring.ask(stream=True).text == SAID
    assert ring.asked == [0, 0, 1]
    ring = rings.take(OPENAI_FIRST)
    events = b'data: {"choices":[{"index":0,"delta":{"content":"no"}}]}\n\ndata: [DONE]\n\n'
    ring.places[0].always(answers(events, content_type="text/event-stream"))
    assert ring.ask().text == SAID
    assert ring.asked == [0, 0, 1]
