"""
The lane of messages for a target that is not Anthropic's: asked as a chat, by its lane for those.

LiteLLM's adapter says what the parameters and tools of a message are called in a chat. What was
said, and what is answered, is translated here, so that nothing is left out without a word.
"""

from __future__ import annotations

import copy
import hashlib
import importlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import orjson

from proxy.errors import UpstreamFailure
from proxy.estimate import PromptRates, size_of
from proxy.owed import Owed
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.reservation import model_of
from proxy.retry import Kind
from proxy.types import Call, Json, Surface, Target
from proxy.upstream import Upstream
from proxy.upstream.fields import NATIVE, TARGETS
from proxy.upstream.from_chat import Told, message_of
from proxy.upstream.sdk import Sdk
from proxy.upstream.to_chat import Ear, Untranslatable, messages_of
from proxy.waiting import Waiting

ADAPTER = "litellm.llms.anthropic.pass_through.adapters.transformation"
# What of a tool the adapter knows; it would make any other field a part of the tool's schema.
TOOL_FIELDS = frozenset({"cache_control", "description", "input_schema", "name", "strict", "type"})
# What of a message a parameter of a chat was made from: the caller is told in its own words.
ORIGINS: Mapping[str, tuple[str, ...]] = {
    "max_completion_tokens": ("max_tokens",),
    "parallel_tool_calls": ("tool_choice",),
    "reasoning_effort": ("thinking", "output_config"),
    "response_format": ("output_format", "output_config"),
    "stop": ("stop_sequences",),
    "user": ("metadata",),
    "web_search_options": ("tools",),
}
EFFORTS: Mapping[object, str] = {"max": "high"}  # Anthropic's words that OpenAI has not
LONGEST_USER = 64  # characters that OpenAI takes
CLOUDED = frozenset({"azure", "openai"})  # whose newer models know only `max_completion_tokens`


class MessagesAsChats:
    """Calls targets by `chat`. Prompts are counted by `rates`, without asking anybody."""

    def __init__(self, chat: Upstream, sdk: Sdk, rates: PromptRates) -> None:
        self._chat = chat
        self._sdk = sdk
        self._rates = rates

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        if call.surface is Surface.COUNT_TOKENS:
            tokens = self._rates.typical(model_of(target), size_of(call.body, call.size_bytes))
            return Completion(orjson.dumps({"input_tokens": tokens}))
        litellm = await self._sdk.ready()
        asked, names = chat_of(litellm, target, call)
        # Whoever answers a chat, the request was written for Anthropic.
        reply = await self._chat.call(target, asked, foreign=True, waiting=waiting)
        dropped = [_origin(name, call.body) for name in reply.dropped]
        dropped += ["thread"] if call.body.get("thread") else []  # which is kept nowhere
        told: Reply
        match reply:
            case Completion():
                body = message_of(reply.body, names)
                told = Completion(orjson.dumps(body), body, headers=reply.headers, dropped=dropped)
            case ChunkStream():
                told = _streamed(reply, names, waiting, dropped)
        told.leeways = reply.leeways
        return told


def chat_of(litellm: ModuleType, target: Target, call: Call) -> tuple[Call, Mapping[str, str]]:
    """Return the chat that asks what `call` does, and the full names of tools cut for it."""
    if _object(call.body.get("thread")).get("type") == "continue":
        raise UpstreamFailure(
            "the conversation is kept at another provider",
            kind=Kind.FORGOTTEN,
            provider_status=404,
            provider_message="this provider does not keep what the message goes on from; send the "
            'whole conversation with thread: {"type": "create"}, or without a thread',
            provider_code="thread_not_found",
        )
    adapter = importlib.import_module(ADAPTER)
    ear = ear_of(target)
    try:
        messages = messages_of(call.body, ear)
        fields, names = _parameters(adapter, target, call.body)
    except (Untranslatable, ValueError, LookupError, TypeError, AttributeError) as exc:
        # The adapter stumbles over what has another form than Anthropic's.
        told = str(exc) if isinstance(exc, Untranslatable) else None
        raise UpstreamFailure(
            "the request cannot be translated for this provider",
            kind=Kind.DIALECT,
            provider_message=told,
        ) from exc
    body = {**fields, "model": call.model, "messages": messages}
    if call.stream:
        body["stream"] = True
    asked = replace(call, surface=Surface.CHAT, body=body, wants_usage=True, headers={})
    return asked, names


