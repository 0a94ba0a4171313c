"""The official OpenAI SDK against the fake."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.providers import (
    MISSING,
    Answer,
    Fails,
    FakeOpenAI,
    ToolCall,
    Usage,
    openai_errors,
)

ASK: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
PARALLEL = (ToolCall("weather", '{"city": "Paris"}'), ToolCall("time", '{"zone": "CET"}'))


@pytest.fixture
def provider() -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as provider:
        yield provider


@pytest.fixture
def client(provider: FakeOpenAI) -> Iterator[openai.OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(
        base_url=provider.base_url, api_key="sk-x", max_retries=0, http_client=http
    ) as client:
        yield client


def chunks(client: openai.OpenAI, **more: Any) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(**ASK, stream=True, **more))


def test_a_plain_answer_numbers_its_tokens_and_counts_them(
    provider: FakeOpenAI, client: openai.OpenAI
) -> None:
    answer = client.chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "t0 t1 t2 t3 t4 "
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.prompt_tokens == len(provider.journal.last.body) // 4
    assert answer._request_id is not None


def test_a_unary_answer_has_the_fields_that_openai_sends(provider: FakeOpenAI) -> None:
    url = f"{provider.base_url}/chat/completions"
    response = httpx.post(url, json=ASK, trust_env=False)
    choice = response.json()["choices"][0]
    assert (choice["logprobs"], choice["message"]["refusal"]) == (None, None)
    assert choice["message"]["annotations"] == []
    assert response.headers["x-ratelimit-remaining-requests"] == "9999"
    assert response.headers["content-type"] == "application/json"


def test_a_stream_begins_with_the_role_and_ends_with_a_finish(client: openai.OpenAI) -> None:
    first, *middle, last = chunks(client)
    assert first.choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in middle] == [f"t{n} " for n in range(5)]
    assert last.choices[0].finish_reason == "stop"


def test_the_usage_chunk_comes_only_when_it_was_asked_for(client: openai.OpenAI) -> None:
    assert all(chunk.choices and chunk.usage is None for chunk in chunks(client))
    *others, last = chunks(client, stream_options={"include_usage": True})
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 5
    assert all(chunk.usage is None for chunk in others)


@pytest.mark.parametrize("streams", [False, True])
def test_parallel_tool_calls_arrive_whole(
    provider: FakeOpenAI, client: openai.OpenAI, streams: bool
) -> None:
    provider.script(Answer(tool_calls=PARALLEL))
    if streams:
        with client.chat.completions.stream(**ASK) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(**ASK).choices[0].message
    calls = [call for call in message.tool_calls or [] if call.type == "function"]
    assert [call.function.name for call in calls] == ["weather", "time"]
    assert [call.function.arguments for call in calls] == [call.arguments for call in PARALLEL]
    assert len({call.id for call in calls}) == 2
    assert message.content is None


def test_argument_fragments_are_tokens(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    provider.script(Answer(tool_calls=(ToolCall("f", '{"a": 1}', fragments=4),)))
    assert chunks(client)[-1].choices[0].finish_reason == "tool_calls"
    assert provider.journal.wait_over()[0].tokens_sent == (0, 1, 2, 3)


def test_reasoning_comes_before_the_text(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    provider.script(Answer(reasoning="let me think", tokens=1))
    deltas = [chunk.choices[0].delta.model_dump() for chunk in chunks(client)]
    thoughts = [delta.get("reasoning_content") for delta in deltas]
    assert thoughts == [None, "let ", "me ", "think", None, None]
    assert deltas[4]["content"] == "t0 "


def test_a_refusal_is_no_content(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    provider.always(Answer(refusal="I will not"))
    message = client.chat.completions.create(**ASK).choices[0].message
    assert (message.content, message.refusal) == (None, "I will not")
    refused = [chunk.choices[0].delta.refusal for chunk in chunks(client)]
    assert "".join(part or "" for part in refused) == "I will not"


def test_every_choice_is_answered(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**ASK, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 15
    provider.script(Answer(tokens=2))
    seen = [(c.choices[0].index, c.choices[0].delta.content) for c in chunks(client, n=2)]
    assert seen[2:6] == [(0, "t0 "), (1, "t0 "), (0, "t1 "), (1, "t1 ")]
    assert provider.journal.wait_over()[-1].tokens_sent == (0, 0, 1, 1)


def test_logprobs_come_when_they_were_asked_for(client: openai.OpenAI) -> None:
    logprobs = client.chat.completions.create(**ASK, logprobs=True).choices[0].logprobs
    assert logprobs is not None
    assert [token.token for token in logprobs.content or []] == [f"t{n} " for n in range(5)]
    streamed = chunks(client, logprobs=True)[1].choices[0].logprobs
    assert streamed is not None
    assert [token.token for token in streamed.content or []] == ["t0 "]


def test_usage_can_be_given_missing_or_junk(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    provider.script(Answer(usage=Usage(7, 9, cached=3)), Answer(usage=MISSING))
    given = client.chat.completions.create(**ASK).usage
    assert given is not None
    assert (given.prompt_tokens, given.completion_tokens, given.total_tokens) == (7, 9, 16)
    assert client.chat.completions.create(**ASK).usage is None
    provider.script(Answer(usage="many"))
    raw = client.chat.completions.with_raw_response.create(**ASK)
    assert raw.http_response.json()["usage"] == "many"


def test_a_text_is_sent_as_it_is_and_in_pieces(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    text = "  Grüße, 世界!\n\nBye 👋 "
    provider.always(Answer(text=text))
    assert client.chat.completions.create(**ASK).choices[0].message.content == text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks(client)) == text


@pytest.mark.parametrize(
    ("step", "error", "code"),
    [
        (openai_errors.rate_limited("2"), openai.RateLimitError, "rate_limit_exceeded"),
        (openai_errors.insufficient_quota(), openai.RateLimitError, "insufficient_quota"),
        (
            openai_errors.context_length_exceeded(),
            openai.BadRequestError,
            "context_length_exceeded",
        ),
        (
            openai_errors.content_policy_violation(),
            openai.BadRequestError,
            "content_policy_violation",
        ),
        (openai_errors.azure_content_filter(), openai.BadRequestError, "content_filter"),
        (openai_errors.unsupported_parameter(), openai.BadRequestError, "unsupported_parameter"),
        (openai_errors.invalid_api_key(), openai.AuthenticationError, "invalid_api_key"),
        (openai_errors.model_not_found(), openai.NotFoundError, "model_not_found"),
        (Fails(503), openai.InternalServerError, "server_is_overloaded"),
        (Fails(500), openai.InternalServerError, None),
    ],
)
def test_failures_have_openai_s_envelope(
    provider: FakeOpenAI,
    client: openai.OpenAI,
    step: Fails,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    provider.script(step)
    with pytest.raises(error) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.code == code
    assert caught.value.response.headers.get("retry-after") == step.headers.get("retry-after")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions",
        "/chat/completions",
        "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
        "/openai/v1/chat/completions",
    ],
)
def test_every_spelling_of_the_path_answers(provider: FakeOpenAI, path: str) -> None:
    url = f"http://127.0.0.1:{provider.port}{path}"
    assert httpx.post(url, json=ASK, trust_env=False).status_code == 200
    assert provider.journal.last.model == "gpt-4o"
    assert provider.journal.last.path == path.split("?", maxsplit=1)[0]


def test_azure_names_its_model_in_the_path(provider: FakeOpenAI) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{provider.port}",
        azure_deployment="my-deployment",
        api_version="2024-10-21",
        api_key="k",
        http_client=openai.DefaultHttpxClient(trust_env=False),
    ) as client:
        client.chat.completions.create(**{**ASK, "model": "ignored"})
    assert provider.journal.last.query == {"api-version": "2024-10-21"}
    assert provider.journal.last.headers["api-key"] == "k"
    assert "/deployments/my-deployment/" in provider.journal.last.path


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert "gpt-4o" in [model.id for model in client.models.list()]
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"


def test_an_unknown_path_is_a_404(provider: FakeOpenAI) -> None:
    response = httpx.get(f"http://127.0.0.1:{provider.port}/nowhere", trust_env=False)
    assert response.status_code == 404


def test_legacy_completions_answer(client: openai.OpenAI) -> None:
    assert client.completions.create(model="m", prompt="hi").choices[0].text == "t0 t1 t2 t3 t4 "
    stream = client.completions.create(model="m", prompt="hi", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "t0 t1 t2 t3 t4 "


def test_embeddings_answer_one_vector_per_input(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert [item.embedding[0] for item in answer.data] == [0.5, 1.5]
    assert answer.usage.prompt_tokens > 0


def test_responses_answer_text_and_calls(provider: FakeOpenAI, client: openai.OpenAI) -> None:
    provider.always(Answer(tokens=3, tool_calls=PARALLEL))
    whole = client.responses.create(model="gpt-4o", input="hi")
    assert whole.output_text == "t0 t1 t2 "
    with client.responses.stream(model="gpt-4o", input="hi") as stream:
        final = stream.get_final_response()
    assert final.output_text == "t0 t1 t2 "
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]
    assert final.usage is not None
    assert final.usage.output_tokens == 9


def test_the_asynchronous_client_is_served_too(provider: FakeOpenAI) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(
            base_url=provider.base_url,
            api_key="sk-x",
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False),
        ) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(**ASK) for _ in range(50))
            )
        return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(ask()) == ["t0 t1 t2 t3 t4 "] * 50
    assert len(provider.journal) == 50
