"""
A chat's answer as a message of Anthropic's, whole or event by event. Pure.

In a stream of Anthropic's one block is open at a time and none is opened twice, while a chat may
bring pieces of several calls in any order. So a block that was begun while another is unfinished
waits: nothing is lost and nothing is out of its order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Json, Usage
from proxy.usage import usage_of

FINISHES: Mapping[str, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
NO_USAGE: Json = {"input_tokens": 0, "output_tokens": 0}  # nobody has counted, or not yet
_ID = re.compile(r"^(?:chatcmpl-|msg_)+")


class Told:
    """What a stream has told so far. `names` are those of tools that had to be shortened."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names
        self._started = False
        self._number = 0  # of the block that is open, or of the next one
        self._open = False
        self._blocks: list[_Block] = []  # the first of them is told, the others wait
        self._finish: str | None = None
        self._refused = False
        self._called = False
        self._usage: Usage | None = None

    def feed(self, event: Json) -> Iterator[Json]:
        """Yield what an event of a chat comes to. Raises UpstreamFailure where it has no place."""
        if not self._started:
            self._started = True
            yield {"type": "message_start", "message": {**_head(event), "usage": NO_USAGE}}
        self._usage = (usage_of(event) if event.get("usage") else None) or self._usage
        for choice in _objects(event.get("choices")):
            if choice.get("index", 0) == 0:
                self._hear(_object(choice.get("delta")))
                self._finish = choice.get("finish_reason") or self._finish
        yield from self._tell()

    def end(self) -> Iterator[Json]:
        """Yield what ends the message."""
        yield from self._tell(whole=True)
        delta = {
            "stop_reason": reason_of(self._finish, called=self._called, refused=self._refused),
            "stop_sequence": None,
        }
        yield {"type": "message_delta", "delta": delta, "usage": said_of(self._usage)}
        yield {"type": "message_stop"}

    def _hear(self, delta: Json) -> None:
        thoughts = _objects(delta.get("thinking_blocks"))
        for thought in thoughts:
            self._think(thought)
        if not thoughts and (text := _thought(delta)):
            self._last("thinking").add("thinking_delta", "thinking", text)
        for name in ("content", "refusal"):
            if text := _said(delta.get(name)):
                self._refused = self._refused or name == "refusal"
                self._last("text").add("text_delta", "text", text)
        for piece in _objects(delta.get("tool_calls")):
            self._call(piece)

    def _think(self, thought: Json) -> None:
        if thought.get("type") == "redacted_thinking":
            start: dict[str, Any] = {"type": "redacted_thinking", "data": thought.get("data")}
            self._blocks.append(_Block("redacted_thinking", start))
            return
        block = self._last("thinking")
        if text := thought.get("thinking"):
            block.add("thinking_delta", "thinking", str(text))
        if signature := thought.get("signature"):
            block.add("signature_delta", "signature", str(signature))
            block.signed = True

    def _call(self, piece: Json) -> None:
        self._called = True
        function = _object(piece.get("function"))
        id, name = piece.get("id"), function.get("name")
        block = self._find(piece.get("index"), id)
        if block is None:
            if not id and not name:
                if str(function.get("arguments") or "").strip():
                    raise _broken("a piece of a tool's call belongs to none that is open")
                return
            start: dict[str, Any] = {"type": "tool_use", "id": id, "name": "", "input": {}}
            block = _Block("tool_use", start, index=piece.get("index"))
            self._blocks.append(block)
        block.start["id"] = block.start["id"] or id
        block.called += str(name or "") if block.called != name else ""
        block.start["name"] = self._names.get(block.called, block.called)
        if text := function.get("arguments"):
            block.add("input_json_delta", "partial_json", str(text))

    def _find(self, index: object, id: object) -> _Block | None:
        """Return the call that is not finished under this index, or the last where there is none.

        Some providers number every call with 0: another id makes another call.
        """
        for block in reversed(self._blocks):
            if block.kind == "tool_use" and index in (None, block.index):
                return block if id in (None, "", block.start["id"]) else None
        return None

    def _last(self, kind: str) -> _Block:
        if not self._blocks or self._blocks[-1].kind != kind or self._blocks[-1].signed:
            start: dict[str, Any] = {"type": "text", "text": ""}
            if kind == "thinking":
                start = {"type": "thinking", "thinking": "", "signature": ""}
            self._blocks.append(_Block(kind, start))
        return self._blocks[-1]

    def _tell(self, *, whole: bool = False) -> Iterator[Json]:
        while self._blocks:
            block = self._blocks[0]
            if not self._open:
                if block.kind == "tool_use" and not block.called and not whole:
                    return
                yield self._event("start", content_block={**block.start})
                self._open = True
            for delta in block.untold:
                yield self._event("delta", delta=delta)
            block.untold = []
            # The last may go on: only what follows it, or the end, ends it.
            if not whole and (len(self._blocks) == 1 or not block.complete):
                return
            yield self._event("stop")
            self._open = False
            self._number += 1
            del self._blocks[0]

    def _event(self, what: str, **fields: Any) -> Json:
        return {"type": f"content_block_{what}", "index": self._number, **fields}


