"""pydantic-ai: agents on chat completions, responses and messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, Embedder, ModelHTTPError, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.place import KEY, SPENT, Place
from tests.clients.words import (
    CALLED,
    GREY,
    OSLO,
    SAID,
    TEXT,
    Ask,
    Weather,
    all_at_once,
    check_results,
    cut_off,
    fake_of,
)
from tests.providers import Answer, Fails, Gate, ToolCall, Usage

models = pytest.mark.parametrize("model", ["gpt", "claude"])
ways = pytest.mark.parametrize("way", ["chat", "responses", "anthropic"])


def agent(place: Place, way: str, model: str, key: str = KEY, **more: Any) -> Any:
    where: Any
    if way == "anthropic":
        sdk = AsyncAnthropic(base_url=place.tap.url, api_key=key, max_retries=0)
        where = AnthropicModel(model, provider=AnthropicProvider(anthropic_client=sdk))
    else:
        kind = OpenAIChatModel if way == "chat" else OpenAIResponsesModel
        where = kind(model, provider=provider(place, key))
    return Agent(where, instructions="be brief", model_settings={"max_tokens": 50}, **more)


def provider(place: Place, key: str = KEY) -> OpenAIProvider:
    sdk = AsyncOpenAI(base_url=place.url, api_key=key, max_retries=0)
    return OpenAIProvider(openai_client=sdk)


@ways
@models
def test_a_whole_answer(place: Place, model: str, way: str) -> None:
    fake_of(place, model).always(Answer(usage=Usage(30, 20)))
    answer = agent(place, way, model).run_sync(SAID)
    assert answer.output == TEXT
    usage = answer.usage() if callable(answer.usage) else answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (30, 20)


@ways
@models
def test_a_stream(place: Place, model: str, way: str) -> None:
    async def ask() -> list[str]:
        async with agent(place, way, model).run_stream(SAID) as stream:
            return [piece async for piece in stream.stream_text(delta=True, debounce_by=None)]

    assert "".join(asyncio.run(ask())) == TEXT


@ways
@models
def test_tools_are_called_and_their_results_are_told(place: Place, model: str, way: str) -> None:
    fake_of(place, model).script(CALLED, Answer(text="grey"))
    asked = agent(place, way, model)

    @asked.tool_plain  # type: ignore[untyped-decorator]
    def weather(city: str) -> str:
        """Of a city."""
        return f"grey in {city}"

    assert asked.run_sync(SAID).output == "grey"
    check_results(place, model)


@ways
@models
def test_an_answer_has_the_structure_that_was_asked_for(place: Place, model: str, way: str) -> None:
    """As a schema of the answer, and as a tool that the answer is handed to."""
    fake = fake_of(place, model)
    fake.script(Answer(text=OSLO), Answer(tool_calls=(ToolCall("final_result", OSLO),)))
    profile = {"supports_json_schema_output": True}
    native = agent(place, way, model, output_type=NativeOutput(Weather))
    native.model.profile.update(profile)
    assert native.run_sync(SAID).output == GREY
    assert agent(place, way, model, output_type=Weather).run_sync(SAID).output == GREY


def test_vectors(place: Place) -> None:
    embedder = Embedder(OpenAIEmbeddingModel("vectors", provider=provider(place)))
    found = embedder.embed_documents_sync(["a", "b"])
    assert [vector[0] for vector in found.embeddings] == [0.5, 1.5]


@pytest.mark.parametrize(("status", "told"), [(400, 400), (404, 404), (429, 429), (500, 503)])
@ways
def test_failures_have_their_status(place: Place, way: str, status: int, told: int) -> None:
    step = Fails(status, headers={"retry-after": "7"})
    model = place.odd(status, step, claude=way == "anthropic")
    with pytest.raises(ModelHTTPError) as caught:
        agent(place, way, model).run_sync(SAID)
    assert caught.value.status_code == told


@ways
def test_our_own_refusals_have_their_status(place: Place, way: str) -> None:
    refusals = (("sk-nobody", "gpt", 401), (KEY, "nothing", 404), (SPENT, "gpt", 429))
    for key, model, status in refusals:
        with pytest.raises(ModelHTTPError) as caught:
            agent(place, way, model, key).run_sync(SAID)
        assert caught.value.status_code == status


def crowd_of(place: Place, way: str, model: str) -> Ask:
    asked = agent(place, way, model)

    async def ask(number: int) -> str:
        async with asked.run_stream(f"number {number}") as stream:
            return "".join([piece async for piece in stream.stream_text(delta=True)])

    return ask


@ways
def test_fifty_streams_at_once(place: Place, way: str) -> None:
    names = ("gpt", "claude")
    all_at_once(place, *((fake_of(place, name), crowd_of(place, way, name)) for name in names))


@ways
@models
def test_leaving_ends_the_providers_work(place: Place, model: str, way: str) -> None:
    fake = fake_of(place, model)
    fake.script(Answer(gate=Gate(), gate_after_tokens=2))

    async def leave() -> None:
        async with agent(place, way, model).run_stream(SAID) as stream:
            await anext(stream.stream_text(delta=True, debounce_by=None))
            await stream.cancel()

    asyncio.run(leave())
    cut_off(fake)
