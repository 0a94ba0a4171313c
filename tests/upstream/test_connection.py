"""One connection: whatever way its bytes are split, an answer arrives whole, or is said not to."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.connection import (
    BUFFER_BYTES,
    MOST_HEAD_BYTES,
    Arrival,
    Connection,
    ConnectionBroken,
)
from proxy.waiting import Waiting

pytestmark = pytest.mark.anyio

ORIGIN = ("http", "provider", 80, None)
HEAD, BODY = b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n", b"{}"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SIZED = OK + b"content-length: 5\r\n\r\nhello"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n"
CONTINUED = b"HTTP/1.1 100 Continue\r\nX-Not: told\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + SIZED
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
UNTIL_CLOSED = OK + b"\r\nhello"
CLOSING = OK + b"connection: close\r\ncontent-length: 5\r\n\r\nhello"


class Socket:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.reading = True
        self.aborted = False
        self.unsent_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


class Keeper:
    """The owner of the connections, which writes down what it is told."""

    def __init__(self) -> None:
        self.free: list[Connection] = []
        self.gone: list[Connection] = []

    def freed(self, connection: Connection) -> None:
        self.free.append(connection)

    def lost(self, connection: Connection) -> None:
        self.gone.append(connection)


class Line:
    """A connection that is made, and the socket under it."""

    def __init__(self) -> None:
        self.keeper, self.socket = Keeper(), Socket()
        self.connection = Connection(ORIGIN, self.keeper)
        self.connection.connection_made(cast(asyncio.BaseTransport, self.socket))

    def ask(self) -> Arrival:
        return self.connection.send(HEAD, BODY, Waiting(time.monotonic))

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)


async def whole(arrival: Arrival) -> bytes:
    await arrival.head()
    body = b""
    while piece := await arrival.read():
        body += piece
    return body


def pieces_of(data: bytes, places: set[int]) -> list[bytes]:
    bounds = [0, *sorted(place % len(data) for place in places), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds) if a < b]


@given(
    places=st.sets(st.integers(0, 500), max_size=20),
    answer=st.sampled_from(
        [(SIZED, b"hello"), (CHUNKED, b"hello"), (CONTINUED, b"hello"), (EMPTY, b"")]
    ),
)
def test_an_answer_is_the_same_however_its_bytes_are_split(
    places: set[int], answer: tuple[bytes, bytes]
) -> None:
    async def main() -> None:
        line = Line()
        for _ in range(2):  # and the next one on the same connection
            arrival = line.ask()
            line.feed(*pieces_of(answer[0], places))
            assert await whole(arrival) == answer[1]
            assert arrival.status in {200, 204}
            assert not {"x-not", "x-sum"} & arrival.headers.keys()
        assert line.keeper.free == [line.connection, line.connection]
        assert line.socket.written == (HEAD + BODY) * 2

    asyncio.run(main())


async def test_headers_have_names_in_lower_case_and_any_bytes_for_values() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(
        b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nX-Odd: \xff\xc3\xa9\r\ncontent-length: 0\r\n\r\n"
    )
    assert await whole(arrival) == b""
    assert arrival.status == 429
    assert arrival.headers["retry-after"] == "3"
    assert arrival.headers["x-odd"] == "\udcffé"


async def test_pieces_are_read_as_they_come() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(OK + b"transfer-encoding: chunked\r\n\r\n")
    await arrival.head()
    line.feed(b"3\r\nhel\r\n")
    assert await arrival.read() == b"hel"
    reading = asyncio.create_task(arrival.read())
    await asyncio.sleep(0)
    assert not reading.done()
    line.feed(b"1\r\nl\r\n1\r\no\r\n")
    assert await reading == b"lo"
    line.feed(b"0\r\n\r\n")
    assert await arrival.read() == b""
    assert await arrival.read() == b""


async def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(UNTIL_CLOSED)
    line.connection.connection_lost(None)
    assert await whole(arrival) == b"hello"
    assert line.keeper.free == []
    assert line.keeper.gone == [line.connection]


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", None),
        (OK, None),
        (OK + b"content-length: 9\r\n\r\nhel", None),
        (OK + b"transfer-encoding: chunked\r\n\r\n3\r\nhel\r\n", None),
        (UNTIL_CLOSED, ConnectionResetError()),
    ],
    ids=["nothing", "half a head", "half a length", "no last chunk", "a reset"],
)
async def test_an_answer_that_is_cut_is_broken_after_what_had_come(
    sent: bytes, error: Exception | None
) -> None:
    line = Line()
    arrival = line.ask()
    if sent:
        line.feed(sent)
    line.connection.connection_lost(error)
    if b"\r\n\r\n" in sent:
        await arrival.head()
        assert await arrival.read() in {b"hel", b"hello"}
        with pytest.raises(ConnectionBroken):
            await arrival.read()
    else:
        with pytest.raises(ConnectionBroken):
            await arrival.head()
    assert line.keeper.free == []


@pytest.mark.parametrize(
    "sent",
    [b"<html>\r\n\r\n", b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"],
    ids=["no HTTP", "an upgrade"],
)
async def test_what_is_no_answer_breaks_the_connection(sent: bytes) -> None:
    line = Line()
    arrival = line.ask()
    line.feed(sent)
    with pytest.raises(ConnectionBroken):
        await arrival.head()
    assert line.socket.aborted
    assert not line.connection.usable


async def test_a_head_without_an_end_is_not_kept() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(OK)
    for _ in range(MOST_HEAD_BYTES // 1000 + 1):
        line.feed(b"x: " + b"y" * 995 + b"\r\n")
    with pytest.raises(ConnectionBroken, match="too long"):
        await arrival.head()
    assert line.socket.aborted


@pytest.mark.parametrize("backlog", ["in the buffer", "told"])
async def test_a_connection_with_a_request_still_to_be_sent_takes_no_other(backlog: str) -> None:
    line = Line()
    arrival = line.ask()
    if backlog == "told":
        line.connection.pause_writing()
    else:
        line.socket.unsent_bytes = 1
    line.feed(SIZED)  # a refusal, say, of a body that nobody wants to read
    assert await whole(arrival) == b"hello"
    assert line.keeper.free == []
    assert line.socket.aborted


async def test_a_connection_that_the_provider_is_closing_takes_no_request() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(SIZED)
    assert await whole(arrival) == b"hello"
    line.connection.eof_received()
    with pytest.raises(ConnectionBroken):
        await line.ask().head()
    assert line.socket.written == HEAD + BODY


async def test_an_answer_without_a_length_that_we_cut_is_not_whole() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(UNTIL_CLOSED)
    line.connection.abort()
    line.connection.connection_lost(None)
    assert await arrival.read() == b"hello"
    with pytest.raises(ConnectionBroken):
        await arrival.read()


async def test_a_connection_that_says_it_closes_is_not_used_again() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(CLOSING)
    assert await whole(arrival) == b"hello"
    assert line.keeper.free == []
    assert line.socket.aborted


@pytest.mark.parametrize("more", [SIZED, b"garbage\r\n\r\n"])
async def test_bytes_that_nobody_asked_for_end_the_connection_and_not_the_answer(
    more: bytes,
) -> None:
    line = Line()
    arrival = line.ask()
    line.feed(SIZED + more)
    assert await whole(arrival) == b"hello"
    assert not line.connection.usable
    assert line.socket.aborted
    later = Line()
    later.feed(SIZED)
    assert later.socket.aborted


async def test_a_reader_who_is_slow_is_not_sent_more_than_is_held_for_him() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(OK + b"content-length: %d\r\n\r\n" % (BUFFER_BYTES * 2))
    line.feed(b"x" * BUFFER_BYTES)
    assert line.socket.reading
    line.feed(b"x")
    assert not line.socket.reading
    assert await arrival.read() == b"x" * (BUFFER_BYTES + 1)
    assert line.socket.reading
    line.feed(b"x" * (BUFFER_BYTES - 1))
    assert line.keeper.free == [line.connection]


async def test_a_connection_is_read_again_by_the_next_when_all_had_come_at_once() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(OK + b"content-length: %d\r\n\r\n" % (BUFFER_BYTES + 1) + b"x" * (BUFFER_BYTES + 1))
    assert line.socket.reading
    assert len(await whole(arrival)) == BUFFER_BYTES + 1


async def test_one_who_leaves_before_the_end_closes_the_connection_and_after_it_does_not() -> None:
    line = Line()
    arrival = line.ask()
    line.feed(SIZED[:-1])
    arrival.close()
    assert line.socket.aborted
    line = Line()
    arrival = line.ask()
    line.feed(SIZED)
    arrival.close()
    assert not line.socket.aborted
    assert line.connection.usable


async def test_nothing_is_sent_on_a_connection_that_is_closed() -> None:
    line = Line()
    line.connection.connection_lost(None)
    arrival = line.ask()
    assert line.socket.written == b""
    with pytest.raises(ConnectionBroken):
        await arrival.head()


async def test_the_time_until_something_comes_is_the_providers() -> None:
    line, now = Line(), 1000.0
    waiting = Waiting(lambda: now)
    arrival = line.connection.send(HEAD, BODY, waiting)

    def answer(data: Any, seconds: float) -> None:
        nonlocal now
        now += seconds
        line.feed(data)

    loop = asyncio.get_running_loop()
    loop.call_soon(answer, SIZED[:-5], 2.0)
    await arrival.head()
    loop.call_soon(answer, b"hello", 0.5)
    assert await arrival.read() == b"hello"
    assert waiting.total_s == 2.5
