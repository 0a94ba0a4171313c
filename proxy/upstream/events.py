"""
A body of server-sent events as Chunks: what each read of the socket completes.

Most of a stream is text, piece after piece, and to read every event of it as JSON would cost more
than all the rest. So a read whose frames are spelt as OpenAI spells them goes on as it came, and
of its events only those are parsed that are more than a piece of text.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator, Sequence

from proxy import sse
from proxy.errors import UpstreamFailure
from proxy.replies import Chunk
from proxy.retry import Kind
from proxy.upstream.plain import PlainText

# How long the rest of a body is waited for after the last event, to use the connection again.
DRAIN_S = 0.02
LONGEST_BYTES = 16 * 1024 * 1024  # of one event

_UNNAMED = re.compile(rb"(?:data: [^\n]+\n\n)+")
_NAMED = re.compile(rb"(?:event: [^\n]+\ndata: [^\n]+\n\n)+")
_DATA = b"\ndata: "


async def chunks_of(
    body: AsyncIterable[bytes],
    drain: Callable[[float], Awaitable[None]],
    *,
    named: bool = False,
) -> AsyncGenerator[Chunk, None]:
    """
    Yield what each read completes, up to `[DONE]` or the end; after the former, drain.

    `named`: the events keep the names that they came under.
    """
    frames = _Frames(named=named)
    async for piece in body:
        try:
            for chunk in frames.feed(piece):
                yield chunk
        except sse.EventTooLarge as exc:
            raise UpstreamFailure(str(exc), kind=Kind.TRANSIENT) from exc
        if frames.done:
            await drain(DRAIN_S)
            return


async def payloads_of(body: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Yield the payloads of the events that each read completes: their types say their names."""
    splitter = _Splitter(_NAMED)
    async for piece in body:
        try:
            for part in splitter.feed(piece):
                if isinstance(part, bytes):
                    frames = part.split(b"\n\n")[:-1]
                    yield [frame[frame.index(_DATA) + len(_DATA) :] for frame in frames]
                else:
                    yield [event.data for event in part]
        except sse.EventTooLarge as exc:
            raise UpstreamFailure(str(exc), kind=Kind.TRANSIENT) from exc


class _Splitter:
    """Turns bytes, split anywhere, into the ends of whole events."""

    def __init__(self, spelt: re.Pattern[bytes] | None) -> None:
        self._spelt = spelt
        self._reader = sse.Reader(LONGEST_BYTES)
        self._held = b""  # of a frame that is not complete
        self._odd = spelt is None  # spelt in another way, which only the reader reads

    def feed(self, piece: bytes) -> Iterator[bytes | Sequence[sse.ServerEvent]]:
        """
        Yield what `piece` completes: frames as they came where all are `spelt` so, else events.

        Raises EventTooLarge.
        """
        if not self._odd and b"\r" in piece:
            self._odd, piece, self._held = True, self._held + piece, b""
        if self._odd:
            yield self._reader.feed(piece)
            return
        raw = self._held + piece if self._held else piece
        end = raw.rfind(b"\n\n") + 2
        if end < 2:
            end = 0
        self._held = raw[end:] if end < len(raw) else b""
        if len(self._held) > LONGEST_BYTES:
            raise sse.EventTooLarge(f"an event of the stream is over {LONGEST_BYTES} bytes")
        raw = raw[:end] if end < len(raw) else raw
        if not raw:
            return
        if self._spelt is not None and self._spelt.fullmatch(raw):
            yield raw
        else:
            # Comments, several lines: the reader is between two events after them too.
            yield self._reader.feed(raw)


class _Frames:
    """Turns bytes, split anywhere, into chunks; `done` once the end has been announced."""

    def __init__(self, *, named: bool) -> None:
        self.done = False
        self._named = named
        self._splitter = _Splitter(None if named else _UNNAMED)
        self._text = PlainText()

    def feed(self, piece: bytes) -> Iterator[Chunk]:
        """Yield what `piece` completes. Raises EventTooLarge."""
        for part in self._splitter.feed(piece):
            yield from self._whole(part) if isinstance(part, bytes) else self._read(part)

    def _whole(self, raw: bytes) -> Iterator[Chunk]:
        place = raw.find(sse.DONE_FRAME)
        if place >= 0:
            self.done, raw = True, raw[:place]
        if raw:
            plain, odd = self._text.sort(raw.split(b"\n\n")[:-1]) if is_text(raw) else (None, [])
            yield Chunk.of_frames(raw, plain, odd)

    def _read(self, events: Sequence[sse.ServerEvent]) -> Iterator[Chunk]:
        payloads = [event.data for event in events]
        if sse.DONE in payloads:
            self.done, payloads = True, payloads[: payloads.index(sse.DONE)]
        if payloads and self._named:
            yield Chunk.of_named(events[: len(payloads)])
        elif payloads:
            yield Chunk.of_payloads(payloads)


def is_text(raw: bytes) -> bool:
    """Say whether the bytes are UTF-8: what is not read as JSON has to be, all the same."""
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
