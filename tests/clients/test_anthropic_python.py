"""Anthropic's own client for Python: its bytes for Anthropic's models, a chat for OpenAI's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import DefaultAsyncHttpxClient, DefaultHttpxClient

from tests.clients.place import KEY, SPENT, Place
from tests.clients.words import (
    CALLED,
    GREY,
    HELLO,
    OSLO,
    PARAMETERS,
    TEXT,
    Weather,
    all_at_once,
    check_results,
    cut_off,
    fake_of,
)  # fmt: skip
from tests.providers import Answer, Breaks, Fails, Gate, Usage, anthropic_errors

models = pytest.mark.parametrize("model", ["claude", "gpt"])
TOOLS: list[Any] = [{"name": "weather", "description": "Of a city", "input_schema": PARAMETERS}]


@pytest.fixture
def client(place: Place) -> Iterator[anthropic.Anthropic]:
    with client_of(place) as client:
        yield client


def client_of(place: Place, key: str = KEY, **more: Any) -> anthropic.Anthropic:
    http = DefaultHttpxClient(trust_env=False)
    return anthropic.Anthropic(
        base_url=place.tap.url, api_key=key, http_client=http, **{"max_retries": 0, **more}
    )


@models
def test_a_whole_answer(place: Place, client: anthropic.Anthropic, model: str) -> None:
    fake_of(place, model).always(Answer(usage=Usage(30, 20)))
    answer = client.messages.create(
        model=model,
        max_tokens=50,
        system="be brief",
        messages=HELLO,
        stop_sequences=["x"],
        metadata={"user_id": "ann"},
    )
    assert [block.text for block in answer.content if block.type == "text"] == [TEXT]
    assert (answer.stop_reason, answer.usage.input_tokens, answer.usage.output_tokens) == (
        "end_turn", 30, 20,
    )  # fmt: skip


@models
def test_a_stream_in_the_order_that_anthropic_has(
    place: Place, client: anthropic.Anthropic, model: str
) -> None:
    with client.messages.stream(model=model, max_tokens=50, messages=HELLO) as stream:
        kinds = [event.type for event in stream if event.type != "text"]
        final = stream.get_final_message()
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert [block.text for block in final.content if block.type == "text"] == [TEXT]
    assert final.usage.output_tokens == 5


@models
def test_thoughts_come_before_the_text(
    place: Place, client: anthropic.Anthropic, model: str
) -> None:
    fake_of(place, model).always(Answer(reasoning="hm hm", text="so"))
    asked: dict[str, Any] = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    asked |= {"model": model, "max_tokens": 2000, "messages": HELLO}
    whole = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    for answer in (whole, streamed):
        blocks: list[Any] = answer.content
        assert [block.type for block in blocks] == ["thinking", "text"]
        assert blocks[0].thinking == "hm hm"


@models
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_a_tool_is_called_and_its_result_is_told(
    place: Place, client: anthropic.Anthropic, model: str, streamed: bool
) -> None:
    fake_of(place, model).script(CALLED, Answer(text="grey"))
    messages: list[Any] = list(HELLO)
    answer: Any = None
    for _ in range(2):
        asked: dict[str, Any] = {"model": model, "max_tokens": 50, "messages": messages}
        if streamed:
            with client.messages.stream(tools=TOOLS, **asked) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(tools=TOOLS, **asked)
        messages.append({"role": "assistant", "content": answer.content})
        results = [
            {
                "type": "tool_result",
                "tool_use_id": block.id,
                "content": f"grey in {block.input['city']}",
            }
            for block in answer.content
            if block.type == "tool_use"
        ]
        messages += [{"role": "user", "content": results}] if results else []
    assert answer.content[0].text == "grey"
    check_results(place, model)


@anthropic.beta_tool
def weather(city: str) -> str:
    """Of a city."""
    return f"grey in {city}"


def run_the_sdks_own_loop(client: anthropic.Anthropic, model: str) -> Any:
    loop = client.beta.messages.tool_runner(
        model=model, max_tokens=50, messages=HELLO, tools=[weather]
    )
    return loop.until_done()


def test_the_sdks_own_loop_goes_on_in_a_thread_that_anthropic_keeps(
    place: Place, client: anthropic.Anthropic
) -> None:
    place.anthropic.script(CALLED, Answer(text="grey"))
    assert run_the_sdks_own_loop(client, "claude").content[0].text == "grey"
    first, second = (entry.json for entry in place.anthropic.journal.requests())
    assert first["thread"] == {"type": "create"}
    assert second["thread"]["type"] == "continue"
    assert "grey in Ærø" in str(second["messages"])


def test_a_thread_that_nobody_keeps_is_said_again_in_full(
    place: Place, client: anthropic.Anthropic
) -> None:
    place.openai.script(CALLED, Answer(text="grey"))
    assert run_the_sdks_own_loop(client, "gpt").content[0].text == "grey"
    check_results(place, "gpt")
    # Anthropic's own word of it is passed on, and its target is not left to rest for it.
    lost = anthropic_errors.thread_not_found()
    place.anthropic.script(CALLED, lost, Answer(text="grey"))
    assert run_the_sdks_own_loop(client, "claude").content[0].text == "grey"
    assert "hello" in str(place.anthropic.journal.last.json["messages"])


@models
def test_an_answer_has_the_structure_that_was_asked_for(
    place: Place, client: anthropic.Anthropic, model: str
) -> None:
    fake_of(place, model).always(Answer(text=OSLO))
    asked: dict[str, Any] = {"model": model, "max_tokens": 50, "messages": HELLO}
    answer = client.messages.parse(output_format=Weather, **asked)
    assert answer.parsed_output == GREY


@models
def test_tokens_are_counted(place: Place, client: anthropic.Anthropic, model: str) -> None:
    assert client.messages.count_tokens(model=model, messages=HELLO).input_tokens > 0


FAULTS: dict[int, tuple[type[anthropic.APIStatusError], int]] = {
    400: (anthropic.BadRequestError, 400),
    401: (anthropic.InternalServerError, 502),  # it is our key that the provider refused
    404: (anthropic.NotFoundError, 404),
    429: (anthropic.RateLimitError, 429),
    500: (anthropic.InternalServerError, 503),
}


@pytest.mark.parametrize("claude", [False, True], ids=["gpt", "claude"])
@pytest.mark.parametrize("status", FAULTS)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_providers_failure_has_its_class(
    place: Place, client: anthropic.Anthropic, status: int, claude: bool, stream: bool
) -> None:
    kind, told = FAULTS[status]
    model = place.odd(status, Fails(status, headers={"retry-after": "7"}), claude=claude)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model=model, max_tokens=9, messages=HELLO, stream=stream)
    assert isinstance(caught.value, kind)
    assert caught.value.status_code == told
    if status == 429:
        assert 0 < float(caught.value.response.headers["retry-after"]) <= 7


def test_our_own_refusals_have_their_classes(place: Place, client: anthropic.Anthropic) -> None:
    def ask(client: anthropic.Anthropic, model: str, **more: Any) -> None:
        client.messages.create(model=model, max_tokens=9, messages=HELLO, **more)

    with client_of(place, "sk-nobody") as nobody, pytest.raises(anthropic.AuthenticationError):
        ask(nobody, "claude")
    with pytest.raises(anthropic.NotFoundError):
        ask(client, "nothing")
    with pytest.raises(anthropic.BadRequestError):
        ask(client, "claude", extra_body={"num_retries": "many"})
    with client_of(place, SPENT) as spent, pytest.raises(anthropic.RateLimitError) as limited:
        ask(spent, "claude")
    assert int(limited.value.response.headers["retry-after"]) > 0


@models
def test_a_stream_that_breaks_raises(place: Place, client: anthropic.Anthropic, model: str) -> None:
    for how in ("reset", "ends", "error_event"):
        fake_of(place, model).script(Breaks(2, how=how))
        told: list[str] = []
        stream = client.messages.create(model=model, max_tokens=9, messages=HELLO, stream=True)
        with pytest.raises(anthropic.APIStatusError):
            told.extend(
                event.delta.text
                for event in stream
                if event.type == "content_block_delta" and event.delta.type == "text_delta"
            )
        assert "".join(told) == "t0 t1 "


def test_raw_headers(place: Place, client: anthropic.Anthropic) -> None:
    raw = client.messages.with_raw_response.create(model="claude", max_tokens=9, messages=HELLO)
    assert raw.parse().type == "message"
    assert raw.headers["x-mobius-target"] == "claude/anthropic/claude-sonnet-4-5"
    assert raw.headers["x-mobius-attempts"] == "claude/anthropic/claude-sonnet-4-5:200"
    assert raw.request_id is not None
    (entry,) = place.anthropic.journal.requests()
    assert entry.headers["anthropic-version"] == raw.http_request.headers["anthropic-version"]


@models
def test_fifty_streams_at_once(place: Place, model: str) -> None:
    client = anthropic.AsyncAnthropic(
        base_url=place.tap.url,
        api_key=KEY,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(trust_env=False),
    )

    async def ask(number: int) -> str:
        messages: list[Any] = [{"role": "user", "content": f"number {number}"}]
        async with client.messages.stream(model=model, max_tokens=9, messages=messages) as stream:
            return "".join([text async for text in stream.text_stream])

    all_at_once(place, (fake_of(place, model), ask))


@models
def test_leaving_ends_the_providers_work(
    place: Place, client: anthropic.Anthropic, model: str
) -> None:
    fake = fake_of(place, model)
    fake.script(Answer(gate=Gate(), gate_after_tokens=2))
    asked: dict[str, Any] = {"model": model, "max_tokens": 9, "messages": HELLO}
    with client.messages.create(stream=True, **asked) as stream:
        next(iter(stream))
    cut_off(fake)
    fake.script(Answer(gate=Gate()))
    with pytest.raises(anthropic.APITimeoutError):
        client.with_options(timeout=0.3).messages.create(**asked)
    cut_off(fake, 2)
