"""The process that listens: uvicorn, with an end that neither hangs nor cuts a stream silently."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from proxy import heap
from proxy.api.load import Drain
from proxy.cli.listen import CannotListen, urls
from proxy.cli.protocol import BoundedProtocol

# What is left after the grace has been told so; it may take this long to settle and go.
LAST_WAIT_S = 5.0
# Longer than the idle timeouts of common load balancers, so that it is they who hang up first.
KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """
    Serves until SIGTERM or SIGINT; then drains: readiness says no at once, requests in flight have
    the grace to finish, and what is left gets an error. A second signal ends the grace, a third
    one everything.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._drain: Drain = app.state.drain
        self._draining: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        heap.keep()
        if self.started and sockets:
            apart: frozenset[int] = self._app.state.metrics_ports
            for listener in sockets:
                (url,) = urls([listener], tls=self.config.is_ssl)
                metrics = listener.getsockname()[1] in apart
                self._say("listening_for_metrics" if metrics else "listening", url=url)

    @property
    def _say(self) -> Callable[..., None]:
        say: Callable[..., None] = self._app.state.say
        return say

    @property
    def _grace_s(self) -> float:
        grace: Callable[[], float] = self._app.state.grace
        return grace()

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
        grace_s = self._grace_s
        self._say("draining", in_flight=self._drain.in_flight, grace_s=grace_s)
        hurried = asyncio.create_task(self._hurry.wait())
        idle = asyncio.create_task(self._drain.wait_idle(grace_s))
        await asyncio.wait({hurried, idle}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        idle.cancel()
        # Also when nobody is left: whoever comes before the listener closes is sent elsewhere.
        self._drain.abort()
        await self._drain.wait_idle(LAST_WAIT_S)
        self.should_exit = True


def run(
    app: FastAPI,
    listeners: list[socket.socket],
    *,
    apart: Sequence[socket.socket] = (),
    kind: Callable[[uvicorn.Config, FastAPI], Server] = Server,
    **options: object,
) -> int:
    """
    Serve `app` on `listeners` until a signal; `options` are uvicorn's. Returns the exit code.

    On the listeners `apart` there is `/metrics`, and on the others there is not.

    Raises CannotListen when the files for TLS cannot be used.
    """
    ports = frozenset(each.getsockname()[1] for each in apart)
    app.state.metrics_ports = ports
    config = uvicorn.Config(
        app,
        http=BoundedProtocol.apart(ports) if ports else BoundedProtocol,
        log_level="warning",
        interface="asgi3",
        proxy_headers=False,  # who has asked from where is asked of few requests: see below
        access_log=False,  # the log has one line per request already
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(LAST_WAIT_S),
        lifespan="on",
        **options,  # type: ignore[arg-type]
    )
    app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=config.forwarded_allow_ips)
    try:
        config.load()
    except OSError as error:
        raise CannotListen(f"--ssl-certfile, --ssl-keyfile: {error}") from error
    server = kind(config, app)
    try:
        server.run([*listeners, *apart])
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0 if server.started else 1
