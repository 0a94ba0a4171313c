"""
The socket of the direct lane: one POST per attempt, watched and bounded.

Nothing is retried, redirected, unpacked without a bound or kept as a cookie here, and no variable
of the environment but a proxy's has a say. What fails is told as an UpstreamFailure.
"""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Self
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
import httpx
from yarl import URL

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.upstream.unpack import ENCODINGS, Unpacker
from proxy.upstream.wire import NO_PROXIES
from proxy.waiting import Waiting

KEEP_ALIVE_S = 90.0  # so that a quiet minute costs no handshake
DNS_S = 60
# What is read ahead of a slow reader is at most one read of the loop's (256 KiB), twice the buffer,
# and the piece that is on its way out.
BUFFER_BYTES = 32 * 1024
PIECE_BYTES = 64 * 1024
# Of the head of an answer: some gateways send policies and cookies of many kilobytes.
LONGEST_HEADER_BYTES = 64 * 1024


class Http:
    """
    Owns the connections to providers, which `aclose` closes.

    `proxies` by scheme or `all`, and `no` for hosts without, as the environment has them.
    """

    def __init__(self, *, proxies: Mapping[str, str] = NO_PROXIES) -> None:
        self._proxies = proxies
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self,
        url: URL,
        body: bytes | AsyncIterator[bytes],
        headers: Mapping[str, str],
        *,
        connect_s: float,
        waiting: Waiting,
    ) -> Answer:
        """Return what was answered, of any status, its body not yet read; else UpstreamFailure."""
        session = self._session or self._open()
        asking = session.post(
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            proxy=self._proxy(url) if self._proxies else None,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
        )
        try:
            response = await waiting.through(asking)
        except aiohttp.ConnectionTimeoutError as exc:
            raise UpstreamFailure("no connection in time", kind=Kind.UNREACHABLE) from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise UpstreamFailure(
                "no connection, or reset before an answer", kind=Kind.UNREACHABLE
            ) from exc
        return Answer(response, waiting)

    def _proxy(self, url: URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy and proxy_bypass_environment(url.host or "", dict(self._proxies)):
            return None
        return proxy

    def _open(self) -> aiohttp.ClientSession:
        """Return the session, which belongs to the running loop."""
        self._session = aiohttp.ClientSession(
            # The certificates that the other lane trusts; slim images have none of their own.
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEP_ALIVE_S,
                ttl_dns_cache=DNS_S,
                ssl=httpx.create_ssl_context(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=BUFFER_BYTES,
            max_line_size=LONGEST_HEADER_BYTES,
            max_field_size=LONGEST_HEADER_BYTES,
        )
        return self._session

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()


class Answer:
    """A provider's answer. Iterating reads its body: decoded, a piece at a time."""

    def __init__(self, response: aiohttp.ClientResponse, waiting: Waiting) -> None:
        self._response = response
        self._waiting = waiting
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def whole(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailure where it breaks or is over the limit."""
        pieces: list[bytes] = []
        held_bytes = 0
        async for piece in self:
            pieces.append(piece)
            held_bytes += len(piece)
            if held_bytes > limit_bytes:
                raise UpstreamFailure("the answer is larger than allowed", kind=Kind.TRANSIENT)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        encoding = self.headers.get("content-encoding", "identity").lower() or "identity"
        if encoding == "identity":
            return _Reads(self._response.content, self._waiting)
        return self._decoded(encoding)

    async def _decoded(self, encoding: str) -> AsyncIterator[bytes]:
        if encoding not in ENCODINGS:
            raise UpstreamFailure("the answer's encoding was not asked for", kind=Kind.TRANSIENT)
        unpacker = Unpacker()
        try:
            async for raw in _Reads(self._response.content, self._waiting):
                for piece in unpacker.feed(raw):
                    yield piece
            for piece in unpacker.end():
                yield piece
        except zlib.error as exc:
            raise UpstreamFailure(
                "the answer's compression is broken", kind=Kind.TRANSIENT
            ) from exc

    async def drain(self, limit_s: float) -> None:
        """Read what is left, if it comes within `limit_s`, so that the connection stays usable."""
        with contextlib.suppress(TimeoutError, UpstreamFailure):
            async with asyncio.timeout(limit_s):
                async for _piece in _Reads(self._response.content, self._waiting):
                    pass

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it is used again."""
        self._response.close()


class _Reads:
    """What each read of the socket brings; the waiting for it is noted."""

    def __init__(self, content: aiohttp.StreamReader, waiting: Waiting) -> None:
        self._content = content
        self._waiting = waiting

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._waiting.through(self._content.read(PIECE_BYTES))
        except (aiohttp.ClientError, OSError) as exc:
            raise UpstreamFailure(
                "the connection broke inside the answer", kind=Kind.TRANSIENT, tokens_spent=True
            ) from exc
        if not piece:
            raise StopAsyncIteration
        return piece
