"""An answer goes out in one piece where it is whole, and its head with what follows where not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from proxy.api.outbound import START, WHOLE
from proxy.cli.cycle import Corked
from proxy.cli.protocol import BoundedProtocol
from tests.cli.fakes import Socket

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
ASKED = b"POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi"
DATE = (b"date", b"now")

Application = Callable[[Scope, Receive, Send], Awaitable[None]]


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


def whole(*headers: tuple[bytes, bytes], body: bytes = b"done") -> dict[str, Any]:
    length = (b"content-length", b"%d" % len(body))
    return {"type": WHOLE, "status": 200, "headers": [length, *headers], "body": body}


def answering(*messages: dict[str, Any]) -> Application:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        assert WHOLE in scope["extensions"]
        for message in messages:
            await send(message)

    return application


class Connection:
    """One connection to an application, which answers until it has nothing more to do."""

    def __init__(self, application: Application) -> None:
        config = uvicorn.Config(application, lifespan="off", log_config=None, proxy_headers=False)
        config.load()
        state = ServerState()
        state.default_headers = [DATE]
        self.socket = Socket()
        self.protocol = BoundedProtocol(config, state, {})
        self.protocol.connection_made(cast(asyncio.BaseTransport, self.socket))
        self._tasks = state.tasks

    async def ask(self, raw: bytes = ASKED) -> list[bytes]:
        """Return what has been sent once it is at rest."""
        self.protocol.data_received(raw)
        while tasks := tuple(self._tasks):
            await asyncio.wait(tasks)
        return self.socket.sent


async def test_a_whole_answer_is_one_write_with_the_servers_own_headers_first() -> None:
    connection = Connection(answering(whole((b"x-mobius-cache", b"hit"))))
    expected = (
        b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 4\r\nx-mobius-cache: hit\r\n\r\ndone"
    )
    assert await connection.ask() == [expected]
    assert await connection.ask() == [expected, expected], "the connection is used again"
    assert not connection.socket.closed


@pytest.mark.parametrize(
    ("asked", "header", "said"),
    [
        (ASKED, (b"connection", b"close"), 1),
        (ASKED.replace(b"host: a", b"connection: close"), (b"x", b"y"), 1),
        (ASKED.replace(b"HTTP/1.1", b"HTTP/1.0"), (b"x", b"y"), 1),
        (ASKED, (b"x", b"y"), 0),
    ],
)
async def test_the_connection_ends_with_an_answer_that_says_so(
    asked: bytes, header: tuple[bytes, bytes], said: int
) -> None:
    connection = Connection(answering(whole(header)))
    (sent,) = await connection.ask(asked)
    assert sent.count(b"connection: close\r\n") == said
    assert connection.socket.closed is bool(said)


@pytest.mark.parametrize(
    "header",
    [
        (b"x", b"a\r\nset-cookie: b"),
        (b"x", b"a\nb"),
        (b"x", b"a\0"),
        (b"x\r\ny", b"a"),
        (b"x", b"\r"),
    ],
)
async def test_a_header_never_becomes_two(header: tuple[bytes, bytes]) -> None:
    connection = Connection(answering(whole(header)))
    sent = b"".join(await connection.ask())
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in sent
    assert connection.socket.closed


async def test_an_answer_is_given_once() -> None:
    connection = Connection(answering(whole(), whole(body=b"again")))
    (sent,) = await connection.ask()
    assert sent.endswith(b"done")
    assert connection.socket.closed


async def test_requests_that_came_together_are_answered_one_after_the_other() -> None:
    connection = Connection(answering(whole()))
    sent = await connection.ask(ASKED * 3)
    assert [each[-4:] for each in sent] == [b"done"] * 3


async def test_nothing_is_sent_to_one_who_has_left() -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        connection.protocol.connection_lost(None)
        await send(whole())

    connection = Connection(application)
    assert await connection.ask() == []


async def test_what_is_no_whole_answer_goes_out_as_it_is_said() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": []}
    body = {"type": "http.response.body", "body": b"a", "more_body": True}
    end = {"type": "http.response.body", "body": b"", "more_body": False}
    connection = Connection(answering(start, body, end))
    first, last = await connection.ask()
    assert first.endswith(b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    assert last == b"0\r\n\r\n"


BODY = {"type": "http.response.body", "body": b"a", "more_body": True}
END = {"type": "http.response.body", "body": b"", "more_body": False}


async def test_an_answer_of_unknown_length_goes_out_in_chunks_its_head_with_the_first() -> None:
    start = {"type": START, "status": 200, "headers": [(b"x-mobius-cache", b"miss")]}
    connection = Connection(answering(start, BODY, BODY, END))
    head = b"HTTP/1.1 200 OK\r\ndate: now\r\nx-mobius-cache: miss\r\ntransfer-encoding: chunked\r\n"
    expected = [head + b"\r\n1\r\na\r\n", b"1\r\na\r\n", b"0\r\n\r\n"]
    assert await connection.ask() == expected
    assert await connection.ask() == [*expected, *expected], "the connection is used again"
    closing = ASKED.replace(b"host: a", b"connection: close")
    assert b"connection: close\r\n" in (await connection.ask(closing))[6]
    assert connection.socket.closed


async def test_an_answer_of_unknown_length_begins_once() -> None:
    start = {"type": START, "status": 200, "headers": []}
    connection = Connection(answering(start, BODY, start))
    assert len(await connection.ask()) == 1
    assert connection.socket.closed


async def test_a_header_of_an_answer_of_unknown_length_never_becomes_two() -> None:
    start = {"type": START, "status": 200, "headers": [(b"x", b"a\r\nset-cookie: b")]}
    connection = Connection(answering(start, BODY, END))
    sent = b"".join(await connection.ask())
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in sent
    assert connection.socket.closed
