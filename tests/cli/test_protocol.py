"""The head of an answer goes out with what follows it, or at the end of the turn."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from proxy.cli.protocol import Corked

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


async def test_a_head_is_sent_before_the_end_of_its_connection() -> None:
    socket = Socket()
    subject = corked(socket)
    subject.write(HEAD)
    subject.close()
    assert (socket.sent, subject.is_closing()) == ([HEAD], True)
