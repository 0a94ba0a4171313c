"""A message as the chat that is asked instead: our words against those of LiteLLM's adapter, where
both know them, and the parameters."""

from __future__ import annotations

import asyncio
import importlib
from types import ModuleType
from typing import Any

import orjson
import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.estimate import PromptRates, Size
from proxy.retry import Kind
from proxy.types import Call, Json, Surface, Target
from proxy.upstream.lanes import Providers
from proxy.upstream.messages_as_chats import ADAPTER, chat_of
from proxy.waiting import Waiting

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

LOOK: Json = {"name": "look", "description": "d", "input_schema": {"type": "object"}}
USE = {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "x"}}
RESULT = {"type": "tool_result", "tool_use_id": "c1", "content": "seen"}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "aGk="}
BOTH_KNOW: dict[str, list[Json]] = {
    "text": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
    "image": [{"role": "user", "content": [
        {"type": "text", "text": "a"}, {"type": "image", "source": PIXEL}]}],
    "tools": [{"role": "user", "content": "a"}, {"role": "assistant", "content": [USE]},
              {"role": "user", "content": [RESULT]}],
    "text beside a call": [
        {"role": "assistant", "content": [{"type": "text", "text": "b"}, USE]},
        {"role": "user", "content": [RESULT]}],
}  # fmt: skip


@pytest.fixture(scope="module")
def litellm() -> ModuleType:
    async def load() -> ModuleType:
        providers = Providers(SystemClock())
        try:
            return await providers.sdk.ready()
        finally:
            await providers.aclose()

    return asyncio.run(load())


def target(provider: str = "openai", model: str = "gpt-4o") -> Target:
    return Target("t", "t", provider, model, f"{provider}/{model}", "c")


def call(**body: Any) -> Call:
    said = {"model": "m", "messages": [{"role": "user", "content": "a"}], **body}
    return Call("m", stream=False, body=said, surface=Surface.MESSAGES)


def chat(litellm: ModuleType, place: Target, **body: Any) -> dict[str, Any]:
    """The body of the chat, without its model and messages."""
    asked, _ = chat_of(litellm, place, call(**body))
    assert asked.surface is Surface.CHAT
    return {n: v for n, v in asked.body.items() if n not in ("model", "messages")}


@pytest.mark.parametrize("name", BOTH_KNOW)
def test_what_both_know_is_said_alike(litellm: ModuleType, name: str) -> None:
    asked, _ = chat_of(litellm, target(), call(messages=BOTH_KNOW[name]))
    adapter = importlib.import_module(ADAPTER).LiteLLMAnthropicMessagesAdapter()
    theirs, _ = adapter.translate_anthropic_to_openai(
        {"model": "gpt-4o", "messages": BOTH_KNOW[name]}
    )
    assert _read(asked.body["messages"]) == _read(theirs["messages"])


def _read(messages: list[Any]) -> list[Any]:
    """Messages without what is null, the arguments of calls as JSON."""
    told = [{n: v for n, v in message.items() if v is not None} for message in messages]
    for message in told:
        for each in message.get("tool_calls", ()):
            each["function"] = {
                **each["function"],
                "arguments": orjson.loads(each["function"]["arguments"]),
            }
    return told


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        ({"max_tokens": 5}, {"max_completion_tokens": 5}),
        ({"stop_sequences": ["x"]}, {"stop": ["x"]}),
        ({"thinking": {"type": "disabled"}}, {}),
        ({"thinking": {"type": "enabled", "budget_tokens": 20_000}}, {"reasoning_effort": "high"}),
        ({"output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}},
         {"reasoning_effort": "high"}),
        ({"service_tier": "standard_only"}, {"service_tier": "default"}),
        ({"metadata": {"user_id": "ann"}}, {"user": "ann"}),
        ({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}),
        ({"top_k": 3, "of_tomorrow": 1}, {"top_k": 3, "of_tomorrow": 1}),
    ],
)  # fmt: skip
def test_parameters(litellm: ModuleType, said: Json, asked: Json) -> None:
    assert chat(litellm, target(), **said) == asked


def test_parameters_for_claude_elsewhere_stay_anthropic_s(litellm: ModuleType) -> None:
    place = target("bedrock", "anthropic.claude-sonnet-4-6-v1:0")
    thinking = {"type": "enabled", "budget_tokens": 2000}
    asked = chat(litellm, place, max_tokens=5, thinking=thinking)
    assert asked == {"max_tokens": 5, "thinking": thinking}


def test_a_long_name_of_a_user_is_one_that_openai_takes(litellm: ModuleType) -> None:
    [one, same, other] = [
        chat(litellm, target(), metadata={"user_id": name * 100})["user"] for name in "aab"
    ]
    assert one == same != other
    assert len(one) == 64


def test_a_tool_has_only_what_a_chat_s_has(litellm: ModuleType) -> None:
    tool = {**LOOK, "type": "custom", "defer_loading": True, "input_examples": [{"at": "x"}],
            "eager_input_streaming": True}  # fmt: skip
    body = {"tools": [tool]}
    function = {"name": "look", "description": "d", "parameters": {"type": "object"}}
    expected = [{"type": "function", "function": function}]
    assert chat(litellm, target(), **body)["tools"] == expected
    assert body["tools"] == [tool]  # the next target's is as it was sent


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"tools": [7]},
        {"tool_choice": {"type": "of tomorrow"}},
        {"messages": [{"role": "user", "content": [{"type": "container_upload"}]}]},
    ],
)
def test_what_cannot_be_said_is_another_target_s(litellm: ModuleType, body: Json) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        chat_of(litellm, target(), call(**body))
    assert caught.value.kind is Kind.DIALECT


def test_what_another_provider_keeps_has_to_be_said_again(litellm: ModuleType) -> None:
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    with pytest.raises(UpstreamFailure) as caught:
        chat_of(litellm, target(), call(thread=thread))
    assert (caught.value.kind, caught.value.provider_status, caught.value.provider_code) == (
        Kind.FORGOTTEN, 404, "thread_not_found",
    )  # fmt: skip
    asked, _ = chat_of(litellm, target(), call(thread={"type": "create"}))
    assert "thread" not in asked.body


def test_tokens_are_estimated_by_what_the_model_has_shown() -> None:
    async def count(rates: PromptRates) -> int:
        clock = SystemClock()
        providers = Providers(clock)
        try:
            lanes = providers.lanes(lambda: 1000, rates)
            asked = Call("m", False, call().body, Surface.COUNT_TOKENS)
            waiting = Waiting(clock.now)
            reply = await lanes.call(target(), asked, foreign=False, waiting=waiting)
            found: int = reply.body["input_tokens"]  # type: ignore[union-attr]
            return found
        finally:
            await providers.aclose()

    from_nothing, learned = PromptRates(), PromptRates()
    size = Size(text_bytes=100)
    for _ in range(8):
        learned.learn("openai/gpt-4o", size, 100)
    assert asyncio.run(count(learned)) > 3 * asyncio.run(count(from_nothing)) > 3
