"""
One HTTP/1.1 connection to a provider, and what arrives on it: parsed as far as its framing.

A general client costs as much as all that Mobius does with a request beside it: it keeps sessions,
cookies, redirects and traces. This knows one exchange at a time, and leaves the meaning of what
arrives to whoever reads it. The parser is httptools', which the server uses as well.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from math import inf
from typing import Protocol, TypeAlias, cast

import httptools

from proxy.types import Trust
from proxy.waiting import Waiting

# What is read ahead of a slow reader is this, and one read of the loop's (256 KiB) at most.
BUFFER_BYTES = 64 * 1024
# Of the head of an answer: some gateways send policies and cookies of many kilobytes.
MOST_HEAD_BYTES = 256 * 1024
LEAST_REFUSAL = 300  # whoever answers so reads no more of what it is sent
# What a provider says of how long it waits; a request that is sent then would cross its farewell.
KEEPS = re.compile(r"(?i)(?:^|[ ,;])timeout=([0-9]{1,6})(?![0-9])")
CROSSING_S = 1.0
LEAST_STATUS = 200  # what is below is said before the answer itself (RFC 9110, section 15.2)


# Scheme, host, port, and whose certificate it may show.
Origin: TypeAlias = tuple[str, str, int, Trust | None]


class Body(Protocol):
    """What is sent piece by piece, of a length that is known before."""

    @property
    def size_bytes(self) -> int: ...

    def pieces(self) -> AsyncIterator[bytes]: ...


class ConnectionBroken(OSError):
    """The connection ended, or what came is no HTTP, before the answer was whole."""


class Arrival:
    """
    What arrives of one answer: its head, then its body as it comes.

    It outlives the connection, which is free for the next exchange once all has arrived.
    """

    __slots__ = (
        "_connection", "_error", "_held_bytes", "_pieces", "_waiter", "_waiting",
        "complete", "headers", "status",
    )  # fmt: skip

    def __init__(self, connection: Connection, waiting: Waiting) -> None:
        self._connection: Connection | None = connection
        self._waiting = waiting
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._error: ConnectionBroken | None = None
        self.status = 0  # until the head is here
        self.headers: dict[str, str] = {}  # by names in lower case; of several the last
        self.complete = False

    @property
    def refuses(self) -> bool:
        """Say whether the provider wants no more of the request."""
        return self.status >= LEAST_REFUSAL

    async def head(self) -> None:
        """Return once status and headers are here. Raises ConnectionBroken."""
        while not self.status:
            if self._error is not None:
                raise self._error
            await self._news()

    async def read(self) -> bytes:
        """Return what has come and was not read, or b"" at the end. Raises ConnectionBroken."""
        while not self._pieces:
            if self.complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._news()
        pieces = self._pieces
        self._pieces, self._held_bytes = [], 0
        if self._connection is not None:
            self._connection.resume()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the connection, unless all has arrived: then somebody else may have it."""
        if self._connection is not None:
            self._connection.abort()

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiting.on(self._waiter)
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def begins(self, status: int, headers: dict[str, str]) -> None:
        """Take the head. From here on this is the connection's to call."""
        self.status, self.headers = status, headers
        self._wake()

    def brings(self, piece: bytes) -> bool:
        """Take a piece of the body; say whether more is held than need be."""
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._waiter is not None:
            self._wake()
        return self._held_bytes > BUFFER_BYTES

    def ends(self, error: ConnectionBroken | None = None) -> None:
        """Take note that nothing more comes; without an error, that all is here."""
        self.complete, self._error, self._connection = error is None, error, None
        if self._waiter is not None:
            self._wake()


class Owner(Protocol):
    """Who keeps connections."""

    def freed(self, connection: Connection) -> None:
        """Take note that it can be used for another request."""

    def lost(self, connection: Connection) -> None:
        """Take note that it is closed."""


