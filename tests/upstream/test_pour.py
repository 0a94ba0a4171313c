"""A body that is sent piece by piece: as fast as it is taken, and no further than it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from yarl import URL

from proxy.upstream.connection import ConnectionBroken
from proxy.upstream.pool import Pool
from proxy.upstream.proxied import Proxied
from proxy.waiting import Waiting

pytestmark = pytest.mark.anyio

PIECE = b"x" * 60_000
HEADERS = {"content-type": "multipart/form-data; boundary=b"}
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
REFUSED = b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno"

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass
class Pieces:
    """A body of so many pieces; it counts those that were asked for."""

    count: int
    fails_at: int | None = None
    asked: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def size_bytes(self) -> int:
        return self.count * len(PIECE)

    async def pieces(self) -> AsyncIterator[bytes]:
        for number in range(self.count):
            if number == self.fails_at:
                raise ValueError("the upload is gone")
            self.asked += 1
            yield PIECE


async def head_of(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    return int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


@contextlib.asynccontextmanager
async def posting(serve: Serve) -> AsyncIterator[tuple[Pool, URL]]:
    handlers: set[asyncio.Task[None]] = set()

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.create_task(whole(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    pool = Pool()
    try:
        async with server:
            port = server.sockets[0].getsockname()[1]
            yield pool, URL(f"http://127.0.0.1:{port}/v1/audio", encoded=True)
            pool.close()
            await asyncio.gather(*handlers)
    finally:
        pool.close()


def waiting() -> Waiting:
    return Waiting(asyncio.get_running_loop().time)


async def test_all_of_it_arrives_and_the_connection_is_used_again() -> None:
    got: list[bytes] = []
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            got.append(await reader.readexactly(await head_of(reader)))
            writer.write(OK)

    async with posting(serve) as (pool, url):
        for _ in range(2):
            body = Pieces(30)
            arrival = await pool.post(url, body, HEADERS, connect_s=5.0, waiting=waiting())
            assert (arrival.status, await arrival.read()) == (200, b"ok")
        assert got == [PIECE * 30] * 2
        assert connections == 1


async def test_a_provider_that_takes_nothing_is_sent_no_more_than_is_held_for_it() -> None:
    body, begun = Pieces(1000), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        await body.closed.wait()

    async with posting(serve) as (pool, url):
        post = pool.post(url, body, HEADERS, connect_s=5.0, waiting=waiting())
        asking = asyncio.create_task(post)
        await begun.wait()
        before = -1
        while before != body.asked:
            before = body.asked
            for _ in range(20):
                await asyncio.sleep(0)
        assert body.asked < 500  # what the two ends of a socket hold
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        body.closed.set()


async def test_who_refuses_early_is_heard_and_sent_no_more() -> None:
    body, connections = Pieces(10_000), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        length = await head_of(reader)
        if length == 0:
            writer.write(OK)
        else:
            writer.write(REFUSED)
            await body.closed.wait()

    async with posting(serve) as (pool, url):
        arrival = await pool.post(url, body, HEADERS, connect_s=5.0, waiting=waiting())
        assert (arrival.status, await arrival.read()) == (413, b"no")
        assert body.asked < 1000
        # Half a request stands on the connection: nobody else may have it.
        arrival = await pool.post(url, Pieces(0), HEADERS, connect_s=5.0, waiting=waiting())
        assert (arrival.status, connections) == (200, 2)
        body.closed.set()


async def test_a_body_that_cannot_be_read_on_breaks_the_request() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(await head_of(reader))
        finally:
            ended.set()

    async with posting(serve) as (pool, url):
        with pytest.raises(ConnectionBroken):
            await pool.post(url, Pieces(5, fails_at=3), HEADERS, connect_s=5.0, waiting=waiting())
        await ended.wait()


async def test_through_a_proxy_it_is_sent_piece_by_piece_too() -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.readexactly(await head_of(reader)))
        writer.write(OK)

    async with posting(serve) as (_, url):
        client = Proxied()
        answer = await client.post(
            URL("http://provider.invalid/v1/audio"), Pieces(30), HEADERS,
            proxy=str(url.origin()), connect_s=5.0, waiting=waiting(),
        )  # fmt: skip
        assert (answer.status, await answer.read()) == (200, b"ok")
        answer.close()
        await client.aclose()
    assert got == [PIECE * 30]
