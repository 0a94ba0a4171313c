"""The process that listens: uvicorn, with an end that neither hangs nor cuts a stream silently."""

from __future__ import annotations

import asyncio
import signal
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from proxy.api.load import Drain

# What is left after the grace has been told so; it may take this long to settle and go.
LAST_WAIT_S = 5.0
# Longer than the idle timeouts of common load balancers, so that it is they who hang up first.
KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """
    Serves until SIGTERM or SIGINT; then drains: readiness says no at once, requests in flight have
    `grace_s` to finish, and what is left gets an error. A second signal ends the grace, a third
    one everything.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, *, grace_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._grace_s = grace_s
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._loop is None:
            super().handle_exit(sig, frame)
            return
        if sig == signal.SIGINT:
            # What is captured is raised again at the end, which would make a SIGTERM that was
            # heeded look like one that was not.
            self._captured_signals.append(sig)
        if not self._drain.draining:
            self._drain.begin()
            self._loop.call_soon_threadsafe(self._start_draining)
        elif not self._hurry.is_set():
            self._loop.call_soon_threadsafe(self._hurry.set)
        else:
            self.should_exit = self.force_exit = True

    def _start_draining(self) -> None:
        self._draining = asyncio.create_task(self._drain_all(), name="drain")

    async def _drain_all(self) -> None:
        hurried = asyncio.create_task(self._hurry.wait())
        idle = asyncio.create_task(self._drain.wait_idle(self._grace_s))
        await asyncio.wait({hurried, idle}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        idle.cancel()
        # Also when nobody is left: whoever comes before the listener closes is sent elsewhere.
        self._drain.abort()
        await self._drain.wait_idle(LAST_WAIT_S)
        self.should_exit = True


def run(app: FastAPI, *, grace_s: float, **options: object) -> int:
    """Serve `app` until a signal; `options` are uvicorn's. Returns the exit code."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # the log has one line per request already
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(LAST_WAIT_S),
        lifespan="on",
        **options,  # type: ignore[arg-type]
    )
    server = Server(config, app.state.drain, grace_s=grace_s)
    try:
        server.run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0 if server.started else 1
