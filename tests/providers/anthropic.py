"""A fake Anthropic on a real socket."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from tests.providers.anthropic_errors import envelope
from tests.providers.dialect import Ask, Piece, counted, joined, pieces
from tests.providers.server import FakeProvider
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json
from tests.providers.wire import Request

_PATH = re.compile(r"^(/v1)?/(?P<endpoint>messages|messages/count_tokens|models)$")
_MODELS = ("claude-opus-4-6", "claude-sonnet-4-6")
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_SIGNATURE = "RmFrZVNpZ25hdHVyZQ=="
_RESET = "2026-11-22T12:00:00Z"


class Anthropic:
    """Anthropic's wire format: messages, their tokens counted, and the list of models."""

    base_path = ""

    def read(self, number: int, request: Request, created: int) -> Ask | None:
        if (found := _PATH.match(request.path)) is None:
            return None
        body = request.json
        model = body.get("model")
        return Ask(
            number=number,
            request=request,
            endpoint=found["endpoint"],
            model=model if isinstance(model, str) else None,
            streams=body.get("stream") is True,
            created=created,
        )

    def fixed(self, ask: Ask) -> Json | None:
        match ask.endpoint:
            case "models":
                models = [_model(name) for name in _MODELS]
                ends = {"first_id": _MODELS[0], "last_id": _MODELS[-1]}
                return {"data": models, "has_more": False, **ends}
            case "messages/count_tokens":
                return {"input_tokens": len(ask.request.body) // 4}
            case _:
                return None

    def whole(self, ask: Ask, answer: Answer) -> Json:
        said = pieces(answer)
        content = [_block(ask, answer, some, filled=True) for some in _blocks(said)]
        return {
            **_message(ask),
            "content": content,
            "stop_reason": _stop_reason(answer),
            **_usage(ask, answer),
        }

    def events(self, ask: Ask, answer: Answer) -> Iterator[Event]:
        beginning = {**_message(ask), **_usage(ask, answer, output=1)}
        yield _event("open", "message_start", message=beginning)
        for index, block in enumerate(_blocks(pieces(answer))):
            yield from _block_events(ask, answer, index, block)
        delta = {"stop_reason": _stop_reason(answer), "stop_sequence": None}
        yield _event("finish", "message_delta", delta=delta, **_usage(ask, answer))
        yield _event("done", "message_stop")

    def error(self, status: int, ask: Ask | None) -> Json:
        return envelope(status, model=ask.model if ask else None)

    def error_event(self, error: Any) -> Event:
        return Event("done", envelope(529, model=None) if error is None else error, "error")

    def headers(self, number: int) -> dict[str, str]:
        limits = {"requests": 4000, "tokens": 500000, "input-tokens": 400000}
        limits["output-tokens"] = 100000
        headers = {
            "request-id": f"req_{number:024x}",
            "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
        }
        for name, limit in limits.items():
            headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
            headers[f"anthropic-ratelimit-{name}-remaining"] = str(limit - 1)
            headers[f"anthropic-ratelimit-{name}-reset"] = _RESET
        return headers


class FakeAnthropic(FakeProvider):
    """A provider at `base_url` that speaks Anthropic's wire format."""

    def __init__(self, *, send_buffer_bytes: int | None = None) -> None:
        super().__init__(Anthropic(), send_buffer_bytes=send_buffer_bytes)


def _event(kind: Any, name: str, tokens: tuple[int, ...] = (), **body: Any) -> Event:
    return Event(kind, {"type": name, **body}, name, tokens)


def _block_events(ask: Ask, answer: Answer, index: int, block: list[Piece]) -> Iterable[Event]:
    kind = block[0].kind
    opens = "open" if index == 0 and kind != "tool" else "content"
    start = _block(ask, answer, block, filled=False)
    yield _event(opens, "content_block_start", index=index, content_block=start)
    if index == 0:
        yield _event(opens, "ping")
    if kind == "tool":
        nothing = {"type": "input_json_delta", "partial_json": ""}
        yield _event("content", "content_block_delta", index=index, delta=nothing)
    for piece in block:
        delta = _delta(piece)
        yield _event("content", "content_block_delta", (piece.number,), index=index, delta=delta)
    if kind == "reasoning":
        signed = {"type": "signature_delta", "signature": _SIGNATURE}
        yield _event("content", "content_block_delta", index=index, delta=signed)
    yield _event("content", "content_block_stop", index=index)


def _blocks(said: list[Piece]) -> list[list[Piece]]:
    return [list(block) for _, block in groupby(said, key=lambda piece: (piece.kind, piece.tool))]


def _block(ask: Ask, answer: Answer, said: list[Piece], *, filled: bool) -> Json:
    kind, tool = said[0].kind, said[0].tool
    text = joined(said, kind, tool) if filled else ""
    match kind:
        case "reasoning":
            signature = _SIGNATURE if filled else ""
            return {"type": "thinking", "thinking": text, "signature": signature}
        case "tool":
            call = answer.tool_calls[tool]
            return {
                "type": "tool_use",
                "id": call.id or f"toolu_fake{ask.number:04d}{tool:04d}",
                "name": call.name,
                "input": json.loads(text) if filled else {},
            }
        case "text" | "refusal":
            return {"type": "text", "text": text}


def _delta(piece: Piece) -> Json:
    match piece.kind:
        case "reasoning":
            return {"type": "thinking_delta", "thinking": piece.text}
        case "tool":
            return {"type": "input_json_delta", "partial_json": piece.text}
        case "text" | "refusal":
            return {"type": "text_delta", "text": piece.text}


def _message(ask: Ask) -> Json:
    return {
        "id": f"msg_fake{ask.number:06d}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _stop_reason(answer: Answer) -> str:
    if answer.finish is not None:
        return _STOPS.get(answer.finish, answer.finish)
    if answer.refusal is not None:
        return "refusal"
    return "tool_use" if answer.tool_calls else "end_turn"


def _usage(ask: Ask, answer: Answer, output: int | None = None) -> Json:
    if answer.usage is MISSING:
        return {}
    if (usage := counted(ask, answer)) is None:
        return {"usage": answer.usage}
    return {
        "usage": {
            "input_tokens": usage.prompt - usage.cached,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": usage.cached,
            "output_tokens": usage.completion if output is None else output,
        }
    }


def _model(name: str) -> Json:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2025-09-29T00:00:00Z"}
