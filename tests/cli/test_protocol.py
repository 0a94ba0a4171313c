"""The head of an answer goes out with what follows it, or at the end of the turn."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from proxy.cli.protocol import BoundedProtocol, Corked

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Socket:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.closed


def corked(socket: Socket) -> Corked:
    return Corked(cast(asyncio.Transport, socket), asyncio.get_running_loop())


async def test_a_head_and_what_is_written_next_are_sent_as_one() -> None:
    socket = Socket()
    subject = corked(socket)
    subject.write(HEAD)
    assert socket.sent == []
    subject.write(b"body")
    subject.write(b"more")
    assert socket.sent == [HEAD + b"body", b"more"]
    await asyncio.sleep(0)
    assert socket.sent == [HEAD + b"body", b"more"]


async def test_a_head_that_nothing_follows_is_sent_at_the_end_of_the_turn() -> None:
    socket = Socket()
    subject = corked(socket)
    subject.write(HEAD)
    await asyncio.sleep(0)
    subject.write(b"body")
    assert socket.sent == [HEAD, b"body"]


async def test_a_head_for_nobody_is_not_sent() -> None:
    socket = Socket()
    subject = corked(socket)
    subject.write(HEAD)
    socket.closed = True  # by the client
    await asyncio.sleep(0)
    assert socket.sent == []


async def test_a_head_is_sent_before_the_end_of_its_connection() -> None:
    socket = Socket()
    subject = corked(socket)
    subject.write(HEAD)
    subject.close()
    assert (socket.sent, subject.is_closing()) == ([HEAD], True)


async def test_a_request_that_still_settles_forgets_only_its_own_departure() -> None:
    config = uvicorn.Config(lambda: None, lifespan="off", log_config=None)
    config.load()
    protocol = BoundedProtocol(config, ServerState(), {})
    protocol.connection_made(cast(asyncio.BaseTransport, Socket()))
    gone: list[str] = []
    forget_first = protocol._on_departure(lambda: gone.append("first"))
    forget_second = protocol._on_departure(lambda: gone.append("second"))
    forget_first()
    protocol.connection_lost(None)
    assert gone == ["second"]
    forget_second()
