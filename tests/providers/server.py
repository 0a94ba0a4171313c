"""A fake provider: a real HTTP server on a thread of its own, which does what its script says."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from tests.providers.connection import CloseKind, Connection
from tests.providers.dialect import Dialect
from tests.providers.journal import Entry, Journal
from tests.providers.ports import HOST, bound, port_of
from tests.providers.rendering import plain, transcript
from tests.providers.script import Script
from tests.providers.steps import Step
from tests.providers.transcript import Transcript
from tests.providers.wire import Peer, Request

_BACKLOG = 4096


class FakeProvider:
    """Listens from `start()` to `stop()`, any number of times, always on the same port.

    While it is stopped, connecting is refused and nobody else can take the port. `close()` ends
    it for good; as a context manager it is started and closed.
    """

    def __init__(self, dialect: Dialect, *, send_buffer_bytes: int | None = None) -> None:
        self.journal = Journal()
        self._dialect = dialect
        self._script = Script()
        self._send_buffer_bytes = send_buffer_bytes
        self._held = bound()
        self.port = port_of(self._held)
        self._running: _Running | None = None

    @property
    def base_url(self) -> str:
        """What an SDK's `base_url` should be."""
        return f"http://{HOST}:{self.port}{self._dialect.base_path}"

    def script(self, *steps: Step, model: str | None = None) -> None:
        """The next requests (of that model) are answered by these steps, in this order."""
        self._script.add(steps, model)

    def always(self, step: Step, *, model: str | None = None) -> None:
        """Whenever no scripted step is left (for that model), this one is taken."""
        self._script.repeat(step, model)

    def reset_script(self) -> None:
        """Every request gets a plain answer again."""
        self._script.clear()

    @property
    def steps_left(self) -> int:
        """Scripted steps that no request has taken yet."""
        return self._script.left()

    def start(self) -> None:
        """Connections are accepted."""
        if self._running is None:
            listener = bound(self.port)
            listener.listen(_BACKLOG)
            self._running = _Running(listener, self._adopt)

    def stop(self, how: CloseKind = "eof") -> None:
        """The listener and every connection are closed, as when the provider's process dies."""
        running, self._running = self._running, None
        if running is not None:
            running.end(how)

    def close(self) -> None:
        """Stopped, and the port is given back."""
        with self._held:
            self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _adopt(self, sock: socket.socket) -> Connection:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._send_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._send_buffer_bytes)
        return Connection(Peer(sock), self.journal, self._reply)

    def _reply(self, request: Request, connection: int) -> tuple[Entry, Transcript]:
        number = self.journal.next_number()
        ask = self._dialect.read(number, request, int(time.time()))
        entry = Entry(
            number=number,
            connection=connection,
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
            body=request.body,
            model=ask.model if ask else None,
            streams=ask.streams if ask else False,
            t_received=time.monotonic(),
        )
        if ask is None:
            return entry, plain(self._dialect, number, 404, self._dialect.error(404, None))
        if (fixed := self._dialect.fixed(ask)) is not None:
            step = self._script.told(ask.endpoint)
            if step is None:
                return entry, plain(self._dialect, number, 200, fixed)
            return entry, transcript(self._dialect, ask, step)
        return entry, transcript(self._dialect, ask, self._script.next(ask.model))


Adopt: TypeAlias = Callable[[socket.socket], Connection]


class _Running:
    """A listener served by an event loop on its own thread, until `end()`."""

    def __init__(self, listener: socket.socket, adopt: Adopt) -> None:
        self._listener = listener
        self._adopt = adopt
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._close_kind: CloseKind = "eof"
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="fake provider", daemon=True)
        self._thread.start()

    def end(self, how: CloseKind) -> None:
        """The thread is gone and all its sockets are closed; raises what a step failed with."""
        self._close_kind = how
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._failures:
            raise self._failures[0]

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        await self._stop.wait()
        self._loop.remove_reader(self._listener)
        self._listener.close()
        connections = dict(self._connections)
        for task, connection in connections.items():
            connection.close_kind = self._close_kind
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        for connection in connections.values():
            connection.abandon()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection = self._adopt(self._listener.accept()[0])
                task = self._loop.create_task(connection.serve())
                self._connections[task] = connection
                task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task, None)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)
