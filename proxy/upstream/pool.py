"""
The connections to providers that wait for their next request, and how new ones are made.

Nothing is sent twice: where a connection that had waited is found closed, the request on it has
failed, and whoever sent it decides.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import aiohappyeyeballs
from yarl import URL

from proxy.types import Trust
from proxy.upstream.connection import Arrival, Body, Connection, Origin
from proxy.upstream.tls import context_of
from proxy.waiting import Waiting

HEADS = 1024  # that are remembered
KEEP_ALIVE_S = 90.0  # so that a quiet minute costs no handshake; less where the provider says so
# RFC 8305, section 5: how long one address is waited for before the next is tried beside it.
NEXT_ADDRESS_S = 0.25
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
# Headers that say where a request goes and how long it is: that is ours to know.
FRAMING = frozenset({"host", "content-length", "transfer-encoding"})


class Pool:
    """Owns its connections, which `close` closes; they belong to the running loop."""

    def __init__(self, *, keep_alive_s: float = KEEP_ALIVE_S) -> None:
        self._keep_alive_s = keep_alive_s
        self._idle: defaultdict[Origin, list[Connection]] = defaultdict(list)
        self._open: set[Connection] = set()
        self._tls: dict[Trust | None, ssl.SSLContext] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self._lookups: dict[tuple[str, int], asyncio.Future[Any]] = {}

    async def post(
        self,
        url: URL,
        body: bytes | Body,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        waiting: Waiting,
        method: str = "POST",
        trust: Trust | None = None,
    ) -> Arrival:
        """
        Send `body`, by another method where one is named, and return what arrives, its head already
        there.

        Raises TimeoutError where there is no connection in time, OSError where there is none or it
        breaks, ValueError where a header cannot be sent.
        """
        length = len(body) if isinstance(body, bytes) else body.size_bytes
        head = b"%bcontent-length: %d\r\n\r\n" % (
            _head(method, url, tuple(headers.items())),
            length,
        )
        origin = (url.scheme, url.raw_host or "", url.port or 0, trust)
        connection = self._waiting(origin)
        if connection is None:
            async with asyncio.timeout(connect_s):
                connection = await waiting.through(self._connect(origin))
        if not isinstance(body, bytes):
            return await _poured(connection, head, body, waiting)
        arrival = connection.send(head, body, waiting)
        try:
            await arrival.head()
        except BaseException:
            arrival.close()
            raise
        return arrival

    def close(self) -> None:
        """Close every connection, whatever is under way on it."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()

    def freed(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        connection.free_until_s = loop.time() + min(self._keep_alive_s, connection.keeps_s)
        self._idle[connection.origin].append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._keep_alive_s, self._sweep)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)

    def _waiting(self, origin: Origin) -> Connection | None:
        """Return the one that has waited least, which is the least likely to be closed by now."""
        idle = self._idle.get(origin)
        now_s = asyncio.get_running_loop().time() if idle else 0.0
        while idle:
            connection = idle.pop()
            if connection.usable and now_s < connection.free_until_s:
                return connection
            connection.abort()
        return None

    def _sweep(self) -> None:
        """Close what has waited too long, and look again while anything waits."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for origin, idle in tuple(self._idle.items()):
            kept = [each for each in idle if each.usable and now_s < each.free_until_s]
            for connection in set(idle).difference(kept):
                connection.abort()
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        again = loop.call_later(self._keep_alive_s / 2, self._sweep) if self._idle else None
        self._sweeper = again

    async def _connect(self, origin: Origin) -> Connection:
        scheme, host, port, trust = origin
        loop = asyncio.get_running_loop()
        found = await self._addresses(host, port)
        held = await aiohappyeyeballs.start_connection(
            found, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1, loop=loop
        )
        try:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await loop.create_connection(
                lambda: Connection(origin, self), sock=held, **self._security(scheme, host, trust)
            )
        except BaseException:
            held.close()
            raise
        if self._closed:
            connection.abort()
        elif connection.usable:  # else it is lost already
            self._open.add(connection)
        return connection

    async def _addresses(self, host: str, port: int) -> Any:
        """Return where the host is: those who ask at once wait for one look-up."""
        looking = self._lookups.get((host, port))
        if looking is None:
            loop = asyncio.get_running_loop()
            looking = asyncio.ensure_future(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._lookups[host, port] = looking
            looking.add_done_callback(lambda done: self._looked((host, port), done))
        return await asyncio.shield(looking)

    def _looked(self, place: tuple[str, int], done: asyncio.Future[Any]) -> None:
        self._lookups.pop(place, None)
        if not done.cancelled():
            done.exception()  # heard, also where everybody has left meanwhile

    def _security(self, scheme: str, host: str, trust: Trust | None) -> dict[str, Any]:
        if scheme != "https":
            return {}
        if trust not in self._tls:
            self._tls[trust] = context_of(trust)
        return {"ssl": self._tls[trust], "server_hostname": host}


async def _poured(connection: Connection, head: bytes, body: Body, waiting: Waiting) -> Arrival:
    """Send a body piece by piece, and return what arrives, its head already there."""
    arrival = connection.send(head, b"", waiting, more=True)
    pouring = asyncio.create_task(connection.pour(arrival, body.pieces()))
    # What it fails with closes the connection, which is how the arrival hears of it.
    pouring.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        await arrival.head()
        if not arrival.refuses:
            await pouring
    except BaseException:
        pouring.cancel()
        arrival.close()
        raise
    return arrival


@lru_cache(maxsize=HEADS)
def _head(method: str, url: URL, named: tuple[tuple[str, str], ...]) -> bytes:
    """
    Return the head of a request but for its length, which one target has the same for most.

    Raises ValueError where a header would end its own line, or has a name that is none.
    """
    headers = dict(named)
    if (name := next((name for name in headers if not TOKEN.fullmatch(name)), None)) is not None:
        raise ValueError(f"a header of this target has a name that is none: {name!r}")
    lines = [
        f"{method} {url.raw_path_qs} HTTP/1.1",
        f"host: {headers.get('host') or url.host_port_subcomponent}",
        *(f"{name}: {value}" for name, value in headers.items() if name not in FRAMING),
    ]
    text = "".join(f"{line}\r\n" for line in lines)
    if text.count("\n") != len(lines) or text.count("\r") != len(lines) or "\0" in text:
        raise ValueError("a header of this target holds a line break")
    return text.encode("utf-8", "surrogateescape")
