"""The official Anthropic SDK against the fake."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    ToolCall,
    Usage,
    anthropic_errors,
)

ASK: dict[str, Any] = {
    "model": "claude-sonnet-4-6",
    "max_tokens": 100,
    "messages": [{"role": "user", "content": "hi"}],
}


@pytest.fixture
def provider() -> Iterator[FakeAnthropic]:
    with FakeAnthropic() as provider:
        yield provider


@pytest.fixture
def client(provider: FakeAnthropic) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=provider.base_url,
        api_key="sk-x",
        max_retries=0,
        http_client=anthropic.DefaultHttpxClient(trust_env=False),
    ) as client:
        yield client


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_plain_message_numbers_its_tokens_and_counts_them(
    provider: FakeAnthropic, client: anthropic.Anthropic
) -> None:
    message = client.messages.create(**ASK)
    assert text_of(message) == "t0 t1 t2 t3 t4 "
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 5
    assert message.usage.input_tokens == len(provider.journal.last.body) // 4
    assert provider.journal.last.headers["authorization"] == "Bearer sk-x"


def test_a_stream_is_the_same_message(client: anthropic.Anthropic) -> None:
    with client.messages.stream(**ASK) as stream:
        kinds = [event.type for event in stream]
        message = stream.get_final_message()
    assert text_of(message) == "t0 t1 t2 t3 t4 "
    assert message.usage.output_tokens == 5
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


def test_the_raw_events_come_in_anthropic_s_order(client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(**ASK, stream=True)
    names = [line[7:] for line in raw.http_response.iter_lines() if line.startswith("event: ")]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 5,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


@pytest.mark.parametrize("streams", [False, True])
def test_thinking_text_and_tools_are_blocks_in_that_order(
    provider: FakeAnthropic, client: anthropic.Anthropic, streams: bool
) -> None:
    calls = (ToolCall("weather", '{"city": "Paris"}'), ToolCall("time", "{}"))
    provider.script(Answer(reasoning="let me think", tokens=2, tool_calls=calls))
    if streams:
        with client.messages.stream(**ASK) as stream:
            message = stream.get_final_message()
    else:
        message = client.messages.create(**ASK)
    thinking, text, weather, time = message.content
    assert thinking.type == "thinking"
    assert (thinking.thinking, bool(thinking.signature)) == ("let me think", True)
    assert text.type == "text"
    assert text.text == "t0 t1 "
    assert weather.type == time.type == "tool_use"
    assert weather.input == {"city": "Paris"}
    assert message.stop_reason == "tool_use"


def test_a_refusal_is_a_stop_reason(provider: FakeAnthropic, client: anthropic.Anthropic) -> None:
    provider.script(Answer(refusal="I will not"), Answer(finish="length"))
    assert client.messages.create(**ASK).stop_reason == "refusal"
    assert client.messages.create(**ASK).stop_reason == "max_tokens"


def test_cached_tokens_are_not_input_tokens(
    provider: FakeAnthropic, client: anthropic.Anthropic
) -> None:
    provider.script(Answer(usage=Usage(100, 7, cached=60)))
    usage = client.messages.create(**ASK).usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (40, 60, 7)


def test_tokens_are_counted_and_models_listed(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="claude-sonnet-4-6", messages=ASK["messages"])
    assert counted.input_tokens > 0
    assert "claude-sonnet-4-6" in [model.id for model in client.models.list()]


@pytest.mark.parametrize(
    ("step", "error", "word"),
    [
        (anthropic_errors.overloaded(), anthropic.InternalServerError, "Overloaded"),
        (anthropic_errors.rate_limited("3"), anthropic.RateLimitError, "rate limit"),
        (anthropic_errors.credit_balance_too_low(), anthropic.BadRequestError, "credit balance"),
        (anthropic_errors.prompt_too_long(), anthropic.BadRequestError, "prompt is too long"),
        (anthropic_errors.content_filtered(), anthropic.BadRequestError, "content filter"),
        (anthropic_errors.invalid_api_key(), anthropic.AuthenticationError, "x-api-key"),
        (anthropic_errors.model_not_found(), anthropic.NotFoundError, "claude-sonnet-4-6"),
        (Fails(500), anthropic.InternalServerError, "Internal"),
    ],
)
def test_failures_have_anthropic_s_envelope(
    provider: FakeAnthropic,
    client: anthropic.Anthropic,
    step: Fails,
    error: type[anthropic.APIStatusError],
    word: str,
) -> None:
    provider.script(step)
    with pytest.raises(error, match=word) as caught:
        client.messages.create(**ASK)
    assert caught.value.response.json()["type"] == "error"


def test_an_error_event_breaks_a_stream(
    provider: FakeAnthropic, client: anthropic.Anthropic
) -> None:
    provider.script(Breaks(2, "error_event"))
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        list(client.messages.create(**ASK, stream=True))
    assert provider.journal.wait_over()[0].tokens_sent == (0, 1)
