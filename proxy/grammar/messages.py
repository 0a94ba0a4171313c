"""Anthropic's messages: blocks of content, in a stream with a start, deltas and a stop each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from proxy.types import Json, Usage
from proxy.usage import usage_of_message

# The deltas of a block, the field of the block that each adds to, and what it is called in both.
DELTAS: Mapping[str, str] = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
}
INPUT = "input_json_delta"
CITATION = "citations_delta"
# What of a block's own fields its deltas bring, and what it holds of them when it starts.
PIECES: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "thinking": ("thinking", "signature"),
}
_TEXTS = ("text", "thinking", "partial_json")
# Why a message ends, in OpenAI's words, which are those of the file.
REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}


class Messages:
    done = b""
    named = True

    def begins(self, event: Json) -> bool:
        match event.get("type"):
            case "content_block_delta":
                return True
            case "content_block_start":
                # A text or a thought begins empty; of anything else the start says what it is.
                return _object(event.get("content_block")).get("type") not in PIECES
            case _:
                return any(ended for _, ended in self.endings(event))

    def endings(self, event: Json) -> Iterator[tuple[int, bool]]:
        match event.get("type"):
            case "message_start":
                yield 0, False
            case "message_delta":
                yield 0, bool(_object(event.get("delta")).get("stop_reason"))
            case "message_stop":
                yield 0, True
            case _:
                pass

    def failure(self, event: Json) -> Json | None:
        return event if event.get("type") == "error" or event.get("error") else None

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        told = said.get("message") if said.get("type") == "message_start" else said
        return usage_of_message(_object(told).get("usage"), before)

    def reports(self, event: Json) -> bool:
        return event.get("type") == "message_delta" and bool(event.get("usage"))

    def only_usage(self, event: Json) -> bool:
        return False

    def text_bytes(self, event: Json) -> int:
        if event.get("type") != "content_block_delta":
            return 0
        return _bytes(_object(event.get("delta")))

    def said_bytes(self, body: Json) -> int:
        return sum(
            _bytes(block) + (len(orjson.dumps(block["input"])) if "input" in block else 0)
            for block in _blocks(body)
        )

    def answers(self, body: object) -> bool:
        return isinstance(body, dict) and isinstance(body.get("content"), list)

    def whole(self, events: Iterable[Json]) -> Json:
        message = _Message()
        for event in events:
            message.add(event)
        return message.whole()

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        return list(events_of(body))

    def reasons(self, said: Iterable[Json]) -> list[object]:
        events = list(said)
        kinds = {event.get("type") for event in events}
        if "message_start" in kinds and "message_stop" not in kinds:
            return []  # all of it was said, but nobody can be given a stream without its end
        found = [each.get("stop_reason") or _object(each.get("delta")).get("stop_reason")
                 for each in events]  # fmt: skip
        return [REASONS.get(reason, reason) for reason in found if isinstance(reason, str)]


def events_of(body: Json) -> Iterator[Json]:
    """Yield the events of a stream that a whole message would have been."""
    ends = {name: body.get(name) for name in ("stop_reason", "stop_sequence")}
    usage = _object(body.get("usage"))
    beginning = {**body, "content": [], **dict.fromkeys(ends), "usage": {**usage}}
    if "output_tokens" in usage:
        beginning["usage"]["output_tokens"] = 0
    yield {"type": "message_start", "message": beginning}
    for index, block in enumerate(_blocks(body)):
        start, deltas = _apart(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {"type": "message_delta", "delta": ends, "usage": usage}
    yield {"type": "message_stop"}


def _apart(block: Json) -> tuple[Json, list[Json]]:
    """Return a block as it starts, and the deltas that bring the rest of it."""
    kind = str(block.get("type"))
    if kind.endswith("tool_use") and "input" in block:
        text = orjson.dumps(block["input"]).decode()
        return {**block, "input": {}}, [{"type": INPUT, "partial_json": text}]
    names = PIECES.get(kind, ())
    deltas: list[Json] = [
        {"type": delta, name: block[name]}
        for delta, name in DELTAS.items()
        if name in names and block.get(name)
    ]
    if kind == "text":
        cited = block.get("citations") or ()
        deltas += [{"type": CITATION, "citation": each} for each in cited]
    start = {name: "" if name in names else value for name, value in block.items()}
    return {name: value for name, value in start.items() if name != "citations"}, deltas


class _Message:
    """A message that is put together from its events, as Anthropic's SDK does it."""

    def __init__(self) -> None:
        self._message: dict[str, Any] | None = None
        self._blocks: list[dict[str, Any]] = []
        self._inputs: dict[int, str] = {}
        self._steps: Mapping[str, Callable[[Json], None]] = {
            "message_start": self._start,
            "content_block_start": self._open,
            "content_block_delta": self._extend,
            "message_delta": self._end,
        }

    def add(self, event: Json) -> None:
        """Take in one event. Raises ValueError where it does not fit."""
        step = self._steps.get(str(event.get("type")))
        if step is not None:
            if self._message is None and event.get("type") != "message_start":
                raise ValueError("an event stands before the start of its message")
            step(event)

    def whole(self) -> Json:
        if self._message is None:
            raise ValueError("there is no message")
        for index, text in self._inputs.items():
            self._blocks[index]["input"] = orjson.loads(text) if text else {}
        return {**self._message, "content": self._blocks}

    def _start(self, event: Json) -> None:
        self._message = {**_object(event.get("message"))}

    def _open(self, event: Json) -> None:
        if event.get("index") != len(self._blocks):
            raise ValueError("a block is out of its order")
        self._blocks.append({**_object(event.get("content_block"))})

    def _extend(self, event: Json) -> None:
        index, delta = event.get("index"), _object(event.get("delta"))
        if not isinstance(index, int) or not 0 <= index < len(self._blocks):
            raise ValueError("a delta belongs to no block")
        block, kind = self._blocks[index], str(delta.get("type"))
        if kind == INPUT:
            self._inputs[index] = self._inputs.get(index, "") + str(delta.get("partial_json"))
        elif kind == CITATION:
            block["citations"] = [*(block.get("citations") or ()), delta.get("citation")]
        elif name := DELTAS.get(kind):
            block[name] = (block.get(name) or "") + str(delta.get(name))

    def _end(self, event: Json) -> None:
        message = self._message
        if message is not None:
            message |= _object(event.get("delta"))
            told = {n: v for n, v in _object(event.get("usage")).items() if v is not None}
            message["usage"] = {**_object(message.get("usage")), **told}


def _blocks(body: Json) -> list[Json]:
    content = body.get("content")
    blocks = content if isinstance(content, list) else ()
    return [block for block in blocks if isinstance(block, Mapping)]


def _bytes(said: Json) -> int:
    texts = (said.get(name) for name in _TEXTS)
    return sum(len(text.encode(errors="replace")) for text in texts if isinstance(text, str))


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}
