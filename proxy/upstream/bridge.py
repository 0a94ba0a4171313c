"""
OpenAI's Responses from a target that has only chats: asked as a chat, by its lane for those.

A request becomes a chat's by LiteLLM's own translation; the chat goes the way that chats go, with
all that is watched there; its answer is told again as Responses. What a chat has no word for is
left out and named, and what would make it another question (a conversation, a prompt or an item
that is kept elsewhere) is refused.
"""

from __future__ import annotations

import copy
import importlib
import re
import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any, assert_never

import orjson

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.owed import Owed
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.types import Call, Json, Surface, Target
from proxy.upstream import Upstream, failures
from proxy.upstream.retell import Retelling, whole_of
from proxy.upstream.sdk import Sdk
from proxy.upstream.secrets import secrets_of
from proxy.waiting import Waiting

TRANSFORMATION = "litellm.responses.litellm_completion_transformation.transformation"
# What a chat has a place for, some of it under another name.
CARRIED = frozenset(
    {
        "input", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls",
        "reasoning", "safety_identifier", "service_tier", "stream", "stream_options", "temperature",
        "text", "tool_choice", "tools", "top_p", "user",
    }
)  # fmt: skip
# What says nothing to a target that keeps nothing, or what OpenAI assumes anyway.
UNSAID = frozenset({"include", "prompt_cache_key", "prompt_cache_retention", "store"})
ASSUMED: Mapping[str, Any] = {"background": False, "top_logprobs": 0, "truncation": "disabled"}
# What stands elsewhere, so that without it another question would be answered.
KEPT = ("previous_response_id", "conversation", "prompt")
TOOLS = frozenset({"custom", "function", "namespace", "web_search", "web_search_preview"})
CHOICES = frozenset({"allowed_tools", "auto", "custom", "function", "none", "required"})
# What LiteLLM's translation adds for itself.
NOT_OF_THE_BODY = frozenset(
    {"custom_llm_provider", "extra_headers", "model", "reasoning_summary", "stream_options"}
)
# What of a request a parameter of the chat was made from: the caller is told in its own words.
ORIGINS: Mapping[str, str] = {
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning",
    "response_format": "text",
    "verbosity": "text",
    "web_search_options": "tools",
}


OURS = re.compile(r"rs_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Bridge:
    """Calls targets by `chat`."""

    def __init__(self, chat: Upstream, sdk: Sdk, clock: Clock) -> None:
        self._chat = chat
        self._sdk = sdk
        self._clock = clock

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        litellm = await self._sdk.ready()
        chat, left_out = chat_of(litellm, target, call)
        reply = await self._chat.call(target, chat, foreign=foreign, waiting=waiting)
        said = (ORIGINS.get(name, name) for name in reply.dropped)
        dropped = tuple(dict.fromkeys((*said, *left_out)))
        now_s = self._clock.wall()
        told: Reply
        match reply:
            case Completion():
                with _readable(Kind.TRANSIENT):
                    body = whole_of(reply.body, call.body, _named, now_s=now_s)
                told = Completion(orjson.dumps(body), body, headers=reply.headers, dropped=dropped)
            case ChunkStream():
                telling = Retelling(call.body, _named, now_s=now_s)
                told = _streamed(reply, telling, waiting, dropped)
            case _:
                assert_never(reply)
        told.leeways = reply.leeways
        return told


def chat_of(litellm: ModuleType, target: Target, call: Call) -> tuple[Call, tuple[str, ...]]:
    """
    Return the chat that asks the same, and which parameters it has no word for.

    Raises UpstreamFailure where it would not be the same.
    """
    body = {name: value for name, value in call.body.items() if value is not None}
    _check(body)
    left_out = tuple(dict.fromkeys(_left_out(body)))
    if left_out and target.drop_params is False:
        message = f"a chat has no word for `{left_out[0]}`"
        raise UpstreamFailure(message, kind=Kind.DIALECT, param=left_out[0])
    chat = _translated(target, body)
    if _takes_new_bound(target) and "max_tokens" in chat:
        chat["max_completion_tokens"] = chat.pop("max_tokens")
    asked = {**chat, "model": call.model}
    return replace(call, surface=Surface.CHAT, body=asked, wants_usage=True), left_out


def _check(body: Json) -> None:
    """Return when all that is asked stands in the body. Raises UpstreamFailure."""
    for name in KEPT:
        if body.get(name):
            message = f"`{name}` names what this provider does not keep"
            raise UpstreamFailure(message, kind=Kind.DIALECT, param=name)
    if body.get("background"):
        message = "this provider answers at once or not at all"
        raise UpstreamFailure(message, kind=Kind.DIALECT, param="background")
    if not isinstance(body.get("tools", []), list):
        raise UpstreamFailure("`tools` must be a list", kind=Kind.DIALECT, param="tools")
    items = body.get("input")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, Mapping) and item.get("type") == "item_reference":
            message = "an item_reference names what this provider does not keep"
            raise UpstreamFailure(message, kind=Kind.DIALECT, param="input")


