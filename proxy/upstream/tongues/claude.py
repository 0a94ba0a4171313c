"""Anthropic's wire format, for chats."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import orjson

from proxy.errors import UpstreamFailure
from proxy.facts import Habits
from proxy.grammar import GRAMMARS
from proxy.replies import EVENTS, Chunk, Completion, Source
from proxy.retry import Kind
from proxy.types import Json, Surface, Target
from proxy.upstream.address import ANTHROPIC_VERSION, VERSION
from proxy.upstream.events import DRAIN_S, payloads_of
from proxy.upstream.exchange import loaded
from proxy.upstream.fields import OURS, TARGETS, Words
from proxy.upstream.http import Answer
from proxy.upstream.tongues.claude_answer import completion_of
from proxy.upstream.tongues.claude_events import Telling
from proxy.upstream.tongues.claude_fields import THINKS, message_of
from proxy.upstream.tongues.claude_speech import Spoken
from proxy.upstream.tongues.unusual import Unusual

# The parameters of a chat that Anthropic has, as LiteLLM lists them.
KNOWN = frozenset(
    {
        "cache_control", "context_management", "extra_headers", "max_completion_tokens",
        "max_tokens", "parallel_tool_calls", "response_format", "speed", "stop", "stream",
        "temperature", "tool_choice", "tools", "top_p", "user", "web_search_options",
    }
)  # fmt: skip
THINKING = frozenset({"reasoning_effort", "thinking"})


class Claude:
    """Writes chats as messages, and reads the answers."""

    surface = Surface.MESSAGES
    headers: Mapping[str, str] = MappingProxyType({VERSION: ANTHROPIC_VERSION})

    def words(self, target: Target, body: Json) -> Words:
        """Return what the target understands of a chat. Raises Unusual where nobody knows."""
        habits = target.facts.habits
        if habits is None or (habits.max_output_tokens is None and body.keys() & THINKING):
            raise Unusual("a model that is not listed")
        return _words(target, habits)

    def write(self, target: Target, body: Json, *, stream: bool) -> Json:
        """Return the message that asks what `body` does. Raises Unusual."""
        habits = target.facts.habits
        if habits is None:
            raise Unusual("a model that is not listed")
        asked: dict[str, Any] = {"model": target.model, **message_of(body, habits)}
        return {**asked, "stream": True} if stream else asked

    def reading(self, target: Target, *, created_s: int) -> Heard:
        return Heard(target.model, created_s)


@lru_cache(maxsize=TARGETS)
def _words(target: Target, habits: Habits) -> Words:
    limit = target.info.get("max_output_tokens")
    return Words(
        known=(KNOWN | THINKING if habits.has & THINKS else KNOWN) | OURS - {"metadata"},
        metadata=False,
        others=False,
        limit_tokens=limit if isinstance(limit, int) else habits.max_output_tokens,
    )


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer of Anthropic's, told as a chat's."""

    model: str
    created_s: int

    def streams(self, answer: Answer) -> bool:
        return True

    def source(self, answer: Answer) -> tuple[Source, str]:
        return self._chunks(answer), EVENTS

    def whole(
        self, raw: bytes, answer: Answer, *, secrets: tuple[str, ...], **facts: Any
    ) -> Completion:
        message = loaded(raw, GRAMMARS[Surface.MESSAGES], secrets)
        try:
            body = completion_of(message, created_s=self.created_s)
        except (AttributeError, LookupError, TypeError, ValueError) as exc:
            raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT) from exc
        return Completion(orjson.dumps(body), body, **facts)

    async def _chunks(self, answer: Answer) -> AsyncGenerator[Chunk, None]:
        spoken = Spoken(Telling(self.model, created_s=self.created_s))
        async for payloads in payloads_of(answer):
            chunk, failure = spoken.chunk(payloads)
            if chunk is not None:
                yield chunk
            if failure is not None:
                raise failure
            if spoken.ended:
                await answer.drain(DRAIN_S)
                return
