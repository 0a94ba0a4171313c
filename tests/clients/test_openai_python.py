"""OpenAI's own client for Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

from tests.clients.place import KEY, SPENT, Place
from tests.clients.words import (
    CALLED,
    GREY,
    HELLO,
    OSLO,
    TEXT,
    TOOLS,
    WEATHER,
    Weather,
    all_at_once,
    check_results,
    cut_off,
    fake_of,
)  # fmt: skip
from tests.providers import Answer, Breaks, Fails, Gate, ToolCall, Usage, openai_errors

models = pytest.mark.parametrize("model", ["gpt", "claude"])


@pytest.fixture
def client(place: Place) -> Iterator[openai.OpenAI]:
    with client_of(place) as client:
        yield client


def client_of(place: Place, key: str = KEY, **more: Any) -> openai.OpenAI:
    http = DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(
        base_url=place.url, api_key=key, http_client=http, **{"max_retries": 0, **more}
    )


@models
def test_a_whole_answer(place: Place, client: openai.OpenAI, model: str) -> None:
    for fake in place.fakes:
        fake.always(Answer(usage=Usage(30, 20)))
    asked: dict[str, Any] = {"temperature": 0.5, "max_tokens": 50, "stop": ["x"], "user": "ann"}
    answer = client.chat.completions.create(model=model, messages=HELLO, **asked)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 50


@models
def test_a_stream(place: Place, client: openai.OpenAI, model: str) -> None:
    chunks = list(client.chat.completions.create(model=model, messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == TEXT
    with client.chat.completions.stream(
        model=model, messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert kinds >= {"content.delta", "content.done", "chunk"}
    assert (final.choices[0].message.content, final.usage is not None) == (TEXT, True)


@models
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "stream"])
def test_a_tool_is_called_and_its_result_is_told(
    place: Place, client: openai.OpenAI, model: str, streamed: bool
) -> None:
    fake_of(place, model).script(CALLED, Answer(text="grey"))
    messages = list(HELLO)
    for _ in range(2):
        asked: dict[str, Any] = {"model": model, "messages": messages, "tools": TOOLS}
        if streamed:
            with client.chat.completions.stream(**asked) as stream:
                message: Any = stream.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**asked).choices[0].message
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls or ()
        ]
        messages.append({"role": "assistant", "content": message.content, "tool_calls": calls})
        messages += [
            {"role": "tool", "tool_call_id": call["id"], "content": f"grey in {city}"}
            for call in calls
            for city in [json.loads(call["function"]["arguments"])["city"]]
        ]
    assert messages[-1]["content"] == "grey"
    check_results(place, model)


@models
def test_an_answer_has_the_structure_that_was_asked_for(
    place: Place, client: openai.OpenAI, model: str
) -> None:
    fake_of(place, model).always(Answer(text=OSLO))
    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=Weather)
    assert answer.choices[0].message.parsed == GREY
    with client.chat.completions.stream(
        model=model, messages=HELLO, response_format=Weather
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == GREY


def test_vectors(place: Place, client: openai.OpenAI) -> None:
    found = client.embeddings.create(model="vectors", input=["a", "b"], dimensions=3)
    assert [item.embedding for item in found.data] == [[0.5, 0.25, 0.25], [1.5, 0.25, 0.25]]
    plain = client.embeddings.create(model="vectors", input="a", encoding_format="float")
    assert plain.data[0].embedding[0] == 0.5
    # What was said nothing of is asked in base64, which is decoded before anybody sees it.
    assert [entry.json.get("encoding_format") for entry in place.openai.journal.requests()] == [
        "base64", "float",
    ]  # fmt: skip


def test_text_that_goes_on(place: Place, client: openai.OpenAI) -> None:
    whole = client.completions.create(model="gpt", prompt="once", max_tokens=9)
    assert whole.choices[0].text == TEXT
    pieces = client.completions.create(model="gpt", prompt="once", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == TEXT


@models
def test_responses(place: Place, client: openai.OpenAI, model: str) -> None:
    answer = client.responses.create(model=model, input="hello", instructions="be brief")
    assert answer.output_text == TEXT
    with client.responses.stream(model=model, input="hello") as stream:
        events = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == TEXT
    assert (events[0], events[-1]) == ("response.created", "response.completed")


@models
def test_responses_call_tools_and_have_structure(
    place: Place, client: openai.OpenAI, model: str
) -> None:
    called = Answer(tool_calls=(ToolCall("weather", '{"city": "Oslo"}'),))
    for fake in place.fakes:
        fake.script(called, Answer(text=OSLO))
    asked: list[Any] = [{"role": "user", "content": "hello"}]
    tool: Any = {"type": "function", "strict": False, **WEATHER}
    first = client.responses.create(model=model, input=asked, tools=[tool])
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, call.arguments) == ("weather", '{"city": "Oslo"}')
    asked += [item.model_dump(exclude_none=True) for item in first.output]
    asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "grey"})
    parsed = client.responses.parse(model=model, input=asked, text_format=Weather)
    assert parsed.output_parsed == GREY


def test_models_and_moderations(place: Place, client: openai.OpenAI) -> None:
    assert {"gpt", "claude", "vectors"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("gpt").id == "gpt"
    assert client.moderations.create(model="gpt", input="x").results[0].flagged is False


FAULTS: dict[int, tuple[type[openai.APIStatusError], int]] = {
    400: (openai.BadRequestError, 400),
    401: (openai.InternalServerError, 502),  # it is our key that the provider refused
    404: (openai.NotFoundError, 404),
    422: (openai.UnprocessableEntityError, 422),
    429: (openai.RateLimitError, 429),
    500: (openai.InternalServerError, 503),
    503: (openai.InternalServerError, 503),
}


@pytest.mark.parametrize("claude", [False, True], ids=["gpt", "claude"])
@pytest.mark.parametrize("status", FAULTS)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_providers_failure_has_its_class(
    place: Place, client: openai.OpenAI, status: int, claude: bool, stream: bool
) -> None:
    kind, told = FAULTS[status]
    model = place.odd(status, Fails(status, headers={"retry-after": "7"}), claude=claude)
    with pytest.raises(kind) as caught:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert type(caught.value) is kind
    assert caught.value.status_code == told
    assert caught.value.request_id
    if status == 429:
        assert 0 < float(caught.value.response.headers["retry-after"]) <= 7


def test_our_own_refusals_have_their_classes(place: Place, client: openai.OpenAI) -> None:
    def ask(client: openai.OpenAI, model: str, **more: Any) -> None:
        client.chat.completions.create(model=model, messages=HELLO, **more)

    with client_of(place, "sk-nobody") as nobody, pytest.raises(openai.AuthenticationError):
        ask(nobody, "gpt")
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, "nothing")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(client, "gpt", extra_body={"num_retries": "many"})
    assert wrong.value.param == "num_retries"
    with client_of(place, SPENT) as spent, pytest.raises(openai.RateLimitError) as limited:
        ask(spent, "gpt")
    assert limited.value.code == "rate_limit_exceeded"
    assert int(limited.value.response.headers["retry-after"]) > 0


def test_the_sdk_waits_as_it_is_told_and_asks_again(place: Place) -> None:
    step = openai_errors.rate_limited("0.2")
    model = place.odd(429, Answer())
    place.openai.script(step, step, step, model=model.split("/")[1])
    with client_of(place, max_retries=3) as patient:
        answer = patient.chat.completions.create(model=model, messages=HELLO)
    assert answer.choices[0].message.content == TEXT


def test_a_stream_that_breaks_raises(place: Place, client: openai.OpenAI) -> None:
    for how in ("reset", "ends", "error_event"):
        place.openai.script(Breaks(2, how=how))
        stream = client.chat.completions.create(model="gpt", messages=HELLO, stream=True)
        told: list[str] = []
        with pytest.raises(openai.APIError):
            told.extend(chunk.choices[0].delta.content or "" for chunk in stream)
        assert "".join(told) == "t0 t1 "


def test_raw_headers(place: Place, client: openai.OpenAI) -> None:
    headers = {"x-mobius-tag": "agent=planner"}
    raw = client.chat.completions.with_raw_response.create(
        model="gpt", messages=HELLO, extra_headers=headers
    )
    assert raw.parse().choices[0].message.content == TEXT
    assert raw.headers["x-mobius-target"] == "gpt/openai/gpt-4o"
    assert raw.headers["x-mobius-attempts"] == "gpt/openai/gpt-4o:200"
    assert raw.headers["x-request-id"] == raw.request_id
    assert float(raw.headers["x-mobius-overhead-ms"]) > 0
    assert raw.headers["x-ratelimit-limit-requests"] == "10000"
    with client.chat.completions.with_streaming_response.create(
        model="gpt", messages=HELLO, stream=True
    ) as streamed:
        assert streamed.headers["x-mobius-target"] == "gpt/openai/gpt-4o"
        assert "data: [DONE]" in list(streamed.iter_lines())


@models
def test_fifty_streams_at_once(place: Place, model: str) -> None:
    client = openai.AsyncOpenAI(
        base_url=place.url,
        api_key=KEY,
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(trust_env=False),
    )

    async def ask(number: int) -> str:
        messages: list[Any] = [{"role": "user", "content": f"number {number}"}]
        stream = await client.chat.completions.create(model=model, messages=messages, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    all_at_once(place, (fake_of(place, model), ask))


@models
def test_leaving_ends_the_providers_work(place: Place, client: openai.OpenAI, model: str) -> None:
    fake = fake_of(place, model)
    fake.script(Answer(gate=Gate(), gate_after_tokens=2))
    with client.chat.completions.create(model=model, messages=HELLO, stream=True) as stream:
        next(iter(stream))
    cut_off(fake)
    fake.script(Answer(gate=Gate()))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(model=model, messages=HELLO)
    cut_off(fake, 2)
