"""
What LiteLLM cannot read in an answer, put right before it reads it.

Anthropic's usage is read without a look at what it is; an answer is worth more than its count.
"""

from __future__ import annotations

import orjson

from proxy.types import Json

MENDED = frozenset({"anthropic"})  # providers
UNKNOWN: Json = {"input_tokens": 0, "output_tokens": 0}


def mend_answer(body: bytes) -> bytes | None:
    """Return a whole answer with a usage that can be read, or None where it has one."""
    answer = _object(body)
    if answer is None or answer.get("type") != "message" or isinstance(answer.get("usage"), dict):
        return None
    return orjson.dumps({**answer, "usage": UNKNOWN})


def mend_event(data: bytes) -> bytes | None:
    """Return an event with a usage that can be read, or None where it has one, or has none."""
    if b'"message_start"' not in data and b'"message_delta"' not in data:
        return None
    event = _object(data) or {}
    message = event.get("message") if event.get("type") == "message_start" else event
    if not isinstance(message, dict) or isinstance(message.get("usage", UNKNOWN), dict):
        return None
    message["usage"] = UNKNOWN
    return orjson.dumps(event)


def _object(data: bytes) -> Json | None:
    try:
        value = orjson.loads(data)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
