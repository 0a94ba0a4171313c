"""
POST /ai/generate and /ai/stream: a chat, answered in a form of few words.

A whole answer is one flat object. A stream is a line for each piece, of which the last is
`content.done`; the `delta` of all lines together is the answer's content, so that what is not
content (reasoning, a refusal, calls of tools) stands in a field of its own beside an empty `delta`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy import sse
from proxy.aggregate import choices_of
from proxy.api.ai_request import streamed_of, whole_of
from proxy.api.exchange import ModelEndpoint
from proxy.api.form import Form
from proxy.api.render import error_body, error_message
from proxy.clock import Clock
from proxy.errors import ProxyError
from proxy.replies import Chunk, Completion
from proxy.types import Json, Surface, Tally

COMPLETED = "completed"
CALLS = "tool_calls"
# OpenAI's words for how an answer ended, and ours. Any other goes out as it is.
FINISHES: Mapping[str, str] = {"stop": COMPLETED, "function_call": CALLS}
LATENCY_DIGITS = 6


class Brief:
    """The form of one answer on `/ai/*`."""

    pulses = True

    def __init__(self, tally: Tally, clock: Clock) -> None:
        self._tally = tally
        self._clock = clock
        self._finish: str | None = None

    def whole(self, reply: Completion) -> tuple[bytes, str]:
        choice = _first(reply.body)
        message = _object(choice.get("message"))
        tally = self._tally
        raw = orjson.dumps(
            {
                "content": _content(message),
                "provider": self._provider,
                "model": reply.body.get("model"),
                "usage": self._usage(reply.body.get("usage")),
                "latency": round(self._clock.now() - tally.started_s, LATENCY_DIGITS),
                "request_id": tally.request_id,
                "finish_reason": _finish(choice),
                **dict(_beside(message)),
            }
        )
        return raw, "application/json"

    def events(self, chunk: Chunk) -> bytes:
        return b"".join(frame for event in chunk.events for frame in self._lines(_first(event)))

    def at_once(self, raw: bytes) -> bytes:
        return self.events(Chunk(raw.removesuffix(sse.DONE_FRAME))) + self.end()

    def end(self) -> bytes:
        return self._line("content.done", "", finish_reason=self._finish or COMPLETED)

    def broken(self, error: ProxyError) -> bytes:
        return sse.frame(orjson.dumps({"error": error_message(error)}))

    def failed(self, error: ProxyError) -> bytes:
        return error_body(error)

    @property
    def _provider(self) -> str:
        """The provider whose answer it is, also of one that was kept."""
        return self._tally.kept_of or self._tally.provider

    def _usage(self, told: object) -> Json | None:
        """Return the provider's count of tokens; ours where it told none."""
        ours = self._tally.usage
        if isinstance(told, Mapping) or ours is None:
            return told if isinstance(told, Mapping) else None
        prompt, completion = ours.prompt_tokens, ours.completion_tokens
        counts = {"prompt_tokens": prompt, "completion_tokens": completion}
        return {**counts, "total_tokens": prompt + completion}

    def _lines(self, choice: Json) -> Iterator[bytes]:
        delta = _object(choice.get("delta"))
        for name, said in _beside(delta):
            yield self._line(f"{name}.delta", "", **{name: said})
        if content := _content(delta):
            yield self._line("content.delta", content)
        self._finish = _finish(choice) or self._finish

    def _line(self, kind: str, delta: str, **more: object) -> bytes:
        fields = {"delta": delta, "type": kind, "provider": self._provider, "finish_reason": None}
        return sse.frame(orjson.dumps({**fields, **more}))


def brief(tally: Tally, clock: Clock) -> Form:
    return Brief(tally, clock)


generate = ModelEndpoint(Surface.AI, whole_of, brief)
stream = ModelEndpoint(Surface.AI, streamed_of, brief)


def _first(event: Json) -> Json:
    return next((choice for index, choice in choices_of(event) if index == 0), {})


def _finish(choice: Json) -> str | None:
    reason = choice.get("finish_reason")
    return FINISHES.get(reason, reason) if isinstance(reason, str) and reason else None


def _content(message: Json) -> str:
    return "".join(_parts(message.get("content"), "text"))


def _beside(message: Json) -> Iterator[tuple[str, Any]]:
    """Yield what a message, or a piece of one, says that is no content."""
    # Some providers send both names with the same text; Mistral thinks inside of the content.
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    thought = "".join((*_parts(reasoning, "text"), *_thoughts(message.get("content"))))
    if thought:
        yield "reasoning", thought
    if refusal := "".join(_parts(message.get("refusal"), "text")):
        yield "refusal", refusal
    if calls := message.get(CALLS):
        yield CALLS, calls
    elif called := message.get("function_call"):
        yield CALLS, [{"index": 0, "type": "function", "function": called}]


def _parts(value: object, field: str) -> Iterator[str]:
    """Yield a text, or the texts in a list of parts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            if isinstance(text := _object(part).get(field), str):
                yield text


def _thoughts(content: object) -> Iterator[str]:
    if isinstance(content, list):
        for part in content:
            yield from _parts(_object(part).get("thinking"), "text")


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}
