"""The many ways in which an answer breaks after it has begun."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import assert_never

from tests.providers.faults import HTML_PAGE
from tests.providers.parts import event_parts
from tests.providers.sse import Event, comment, encode
from tests.providers.steps import Breaks, SseStyle
from tests.providers.transcript import Ending, Part

_GARBAGE = b"\xff\xfe\xc3"
_TEXT_FIELDS = (b'"content":"', b'"text":"', b'"thinking":"', b'"arguments":"', b'"partial_json":"')


@dataclass(frozen=True, slots=True)
class BrokenBody:
    """A unary body that breaks; `length` is what the head announces."""

    parts: Iterable[Part]
    ending: Ending = "whole"
    length: int | None = None
    endless: bool = False


def broken_body(step: Breaks, body: bytes, error: Event) -> BrokenBody:
    """Half of the body, and then what the step says; or another body altogether."""
    half = Part(body[: len(body) // 2])
    match step.how:
        case "eof" | "reset" | "stall":
            return BrokenBody([half], step.how, len(body))
        case "drip":
            return BrokenBody(chain([half], repeat(Part(b"a", wait_s=step.drip_s))), endless=True)
        case "comments":
            return BrokenBody(repeat(Part(b"\n", wait_s=step.drip_s)), endless=True)
        case "ends" | "malformed" | "garbage_utf8" | "error_event" | "html":
            wrong = {
                "garbage_utf8": _with_garbage(body.replace(b'": "', b'":"')),
                "error_event": json.dumps(error.data).encode(),
                "html": HTML_PAGE,
            }
            return BrokenBody([Part(wrong.get(step.how, half.data))])
        case _:
            assert_never(step.how)


def broken_events(step: Breaks, events: list[Event], error: Event) -> tuple[Iterator[Part], Ending]:
    """The stream until it breaks, what then comes, and how it ends."""
    at = _break_point(events, step.after_tokens)
    kept = [event for event in events[:at] if step.opening or event.kind != "open"]
    before, rest = event_parts(step, kept), events[at:]
    match step.how:
        case "eof" | "reset" | "stall":
            return before, step.how
        case "ends":
            return before, "whole"
        case "drip" | "comments":
            return chain(before, _bytes_without_events(step, rest[0])), "whole"
        case "malformed" | "garbage_utf8":
            return chain(before, _damaged(step, rest[0]), event_parts(step, rest[1:])), "whole"
        case "error_event":
            spelt = encode(error, step.sse_style, first=False)
            return chain(before, [Part(spelt, wait_s=step.gap_s)]), "whole"
        case "html":
            return chain(before, [Part(HTML_PAGE, wait_s=step.gap_s)]), "whole"
        case _:
            assert_never(step.how)


def _break_point(events: list[Event], after_tokens: int) -> int:
    seen: set[int] = set()
    for at, event in enumerate(events):
        full = len(seen) >= after_tokens and not seen.issuperset(event.tokens or [-1])
        if full and event.kind != "open":
            return at
        seen.update(event.tokens)
    raise AssertionError("every stream has an end that is no opening")


def _bytes_without_events(step: Breaks, event: Event) -> Iterator[Part]:
    if step.how == "comments":
        return repeat(Part(comment(step.sse_style), wait_s=step.drip_s))
    spelt = encode(event, step.sse_style, first=False).rstrip()
    start = (Part(spelt[at : at + 1], wait_s=step.drip_s) for at in range(len(spelt) - 4))
    return chain(start, repeat(Part(b" ", wait_s=step.drip_s)))


def _damaged(step: Breaks, event: Event) -> list[Part]:
    if step.how == "garbage_utf8":
        return [Part(_with_garbage(encode(event, step.sse_style, first=False)), wait_s=step.gap_s)]
    text = json.dumps(event.data)
    cut = Event(event.kind, text[: len(text) // 2], event.name)
    return [Part(encode(cut, SseStyle(), first=False), wait_s=step.gap_s)]


def _with_garbage(body: bytes) -> bytes:
    mark = next((mark for mark in _TEXT_FIELDS if mark in body), b':"')
    head, _, tail = body.rpartition(mark)
    return head + mark + _GARBAGE + tail