def _translated(target: Target, body: Json) -> dict[str, Any]:
    """Return the chat's body, by LiteLLM; it edits what it is given."""
    transformation = importlib.import_module(TRANSFORMATION).LiteLLMCompletionResponsesConfig
    given = copy.deepcopy({name: body[name] for name in CARRIED & body.keys()})
    given["tools"] = [tool for tool in given.get("tools", ()) if _has_word(tool)]
    if not _is_choice(given.get("tool_choice")):
        given.pop("tool_choice", None)
    try:
        chat = transformation.transform_responses_api_request_to_chat_completion_request(
            model=target.model,
            input=given.pop("input", ""),
            responses_api_request=given,
            custom_llm_provider=target.provider,
            stream=given.get("stream"),
            metadata=given.get("metadata"),
            service_tier=given.get("service_tier"),
        )
        plain: Json = orjson.loads(orjson.dumps(chat, default=_dumped))
    except Exception as exc:
        raise failures.of_writing(exc, secrets=secrets_of(target)) from exc
    return {name: value for name, value in plain.items() if name not in NOT_OF_THE_BODY}


def _dumped(model: Any) -> Any:
    return model.model_dump(exclude_none=True)


def _takes_new_bound(target: Target) -> bool:
    """Say whether it is OpenAI itself, whose newer models take no `max_tokens`."""
    home = target.provider == "openai" and not target.params.get("api_base")
    return home or target.provider == "azure"


def _left_out(body: Json) -> Iterator[str]:
    for name, value in body.items():
        if name in CARRIED or name in UNSAID:
            continue
        if name not in ASSUMED or value != ASSUMED[name]:
            yield name
    if not all(map(_has_word, body.get("tools", ()))):
        yield "tools"
    if not _is_choice(body.get("tool_choice")):
        yield "tool_choice"


def _has_word(tool: Any) -> bool:
    return isinstance(tool, Mapping) and tool.get("type") in TOOLS


def _is_choice(choice: Any) -> bool:
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    return kind is None or (isinstance(kind, str) and kind in CHOICES)


def _streamed(
    chat: ChunkStream, telling: Retelling, waiting: Waiting, dropped: tuple[str, ...]
) -> ChunkStream:
    """Return a chat's stream as one of Responses; it is closed with it."""
    rest = _events(chat, telling)
    stream = ChunkStream((), rest, now=waiting.now, headers=chat.headers, dropped=dropped)
    owed = Owed()
    # A generator that nobody has begun to read closes nothing when it is closed.
    owed.push_async_callback(chat.aclose)
    return stream.owe(owed)


async def _events(chat: ChunkStream, telling: Retelling) -> AsyncGenerator[Chunk, None]:
    async with aclosing(chat):
        async for chunk in chat:
            with _readable(Kind.BROKEN):
                told = [event for each in chunk.events for event in telling.tell(each)]
            if told:
                yield Chunk.of_events(told)
        # Only here: a chat that broke has raised, and must not look complete.
        yield Chunk.of_events(telling.end())


@contextmanager
def _readable(kind: Kind) -> Iterator[None]:
    """Raise UpstreamFailure for what of an answer has another form than a chat's."""
    try:
        yield
    except failures.STUMBLES as exc:
        raise UpstreamFailure("the answer cannot be read", kind=kind, tokens_spent=True) from exc


def _named(prefix: str) -> str:
    """Return a new name; that of thoughts is of the form by which `is_ours` knows them again."""
    return f"{prefix}{uuid.uuid4() if prefix == 'rs_' else uuid.uuid4().hex}"


def is_ours(item: object) -> bool:
    """Say whether an item of a request is thoughts that were told here, which OpenAI refuses."""
    if not isinstance(item, Mapping) or item.get("type") != "reasoning":
        return False
    name = item.get("id")
    return isinstance(name, str) and OURS.fullmatch(name) is not None
