"""One keep-alive connection that costs little, so that the load does not slow what is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar, cast

import httptools

from bench.child import HOST

ANSWER_S = 60.0


@dataclass(slots=True)
class Answer:
    """A response, as far as it has come."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    piece_s: float = 0.0  # when the last piece of the body came
    gap_s: float = 0.0  # the longest time between two pieces


class Connection(asyncio.Protocol):
    """Asks one question at a time; httptools calls the `on_` methods."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer = Answer()
        self._waiter: asyncio.Future[Answer] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    async def ask(self, request: bytes) -> Answer:
        """Return the whole answer. Raises ConnectionError when the server hangs up before."""
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        self._waiter = None
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            self._fail(ConnectionError(f"not HTTP: {exc}"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionError(f"the server hung up: {exc}"))

    def _fail(self, error: ConnectionError) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)

    def on_message_begin(self) -> None:
        self._answer = Answer()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._answer.headers[name.lower()] = value

    def on_body(self, piece: bytes) -> None:
        now_s = time.perf_counter()
        if self._answer.body:
            self._answer.gap_s = max(self._answer.gap_s, now_s - self._answer.piece_s)
        self._answer.piece_s = now_s
        self._answer.body += piece

    def on_message_complete(self) -> None:
        self._answer.status = self._parser.get_status_code()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._answer)


C = TypeVar("C", bound=Connection)


@asynccontextmanager
async def connected(port: int, count: int, kind: type[C]) -> AsyncIterator[list[C]]:
    """Yield `count` connections; they are closed on the way out."""
    loop = asyncio.get_running_loop()
    opened: list[C] = []
    try:
        for _ in range(count):
            _, connection = await loop.create_connection(kind, HOST, port)
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()


def post(path: str, key: str, body: bytes) -> bytes:
    """Return the bytes of a request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
