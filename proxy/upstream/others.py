"""LiteLLM's objects as OpenAI's JSON, on whichever surface they were asked for."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

from proxy.types import Call, Json, Surface
from proxy.upstream.normal import Thoughts, finish_of, normal_chunk, normal_completion, plain

ReadEvent: TypeAlias = Callable[[Any], Json]


def normal_answer(call: Call, answer: Any, *, counted: bool = True) -> Json:
    """Return what LiteLLM answered on the surface of `call`, as OpenAI writes it."""
    match call.surface:
        case Surface.CHAT:
            return normal_completion(answer, counted=counted)
        case Surface.COMPLETIONS:
            body = plain(answer, counted=counted)
            return {**body, "choices": [_written(each) for each in body.get("choices") or ()]}
        case Surface.EMBEDDINGS:
            body = plain(answer, counted=counted)
            data = [_vector(call.body, each) for each in body.get("data") or ()]
            return {**body, "object": "list", "data": data}
        case _:
            return plain(answer, counted=counted)


def reader_of(call: Call, *, counted: Callable[[], bool]) -> ReadEvent:
    """Return what turns each event of LiteLLM's, one after the other, into one of OpenAI's."""
    match call.surface:
        case Surface.CHAT:
            thoughts = Thoughts()

            def chat(chunk: Any) -> Json:
                event = normal_chunk(chunk, counted=counted())
                thoughts.number(event)
                return event

            return chat
        case _:
            return lambda chunk: _text_event(plain(chunk, counted=counted()))


def wrapped_in(stream: Any, call: Call) -> Any:
    """Return LiteLLM's stream of a chat that the one for another surface stands around."""
    match call.surface:
        case Surface.COMPLETIONS:
            return getattr(stream, "completion_stream", stream) if _is_text(stream) else stream
        case _:
            return stream


def _is_text(stream: Any) -> bool:
    return type(stream).__name__ == "TextCompletionStreamWrapper"


def _text_event(event: dict[str, Any]) -> Json:
    choices = [_written(choice) for choice in event.get("choices") or ()]
    nothing = not any(choice["text"] or choice["finish_reason"] for choice in choices)
    # OpenAI's usage chunk has no choice.
    return {**event, "choices": [] if event.get("usage") and nothing else choices}


def _written(choice: Json) -> Json:
    """Return a choice of an older completion with the fields that OpenAI requires."""
    return {
        "text": choice.get("text") or "",
        "index": choice.get("index", 0),
        "logprobs": choice.get("logprobs"),
        "finish_reason": finish_of(choice.get("finish_reason")),
    }


def _vector(body: Json, each: Json) -> Json:
    """Return a vector in the encoding that was asked for, whichever the provider knows."""
    vector = each.get("embedding")
    if body.get("encoding_format") == "base64":
        if isinstance(vector, list):
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    elif isinstance(vector, str):
        raw = base64.b64decode(vector)
        vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return {**each, "object": "embedding", "embedding": vector}
