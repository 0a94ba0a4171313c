"""What a client and Mobius said to each other, byte by byte, whatever the client is written in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import h11

from tests.providers.ports import HOST, bound, port_of

_BLOCK = 64 * 1024
_BACKLOG = 256


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request and what came back; header names in lower case."""

    method: str
    path: str
    sent: bytes
    status: int
    headers: Mapping[str, str]
    heard: bytes
    whole: bool  # the answer came to its end: nobody left before

    @property
    def asked(self) -> Any:
        """The body of the request, parsed; None when there was none."""
        return json.loads(self.sent) if self.sent else None

    @property
    def streamed(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def events(self) -> list[bytes]:
        """The data of every event of a stream, the closing mark left out."""
        lines = [line for line in self.heard.split(b"\n") if line.startswith(b"data: ")]
        return [line[6:] for line in lines if line != b"data: [DONE]"]


@dataclass(slots=True)
class _Connection:
    sent: bytearray = field(default_factory=bytearray)
    heard: bytearray = field(default_factory=bytearray)
    over: bool = False


class Tap:
    """A port that is connected to another as by a wire, and remembers what passed."""

    def __init__(self, port: int) -> None:
        self._beyond = port
        self._connections: list[_Connection] = []
        self._loop = asyncio.new_event_loop()
        self._listener = bound()
        self.port = port_of(self._listener)
        self._thread = threading.Thread(target=self._run, name="tap", daemon=True)
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """What a client takes for the address of Mobius."""
        return f"http://{HOST}:{self.port}"

    def clear(self) -> None:
        """What was said so far is forgotten; connections are kept."""
        self._connections = [each for each in self._connections if not each.over]
        for connection in self._connections:
            connection.sent.clear()
            connection.heard.clear()

    def exchanges(self) -> list[Exchange]:
        """Everything asked since the last clearing, connection by connection."""
        return [exchange for some in list(self._connections) for exchange in _read(some)]

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connect, sock=self._listener, backlog=_BACKLOG)
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beyond_reader, beyond_writer = await asyncio.open_connection(HOST, self._beyond)
        connection = _Connection()
        self._connections.append(connection)
        pumps = {
            asyncio.create_task(_pump(reader, beyond_writer, connection.sent)),
            asyncio.create_task(_pump(beyond_reader, writer, connection.heard)),
        }
        self._tasks |= pumps
        # Whoever hangs up, the other end hears of it at once.
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for side in (writer, beyond_writer):
            side.close()
        for pump in pumps:
            pump.cancel()
        self._tasks -= pumps
        connection.over = True


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(_BLOCK):
            kept += data
            writer.write(data)
            await writer.drain()


def _read(connection: _Connection) -> Iterator[Exchange]:
    sent, heard = bytes(connection.sent), bytes(connection.heard)
    while sent:
        asked, sent_body, sent = _message(h11.Connection(h11.SERVER), sent)
        assert isinstance(asked, h11.Request)
        told = h11.Connection(h11.CLIENT)
        told.send(h11.Request(method=asked.method, target=asked.target, headers=[("host", "x")]))
        told.send(h11.EndOfMessage())
        answer, heard_body, heard = _message(told, heard)
        status, headers = 0, dict[str, str]()
        if isinstance(answer, h11.Response):
            status = answer.status_code
            headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
        yield Exchange(
            method=asked.method.decode(),
            path=asked.target.decode(),
            sent=sent_body,
            status=status,
            headers=headers,
            heard=heard_body,
            whole=told.their_state is h11.DONE,
        )


def _message(reader: h11.Connection, data: bytes) -> tuple[Any, bytes, bytes]:
    """The head of the first message in `data`, its body as far as it came, and what is after it."""
    if not data:
        return None, b"", b""  # to h11 it would say that the other end has hung up
    reader.receive_data(data)
    head: Any = None
    body = bytearray()
    while True:
        event = reader.next_event()
        match event:
            case h11.Request() | h11.Response():
                head = event
            case h11.Data():
                body += event.data
            case h11.InformationalResponse():
                pass
            case _:  # its end, or there is no more of it
                return head, bytes(body), reader.trailing_data[0]
