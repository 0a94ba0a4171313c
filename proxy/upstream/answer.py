"""A provider's body on its way to LiteLLM, or past it: decoded, bounded, watched."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING, Self

import httpx

from proxy.retry import Kind
from proxy.upstream.respell import last_of, readable, respeller
from proxy.upstream.unpack import ENCODINGS, Unpacker
from proxy.waiting import Waiting

if TYPE_CHECKING:
    from proxy.upstream.wire import Wire


class Reads:
    """What each read of the socket brings; the waiting for it is noted."""

    def __init__(self, source: AsyncIterator[bytes], waiting: Waiting) -> None:
        self._source = source
        self._waiting = waiting

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        return self._waiting.through(anext(self._source))


class Answer(httpx.AsyncByteStream):
    """A provider's body: decoded, bounded, and noted into its Wire while it is read."""

    def __init__(self, response: httpx.Response, wire: Wire) -> None:
        self._stream = response.stream
        self._reads = Reads(aiter(response.stream), wire.waiting)  # type: ignore[arg-type]
        self._wire = wire
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        wire = self._wire
        sound, respell = readable(wire), respeller(wire)
        try:
            async for piece in self._decoded():
                for part in sound(piece):
                    self._note(part)
                    if told := respell(part):
                        yield told
            if rest := last_of(wire, respell):
                yield rest
        except (httpx.TransportError, OSError) as exc:
            raise wire.fail(
                "the connection broke inside the answer", Kind.TRANSIENT, tokens_spent=True
            ) from exc

    async def _decoded(self) -> AsyncIterator[bytes]:
        """Yield the body as plain bytes, a bounded piece at a time."""
        wire = self._wire
        encoding = wire.headers.get("content-encoding", "").lower() or "identity"
        if encoding == "identity":
            async for raw in self._reads:
                yield raw
            return
        if encoding not in ENCODINGS:
            raise wire.fail("the answer's encoding was not asked for", Kind.TRANSIENT)
        unpacker = Unpacker()
        try:
            async for raw in self._reads:
                for piece in unpacker.feed(raw):
                    yield piece
            for piece in unpacker.end():
                yield piece
        except zlib.error as exc:
            raise wire.fail("the answer's compression is broken", Kind.TRANSIENT) from exc

    def _note(self, piece: bytes) -> None:
        if self._wire.stream and self._wire.answered:
            return
        self._wire.body += piece
        if len(self._wire.body) > self._wire.limit_bytes:
            raise self._wire.fail("the answer is larger than allowed", Kind.TRANSIENT)

    async def drain(self, limit_s: float) -> None:
        """Read what is left, if it comes within `limit_s`, so that the connection stays usable."""
        with contextlib.suppress(TimeoutError, httpx.TransportError, OSError):
            async with asyncio.timeout(limit_s):
                async for _piece in self._reads:
                    pass

    async def aclose(self) -> None:
        """Give the connection back, or close it when the body was not read to its end."""
        if not self._closed:
            self._closed = True
            await self._stream.aclose()  # type: ignore[union-attr]
