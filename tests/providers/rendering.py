"""A step of the script, made into a transcript in a provider's dialect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from typing import assert_never

from tests.providers.breaking import broken_body, broken_events
from tests.providers.dialect import Ask, Dialect, pieces
from tests.providers.parts import event_parts
from tests.providers.sse import encode
from tests.providers.steps import (
    Answer,
    Breaks,
    Delivery,
    Endless,
    Fails,
    Json,
    NoDone,
    Resets,
    Silent,
    Step,
)
from tests.providers.transcript import Ending, Part, Transcript, split, zipped

JSON_TYPE = "application/json"
TEXT_TYPE = "text/plain; charset=utf-8"
SSE_TYPE = "text/event-stream; charset=utf-8"
_FILL = "@fill@"
_BLOCK = b"a" * 65536


def transcript(dialect: Dialect, ask: Ask, step: Step) -> Transcript:
    """What the server does for this request."""
    match step:
        case Silent():
            return Transcript("stall", stall_s=step.for_s)
        case Resets():
            return _reset(dialect, ask, step)
        case Fails():
            return _failure(dialect, ask, step)
        case Answer():
            return _answer(dialect, ask, step)
        case _:
            assert_never(step)


def plain(dialect: Dialect, number: int, status: int, body: Json) -> Transcript:
    """An answer that no step asked for: of a fixed endpoint, or of one that is not there."""
    return _deliver(Delivery(), dialect.headers(number), status, [Part(_dumps(body))])


def _deliver(
    how: Delivery,
    headers: dict[str, str],
    status: int,
    parts: Iterable[Part],
    *,
    content_type: str = JSON_TYPE,
    ending: Ending = "whole",
    length: int | None = None,
    stall_s: float | None = None,
    streamed: bool = False,
) -> Transcript:
    framing = how.framing or ("chunked" if streamed else "length")
    headers = {"content-type": how.content_type or content_type, **headers}
    if how.gzip:
        headers["content-encoding"] = "gzip"
        parts = zipped(parts)
    parts = split(parts, how.write_split)
    if framing == "length":
        parts = list(parts)
        length = sum(len(part.data) for part in parts) if length is None else length
    sent = {name: value for name, value in {**headers, **how.headers}.items() if value is not None}
    return Transcript(
        ending,
        status=status,
        headers=sent,
        parts=parts,
        framing=framing,
        length=length,
        delay_s=how.delay_s,
        gate=how.gate if how.gate_after_tokens is None else None,
        stall_s=stall_s,
        announce_close=how.close,
        close=how.close or how.hang_up or framing == "close",
    )


def _failure(dialect: Dialect, ask: Ask, step: Fails) -> Transcript:
    body = dialect.error(step.status, ask) if step.body is None else step.body
    content_type = JSON_TYPE if isinstance(body, dict) else "text/plain; charset=utf-8"
    data = _dumps(body) if isinstance(body, dict) else body
    data = data.encode() if isinstance(data, str) else data
    headers = dialect.headers(ask.number)
    return _deliver(step, headers, step.status, [Part(data)], content_type=content_type)


def _reset(dialect: Dialect, ask: Ask, step: Resets) -> Transcript:
    if step.before == "headers" and step.after_bytes is None:
        return Transcript(step.how)
    whole = _answer(dialect, ask, Answer())
    return Transcript(
        step.how,
        status=whole.status,
        headers=whole.headers,
        parts=_first_bytes(whole.parts, step.after_bytes or 0),
        framing=whole.framing,
        length=whole.length,
    )


def _first_bytes(parts: Iterable[Part], size: int) -> Iterator[Part]:
    for part in parts:
        if size < len(part.data):
            yield Part(part.data[:size])
            return
        size -= len(part.data)
        yield part


def _answer(dialect: Dialect, ask: Ask, step: Answer) -> Transcript:
    if step.raw_body is not None:
        return _raw(dialect, ask, step, step.raw_body)
    return _stream(dialect, ask, step) if ask.streams else _unary(dialect, ask, step)


def _raw(dialect: Dialect, ask: Ask, step: Answer, body: bytes) -> Transcript:
    return _deliver(
        step,
        dialect.headers(ask.number),
        step.status,
        [Part(body + step.trailing)],
        content_type=SSE_TYPE if ask.streams else JSON_TYPE,
        streamed=ask.streams,
    )


def _unary(dialect: Dialect, ask: Ask, step: Answer) -> Transcript:
    headers = dialect.headers(ask.number)
    if isinstance(step, Endless):
        parts = _endless_body(dialect, ask, step)
        return _deliver(step, headers, step.status, parts, streamed=True)
    said = dialect.whole(ask, step)
    content_type = TEXT_TYPE if isinstance(said, str) else JSON_TYPE
    body = said.encode() if isinstance(said, str) else _dumps(said)
    if isinstance(step, Breaks):
        cut = broken_body(step, body, dialect.error_event(step.error))
        return _deliver(
            step,
            headers,
            step.status,
            cut.parts,
            ending=cut.ending,
            length=cut.length,
            stall_s=step.for_s,
            streamed=cut.endless,
        )
    numbers = tuple(sorted(piece.number for piece in pieces(step)))
    gate = step.gate if step.gate_after_tokens is not None else None
    whole = Part(body + step.trailing, tokens=numbers, gate=gate)
    return _deliver(step, headers, step.status, [whole], content_type=content_type)


def _stream(dialect: Dialect, ask: Ask, step: Answer) -> Transcript:
    ending: Ending = "whole"
    stall_s: float | None = None
    events = dialect.events(ask, step)
    match step:
        case Breaks():
            parts, ending = broken_events(step, list(events), dialect.error_event(step.error))
            stall_s = step.for_s
        case Endless():
            parts = _endless_events(dialect, ask, step)
        case NoDone():
            parts = event_parts(step, (event for event in events if event.kind != "done"))
            ending = "open" if step.then == "open" else "whole"
        case _:
            parts = event_parts(step, events)
    return _deliver(
        step,
        dialect.headers(ask.number),
        step.status,
        chain(parts, [Part(step.trailing)] if step.trailing else []),
        content_type=ask.media or SSE_TYPE,
        ending=ending,
        stall_s=stall_s,
        streamed=True,
    )


def _endless_body(dialect: Dialect, ask: Ask, step: Endless) -> Iterator[Part]:
    said = dialect.whole(ask, Answer(text=_FILL))
    head, tail = (said.encode() if isinstance(said, str) else _dumps(said)).split(_FILL.encode())
    blocks = repeat(Part(_BLOCK), step.limit_bytes // len(_BLOCK) + 1)
    return chain([Part(head)], blocks, [Part(tail)])


def _endless_events(dialect: Dialect, ask: Ask, step: Endless) -> Iterator[Part]:
    events = list(dialect.events(ask, Answer(text=_FILL)))
    spelt = [encode(event, step.sse_style, first=False) for event in events]
    at = next(at for at, event in enumerate(events) if event.kind == "content" and event.tokens)
    if step.of == "events":
        middle = spelt[at].replace(_FILL.encode(), _BLOCK[:1000])
        filling = repeat(Part(middle), step.limit_bytes // len(middle) + 1)
    else:
        first, last = spelt[at].split(_FILL.encode())
        blocks = repeat(Part(_BLOCK), step.limit_bytes // len(_BLOCK) + 1)
        filling = chain([Part(first)], blocks, [Part(last)])  # type: ignore[assignment]
    before, after = islice(spelt, at), islice(spelt, at + 1, None)
    return chain(map(Part, before), filling, map(Part, after))


def _dumps(body: Json) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
