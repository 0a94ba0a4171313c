"""
A body of server-sent events as Chunks: what each read of the socket completes.

Most of a stream is text, piece after piece, and to read every event of it as JSON would cost more
than all the rest. So a read whose frames are spelt as OpenAI spells them goes on as it came, and
of its events only those are parsed that are more than a piece of text.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from typing import Self

from proxy import sse
from proxy.errors import UpstreamFailure
from proxy.replies import Chunk, Source
from proxy.retry import Kind
from proxy.upstream.plain import END, PlainText, Sorted

# How long the rest of a body is waited for after the last event, to use the connection again.
DRAIN_S = 0.02
LONGEST_BYTES = 16 * 1024 * 1024  # of one event

_NAMED = re.compile(rb"(?:event: [^\n]+\ndata: [^\n]+\n\n)+")
_DATA = b"\ndata: "


def chunks_of(
    body: AsyncIterable[bytes],
    drain: Callable[[float], Awaitable[None]],
    *,
    named: bool = False,
) -> Source:
    """
    Return what each read completes, up to `[DONE]` or the end; after the former, drain.

    `named`: the events keep the names that they came under.
    """
    return _Chunks(body, drain, _Frames(named=named))


class _Chunks:
    """The chunks of one body."""

    def __init__(
        self,
        body: AsyncIterable[bytes],
        drain: Callable[[float], Awaitable[None]],
        frames: _Frames,
    ) -> None:
        self._reads = aiter(body)
        self._drain = drain
        self._frames = frames
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while not self._over:
            if self._frames.done:
                self._over = True
                await self._drain(DRAIN_S)
                break
            try:
                chunk = self._frames.feed(await anext(self._reads))
            except sse.EventTooLarge as exc:
                self._over = True
                raise UpstreamFailure(str(exc), kind=Kind.TRANSIENT) from exc
            except BaseException:
                self._over = True
                raise
            if chunk is not None:
                return chunk
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._over = True


async def payloads_of(body: AsyncIterable[bytes]) -> AsyncGenerator[list[bytes], None]:
    """Yield the payloads of the events that each read completes: their types say their names."""
    splitter = _Splitter()
    async for piece in body:
        try:
            part = splitter.feed(piece)
            if isinstance(part, bytes) and not _NAMED.fullmatch(part):
                part = splitter.read(part)
        except sse.EventTooLarge as exc:
            raise UpstreamFailure(str(exc), kind=Kind.TRANSIENT) from exc
        if isinstance(part, bytes):
            frames = part.split(END)[:-1]
            yield [frame[frame.index(_DATA) + len(_DATA) :] for frame in frames]
        elif part:
            yield [event.data for event in part]


class _Splitter:
    """Turns bytes, split anywhere, into the ends of whole events."""

    def __init__(self, *, odd: bool = False) -> None:
        self._reader = sse.Reader(LONGEST_BYTES)
        self._held = b""  # of a frame that is not complete
        self._odd = odd  # spelt in another way, which only the reader reads

    def feed(self, piece: bytes) -> bytes | Sequence[sse.ServerEvent]:
        """
        Return what `piece` completes: frames as they came, each with its empty line, or events.

        Raises EventTooLarge.
        """
        if not self._odd and b"\r" in piece:
            self._odd, piece, self._held = True, self._held + piece, b""
        if self._odd:
            return self._reader.feed(piece)
        raw = self._held + piece if self._held else piece
        end = raw.rfind(END) + len(END)
        if end < len(END):
            end = 0
        self._held = raw[end:]
        if len(self._held) > LONGEST_BYTES:
            raise sse.EventTooLarge(f"an event of the stream is over {LONGEST_BYTES} bytes")
        return raw[:end]

    def read(self, raw: bytes) -> Sequence[sse.ServerEvent]:
        """Return the events of frames that came whole. Raises EventTooLarge."""
        # Comments, several lines: the reader is between two events after them too.
        return self._reader.feed(raw)


class _Frames:
    """Turns bytes, split anywhere, into chunks; `done` once the end has been announced."""

    def __init__(self, *, named: bool) -> None:
        self.done = False
        self._named = named
        self._splitter = _Splitter(odd=named)
        self._text = PlainText()

    def feed(self, piece: bytes) -> Chunk | None:
        """Return what `piece` completes. Raises EventTooLarge."""
        part = self._splitter.feed(piece)
        if not part:
            return None
        if isinstance(part, bytes):
            found = self._text.sort(part)
            if found is not None:
                return self._whole(found)
            part = self._splitter.read(part)
        return self._read(part)

    def _whole(self, found: Sorted) -> Chunk | None:
        raw, plain, odd, self.done = found
        if not raw:
            return None
        return Chunk.of_frames(raw, plain, odd) if is_text(raw) else Chunk(raw)

    def _read(self, events: Sequence[sse.ServerEvent]) -> Chunk | None:
        payloads = [event.data for event in events]
        if sse.DONE in payloads:
            self.done, payloads = True, payloads[: payloads.index(sse.DONE)]
        if not payloads:
            return None
        if self._named:
            return Chunk.of_named(events[: len(payloads)])
        return Chunk.of_payloads(payloads)


def is_text(raw: bytes) -> bool:
    """Say whether the bytes are UTF-8: what is not read as JSON has to be, all the same."""
    if raw.isascii():
        return True
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