@lru_cache(maxsize=TARGETS)
def ear_of(target: Target) -> Ear:
    """Return what the target understands beside OpenAI's own words."""
    adapter = importlib.import_module(ADAPTER)
    rules = adapter.LiteLLMAnthropicMessagesAdapter
    translated_for = target.provider not in NATIVE
    return Ear(
        caches=translated_for and rules.target_consumes_cache_control(_name(target)),
        thinks=translated_for,
        sees_results=translated_for,
        name=adapter.truncate_tool_name,
    )


def _parameters(
    adapter: ModuleType, target: Target, body: Json
) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Return everything but the messages as a chat has it. The adapter edits what it is given."""
    said = {n: v for n, v in body.items() if n not in ("messages", "system", "stream", "thread")}
    said = copy.deepcopy(said)
    tools = said.get("tools")
    if isinstance(tools, list):
        said["tools"] = [_tool(tool, target) for tool in tools]
    if _object(said.get("thinking")).get("type") == "disabled":
        del said["thinking"]  # as it is where nothing is said; models of OpenAI's refuse the word
    if said.get("service_tier") == "standard_only":
        said["service_tier"] = "default"
    choice = _object(said.get("tool_choice"))
    request = {**said, "model": _name(target), "messages": [{"role": "user", "content": "-"}]}
    translate = adapter.LiteLLMAnthropicMessagesAdapter().translate_anthropic_to_openai
    fields, names = translate(request, custom_llm_provider=target.provider)
    found = {name: value for name, value in fields.items() if value is not None}
    if choice.get("disable_parallel_tool_use") and tools:
        found["parallel_tool_calls"] = False
    effort = found.get("reasoning_effort") or _object(said.get("output_config")).get("effort")
    if effort and "thinking" not in found and "output_config" not in found:
        found["reasoning_effort"] = EFFORTS.get(effort, effort)
    user = found.get("user")
    if isinstance(user, str) and len(user) > LONGEST_USER:
        found["user"] = hashlib.sha256(user.encode(errors="replace")).hexdigest()
    if target.provider in CLOUDED and "max_tokens" in found:
        found["max_completion_tokens"] = found.pop("max_tokens")
    return found, names


def _tool(tool: Any, target: Target) -> Any:
    """Return a tool without what a chat's have no field for. Raises Untranslatable."""
    kind = str(tool.get("type") or "custom")
    if kind == "custom":
        return {name: value for name, value in tool.items() if name in TOOL_FIELDS}
    if target.provider in NATIVE and not kind.startswith("web_search"):
        raise Untranslatable(f"a chat has no word for a tool of type {kind[:60]!r}")
    return tool


def _name(target: Target) -> str:
    return f"{target.provider}/{target.model}"


def _origin(name: str, body: Json) -> str:
    return next((origin for origin in ORIGINS.get(name, ()) if origin in body), name)


def _streamed(
    chat: ChunkStream, names: Mapping[str, str], waiting: Waiting, dropped: Sequence[str]
) -> ChunkStream:
    """Return a chat's stream as one of Anthropic's; it is closed with it."""
    rest = _events(chat, Told(names))
    stream = ChunkStream([], rest, now=waiting.now, headers=chat.headers, dropped=dropped)
    owed = Owed()
    # A generator that nobody has begun to read closes nothing when it is closed.
    owed.push_async_callback(chat.aclose)
    return stream.owe(owed)


async def _events(chat: ChunkStream, told: Told) -> AsyncGenerator[Chunk, None]:
    async with aclosing(chat):
        async for chunk in chat:
            events = [each for event in chunk.events for each in told.feed(event)]
            if events:
                yield Chunk.of_events(events)
        # Only here: a chat that broke has raised, and must not look complete.
        yield Chunk.of_events(list(told.end()))


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}
