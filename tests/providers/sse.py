"""Server-sent events, in every spelling the specification allows.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tests.providers.steps import SseStyle

EventKind: TypeAlias = Literal["open", "content", "finish", "usage", "done"]


@dataclass(frozen=True, slots=True)
class Event:
    """One event of an answer; `tokens` are the numbers of the tokens it completes."""

    kind: EventKind
    data: Any  # JSON, a str that is sent as it is, or bytes that are sent bare
    name: str | None = None
    tokens: tuple[int, ...] = ()


def encode(event: Event, style: SseStyle, *, first: bool) -> bytes:
    """The event's bytes."""
    if isinstance(event.data, bytes):
        return event.data
    text = event.data if isinstance(event.data, str) else _json(event.data, style)
    lines = [": a comment"] if style.comments else []
    if style.extras:
        lines += ["id: 7", "retry: 1000", "mood: good"]
    if event.name is not None:
        lines.append(_field("event", event.name, style))
    lines += [_field("data", line, style) for line in text.split("\n")]
    spelt = style.newline.join([*lines, "", ""])
    return ("\ufeff" if style.bom and first else "").encode() + spelt.encode()


def comment(style: SseStyle) -> bytes:
    """A comment on its own, as providers send to keep a connection alive."""
    return f": keep-alive{style.newline}{style.newline}".encode()


def _field(name: str, value: str, style: SseStyle) -> str:
    return f"{name}:{' ' if style.space else ''}{value}"


def _json(value: Any, style: SseStyle) -> str:
    if style.multiline:
        return json.dumps(value, ensure_ascii=False, indent=1)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