class Connection(asyncio.Protocol):
    """
    Sends one request after the other.

    `usable` once it is made, until it is closed by either side or what came made no sense.
    """

    def __init__(self, origin: Origin, owner: Owner) -> None:
        self.origin = origin
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._arrival: Arrival | None = None
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._paused = False
        self._pouring = False  # more of the request is to follow
        self._full = False  # what was written has not been taken
        self._aborted = False
        self._drained = asyncio.Event()
        self._drained.set()
        self.usable = False
        self.keeps_s = inf  # for how long its provider says that it keeps it without a request
        self.free_until_s = 0.0  # the moment when it is too old to be used again

    def send(self, head: bytes, body: bytes, waiting: Waiting, *, more: bool = False) -> Arrival:
        """
        Send a request; what is told of its answer is in what is returned.

        `more`: the rest of it is still to be poured.
        """
        transport = self._transport
        arrival = Arrival(self, waiting)
        if transport is None or not self.usable:
            arrival.ends(ConnectionBroken("the connection is closed"))
            return arrival
        self._arrival, self._pouring = arrival, more
        self._headers, self._head_bytes = {}, 0
        if len(body) <= BUFFER_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        return arrival

    async def pour(self, arrival: Arrival, pieces: AsyncIterator[bytes]) -> None:
        """
        Send the rest of a request, as fast as it is taken.

        What goes wrong closes the connection. A provider that has refused is sent no more, and the
        connection serves nobody after it.
        """
        try:
            async for piece in pieces:
                await self._drained.wait()
                transport = self._transport
                if transport is None or self._arrival is not arrival or arrival.refuses:
                    self.usable = False
                    return
                transport.write(piece)
            self._pouring = False
        except BaseException:
            self.abort()
            raise

    def resume(self) -> None:
        """Have more read: what was held has been taken."""
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def abort(self) -> None:
        """Close at once, whatever is under way."""
        self.usable, self._aborted = False, True
        if self._transport is not None:
            self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.usable = True

    def pause_writing(self) -> None:
        self._full = True
        self._drained.clear()

    def resume_writing(self) -> None:
        self._full = False
        self._drained.set()

    def eof_received(self) -> None:
        self.usable = False  # it is being closed, and takes no more requests

    def data_received(self, data: bytes) -> None:
        if self._arrival is None:
            # Nobody has asked: a provider that says goodbye, or one that is confused.
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            self._break(ConnectionBroken(f"what came is no answer: {exc}"))
            return
        if self._arrival is None:
            if not self.usable:  # more came than was asked for
                self.abort()
        elif not self._arrival.status:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._break(ConnectionBroken("the head of the answer is too long"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        self._transport = None
        del self._parser  # it calls this connection: kept, it would be garbage in a circle
        self._drained.set()
        self._owner.lost(self)
        arrival, self._arrival = self._arrival, None
        if arrival is None:
            return
        if exc is None and not self._aborted and arrival.status and self._ends_with_connection:
            arrival.ends()
        else:
            arrival.ends(ConnectionBroken("the connection was closed"))

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self._arrival is None:
            self.usable = False  # a second answer to one request: neither can be trusted

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._arrival is not None and not self._arrival.status:  # else a trailer
            text = value.decode("utf-8", "surrogateescape")
            self._headers[name.decode("latin-1").lower()] = text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < LEAST_STATUS:
            self._headers = {}
        elif self._arrival is not None:
            self._arrival.begins(status, self._headers)
            if status >= LEAST_REFUSAL:
                self._drained.set()  # nobody who is still pouring need wait

    def on_body(self, body: bytes) -> None:
        arrival, transport = self._arrival, self._transport
        if arrival is None or transport is None:
            return
        if arrival.brings(body) and not self._paused:
            self._paused = True
            transport.pause_reading()

    def on_message_complete(self) -> None:
        arrival = self._arrival
        if arrival is None or not arrival.status:
            return  # of what came before the answer itself
        self._arrival = None
        arrival.ends()
        if self._paused:
            self.resume()
        if self._pouring or not self._taken or not self._parser.should_keep_alive():
            self.usable = False
        if self.usable:
            if "keep-alive" in self._headers:
                self.keeps_s = _keeps_s(self._headers["keep-alive"])
            self._owner.freed(self)
        else:
            self.abort()

    @property
    def _taken(self) -> bool:
        """All of the request has left: what is still to be sent would stand before the next."""
        transport = self._transport
        return not self._full and transport is not None and not transport.get_write_buffer_size()

    @property
    def _ends_with_connection(self) -> bool:
        """The answer says nothing of its length (RFC 9112, section 6.3): the end is the end."""
        return not {"content-length", "transfer-encoding"} & self._headers.keys()

    def _break(self, error: ConnectionBroken) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.ends(error)
        self.abort()


def _keeps_s(header: str) -> float:
    """Return what `Keep-Alive: timeout=5` says (RFC 2068, section 19.7.1), with time to spare."""
    found = KEEPS.search(header)
    return inf if found is None else float(found[1]) - CROSSING_S