class _Block:
    """One block: how it starts, and what of it has not been told."""

    def __init__(self, kind: str, start: dict[str, Any], index: object = None) -> None:
        self.kind = kind
        self.start = start
        self.index = index
        self.called = ""  # the name of a tool, as the provider has it
        self.signed = False
        self.untold: list[Json] = []
        self._input = ""

    def add(self, kind: str, field: str, text: str) -> None:
        self.untold.append({"type": kind, field: text})
        if self.kind == "tool_use":
            self._input += text

    @property
    def complete(self) -> bool:
        """Nothing can follow: the input of a tool is a JSON object, and that ends once."""
        return self.kind != "tool_use" or _input_of(self._input) is not None


def message_of(body: Json, names: Mapping[str, str]) -> Json:
    """Return a whole answer of a chat as a message. Raises UpstreamFailure."""
    choice = next(iter(_objects(body.get("choices"))), None)
    if choice is None:
        raise UpstreamFailure("the answer has no choice", kind=Kind.TRANSIENT, tokens_spent=True)
    message = _object(choice.get("message"))
    finish = choice.get("finish_reason")
    calls = _objects(message.get("tool_calls"))
    content = [*_thoughts(message), *_texts(message)]
    content += [_use(call, names, cut=finish == "length") for call in calls]
    reason = reason_of(finish, called=bool(calls), refused=bool(message.get("refusal")))
    ends = {"stop_reason": reason, "stop_sequence": None}
    return {**_head(body), "content": content, **ends, "usage": said_of(usage_of(body))}


def reason_of(finish: str | None, *, called: bool, refused: bool) -> str:
    """Return Anthropic's word for why an answer ended."""
    reason = FINISHES.get(finish or "stop", "end_turn")
    if reason == "end_turn" and (called or refused):
        # A call that the caller demanded ends with OpenAI's `stop`.
        return "tool_use" if called else "refusal"
    return reason


def said_of(usage: Usage | None) -> Json:
    """Return tokens as Anthropic reports them: what was cached is no part of the input."""
    if usage is None:
        return NO_USAGE
    fresh = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    said: dict[str, Any] = {
        "input_tokens": max(0, fresh),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if usage.cache_write_1h_tokens:
        hour = usage.cache_write_1h_tokens
        rest = usage.cache_write_tokens - hour
        said["cache_creation"] = {
            "ephemeral_1h_input_tokens": hour,
            "ephemeral_5m_input_tokens": max(0, rest),
        }
    if usage.reasoning_tokens:
        said["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return said


def _head(body: Json) -> Json:
    return {
        "id": f"msg_{_ID.sub('', str(body.get('id') or ''))}",
        "type": "message",
        "role": "assistant",
        "model": str(body.get("model") or ""),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _thoughts(message: Json) -> Iterator[Json]:
    blocks = _objects(message.get("thinking_blocks"))
    for block in blocks:
        if block.get("type") == "redacted_thinking":
            yield {"type": "redacted_thinking", "data": block.get("data")}
        else:
            said = {name: str(block.get(name) or "") for name in ("thinking", "signature")}
            yield {"type": "thinking", **said}
    if not blocks and (text := _thought(message)):
        yield {"type": "thinking", "thinking": text, "signature": ""}


def _texts(message: Json) -> Iterator[Json]:
    for name in ("content", "refusal"):
        if text := _said(message.get(name)):
            yield {"type": "text", "text": text}


def _use(call: Json, names: Mapping[str, str], *, cut: bool) -> Json:
    function = _object(call.get("function"))
    name, given = str(function.get("name") or ""), function.get("arguments")
    found = {} if not given else _input_of(str(given))
    if found is None and not cut:
        raise UpstreamFailure(
            "the input of a tool's call is no JSON object",
            kind=Kind.TRANSIENT,
            tokens_spent=True,
        )
    use = {"type": "tool_use", "id": call.get("id"), "name": names.get(name, name)}
    return {**use, "input": found or {}}


def _input_of(text: str) -> Json | None:
    try:
        found = orjson.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _thought(said: Json) -> str:
    return _said(said.get("reasoning_content") or said.get("reasoning"))


def _said(value: object) -> str:
    """Return a text, or the texts in a list of parts."""
    if isinstance(value, str):
        return value
    return "".join(str(part.get("text") or "") for part in _objects(value))


def _broken(message: str) -> UpstreamFailure:
    return UpstreamFailure(message, kind=Kind.BROKEN)


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}


def _objects(value: object) -> list[Json]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
