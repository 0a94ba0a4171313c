"""
The events of a message of Anthropic's as those of a chat, told as LiteLLM tells them.

Nothing is made up: where the message has no stop reason, the chat has no finish reason. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proxy.types import Json
from proxy.upstream.tongues.claude_answer import FINISHES, usage_of

CONTENT = frozenset({"content_block_start", "content_block_delta", "content_block_stop"})
COUNTS = frozenset({"input_tokens", "output_tokens"})


class Telling:
    """Turns the events of one stream, one after the other, into those of a chat."""

    def __init__(self, model: str, *, created_s: int) -> None:
        self._head: dict[str, Any] = {
            "id": "",
            "object": "chat.completion.chunk",
            "created": created_s,
            "model": model,
        }
        self._usage: dict[str, Any] = {}
        self._counted = False
        self._calls = -1  # the number of the call under way
        self._calling = False
        self._arguments: str | None = None  # of that call, once there is a piece of them
        self._thoughts = 0  # that have ended
        self._thought = False
        self.begun = False
        self._stopping = False  # the end has been announced, with a reason or without
        self.finished = False
        self.ended = False
        self._steps: Mapping[object, Callable[[Json], Iterator[Json]]] = {
            "message_start": self._start,
            "content_block_start": self._open,
            "content_block_delta": self._extend,
            "content_block_stop": self._close,
            "message_delta": self._end,
            "message_stop": self._stop,
            "error": self._break,
        }

    def feed(self, event: Json) -> Iterator[Json]:
        """Yield what `event` brings. Raises LookupError or TypeError where it cannot be read."""
        kind = event.get("type")
        step = self._steps.get(kind)
        # After a reason to stop nothing belongs to the message but its end.
        if step is not None and not (self.finished and kind in CONTENT):
            yield from step(event)

    def _start(self, event: Json) -> Iterator[Json]:
        message = event["message"]
        self._head |= {n: message[n] for n in ("id", "model") if isinstance(message.get(n), str)}
        self._count(message.get("usage"))
        yield from ()

    def _open(self, event: Json) -> Iterator[Json]:
        block = event["content_block"]
        kind = block["type"]
        self._calling = kind == "tool_use"
        if kind == "text" and block["text"]:
            yield self.say(block["text"])
        elif kind == "redacted_thinking":
            yield self._think({"type": kind, "data": block["data"]}, None, ends=True)
        elif self._calling:
            self._calls += 1
            self._arguments = None
            yield self._call({"name": block["name"], "arguments": ""}, {"id": block["id"]})

    def _extend(self, event: Json) -> Iterator[Json]:
        delta = event["delta"]
        if text := delta.get("text"):
            yield self.say(text)
        elif (piece := delta.get("partial_json")) is not None and self._calling:
            self._arguments = (self._arguments or "") + piece
            yield self._call({"arguments": piece}, {})
        elif thought := delta.get("thinking"):
            block = {"type": "thinking", "thinking": thought}
            yield self._think(block, thought, ends=False)
        elif sign := delta.get("signature"):
            block = {"type": "thinking", "thinking": "", "signature": sign}
            yield self._think(block, "", ends=True)

    def _close(self, event: Json) -> Iterator[Json]:
        if self._calling and self._arguments == "":
            yield self._call({"arguments": "{}"}, {})  # else they would be no JSON
        self._calling = False

    def _end(self, event: Json) -> Iterator[Json]:
        self._count(event.get("usage"))
        reason = event["delta"].get("stop_reason")
        self._stopping = True
        if reason is not None:
            yield from self._finish(FINISHES.get(reason, "stop"))

    def _stop(self, event: Json) -> Iterator[Json]:
        self.ended = True
        if self._stopping:
            yield from self._finish("stop")

    def _finish(self, reason: str) -> Iterator[Json]:
        if self.finished:
            return
        self.finished = True
        yield self._event({}, reason)
        if self._counted:
            usage = {**usage_of(self._usage, thought=self._thought)}
            # LiteLLM tells it of a whole answer only.
            usage.pop("service_tier", None)
            yield {**self._head, "choices": [], "usage": usage}

    def _break(self, event: Json) -> Iterator[Json]:
        # The provider's own words, which a chat's event has in the same place.
        yield {"error": event.get("error") or {"message": None}}

    def _count(self, usage: Any) -> None:
        """Take in counts: each says what has come together so far, and may leave some out."""
        if isinstance(usage, dict):
            self._counted = self._counted or bool(usage.keys() & COUNTS)
            self._usage |= usage

    def say(self, text: str) -> Json:
        """Return the event of a piece of text."""
        return self._event({"content": text}, None)

    def _call(self, function: Json, more: Json) -> Json:
        call = {**more, "function": function, "type": "function", "index": self._calls}
        return self._event({"content": "", "tool_calls": [call]}, None)

    def _think(self, block: Json, text: str | None, *, ends: bool) -> Json:
        self._thought = True
        told = {"content": "", "thinking_blocks": [{**block, "index": self._thoughts}]}
        self._thoughts += ends
        return self._event(told if text is None else {**told, "reasoning_content": text}, None)

    def _event(self, delta: Json, finish: str | None) -> Json:
        if not self.begun and finish is None:
            delta = {**delta, "role": "assistant"}
        self.begun = True
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head, "choices": [choice]}
