"""
Requests that go through a proxy, which the environment names: an ordinary client makes them.

It costs more than the pool, and knows what that does not: tunnels, TLS inside of TLS, and what a
proxy wants to see of a URL.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import aiohttp
from yarl import URL

from proxy.types import Trust
from proxy.upstream.connection import BUFFER_BYTES, Body, ConnectionBroken
from proxy.upstream.pool import KEEP_ALIVE_S
from proxy.upstream.tls import context_of
from proxy.waiting import Waiting

PIECE_BYTES = 64 * 1024
# Of the head of an answer: some gateways send policies and cookies of many kilobytes.
LONGEST_HEADER_BYTES = 64 * 1024


class Proxied:
    """Owns its connections, which `aclose` closes."""

    def __init__(self) -> None:
        self._tls: dict[Trust | None, ssl.SSLContext] = {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=BUFFER_BYTES // 2,  # it holds twice that
            max_line_size=LONGEST_HEADER_BYTES,
            max_field_size=LONGEST_HEADER_BYTES,
        )

    async def post(
        self,
        url: URL,
        body: bytes | Body,
        headers: Mapping[str, str],
        *,
        proxy: str | None,
        connect_s: float,
        waiting: Waiting,
        method: str = "POST",
        trust: Trust | None = None,
    ) -> Response:
        """Send `body`; return the answer, its head already there. Raises as `Pool.post` does."""
        if not isinstance(body, bytes):
            headers = {**headers, "content-length": str(body.size_bytes)}
        if trust not in self._tls:
            self._tls[trust] = context_of(trust)
        asking = self._session.request(
            method,
            url,
            data=body if isinstance(body, bytes) else body.pieces(),
            headers=headers,
            allow_redirects=False,
            proxy=proxy,
            ssl=self._tls[trust],  # by which its connections are kept apart too
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_s),
        )
        try:
            return Response(await waiting.through(asking), waiting)
        except aiohttp.ConnectionTimeoutError as exc:
            raise TimeoutError(str(exc)) from exc
        except aiohttp.ClientError as exc:
            raise ConnectionBroken(str(exc)) from exc

    async def aclose(self) -> None:
        await self._session.close()


class Response:
    """An answer that came through a proxy, read as an `Arrival` is."""

    def __init__(self, response: aiohttp.ClientResponse, waiting: Waiting) -> None:
        self._response = response
        self._waiting = waiting
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    async def read(self) -> bytes:
        try:
            return await self._waiting.through(self._response.content.read(PIECE_BYTES))
        except aiohttp.ClientError as exc:
            raise ConnectionBroken(str(exc)) from exc

    def close(self) -> None:
        self._response.close()
