"""
The bytes of an answer as LiteLLM reads them rightly, and what it forgets of them noted.

Each of these is given the Wire of the attempt and one piece of the body after the other.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import orjson

from proxy import sse
from proxy.retry import Kind
from proxy.upstream.mend import mend_answer, mend_event

if TYPE_CHECKING:
    from proxy.upstream.wire import Wire

# What ends a line for Python but not in an event stream, as UTF-8 and as JSON may write it.
LINE_ENDS: Mapping[bytes, bytes] = MappingProxyType(
    {b"\xc2\x85": b"\\u0085", b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029"}
)


def respeller(wire: Wire) -> Callable[[bytes], bytes]:
    """
    Return what turns the bytes of an event stream into those of the events they complete.

    LiteLLM ends a line where Python ends one, which is inside of a text too, and holds an
    unfinished line of any length.
    """
    if _held(wire):
        return lambda piece: b""
    if not wire.respells:
        return lambda piece: piece
    reader = sse.Reader()

    def respell(piece: bytes) -> bytes:
        try:
            events = reader.feed(piece)
        except sse.EventTooLarge as exc:
            raise wire.fail(str(exc), Kind.TRANSIENT) from exc
        return b"".join(_spelt(event, wire) for event in events)

    return respell


def last_of(wire: Wire, respell: Callable[[bytes], bytes]) -> bytes:
    """Return what nothing but the end of the body has ended."""
    if not _held(wire):
        return respell(b"\n\n") if wire.respells else b""
    body = bytes(wire.body)
    mended = mend_answer(body)
    wire.mended = mended is not None
    return body if mended is None else mended


def _held(wire: Wire) -> bool:
    """Say whether the body is given only as a whole, because all of it is looked at first."""
    return wire.mends and wire.answered and not wire.stream


def _spelt(event: sse.ServerEvent, wire: Wire) -> bytes:
    data = event.data
    if wire.mends and (mended := mend_event(data)) is not None:
        wire.mended = True
        data = mended
    _note_finish(data, wire)
    for mark, escape in LINE_ENDS.items():
        data = data.replace(mark, escape)
    return (b"event: " + event.name + b"\n" if event.name else b"") + sse.frame(data)


def _note_finish(data: bytes, wire: Wire) -> None:
    """
    Note what LiteLLM forgets: it takes `[DONE]` for a finish reason.

    Of OpenAI's events it also leaves out those that are no JSON, and with them a piece of text.
    """
    if wire.finished or data == sse.DONE or not (wire.openai or b'"choices"' in data):
        return
    try:
        event = orjson.loads(data)
    except ValueError as exc:
        raise wire.fail("the provider sent an event that is not JSON", Kind.TRANSIENT) from exc
    choices = event.get("choices") if isinstance(event, dict) else None
    if isinstance(choices, list):
        wire.openai = True
        wire.finished = any(isinstance(c, dict) and c.get("finish_reason") for c in choices)


def readable(wire: Wire) -> Callable[[bytes], Iterable[bytes]]:
    """Return what lets text through up to the first byte that is none, and then fails."""
    if not wire.has_events:
        return lambda piece: (piece,)
    decoder = codecs.getincrementaldecoder("utf-8")()

    def parts(piece: bytes) -> Iterator[bytes]:
        try:
            decoder.decode(piece)
        except UnicodeDecodeError as exc:
            # LiteLLM would put a replacement character where a token was. What the decoder held
            # back of the piece before stands in front of this one.
            held = len(exc.object) - len(piece)
            if good := piece[: max(0, exc.start - held)]:
                yield good
            raise wire.fail("the stream is not UTF-8", Kind.TRANSIENT) from exc
        yield piece

    return parts
