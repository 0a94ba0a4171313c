"""One of several processes at one address. Its standard input is the line to the supervisor."""

from __future__ import annotations

import os
import signal
import socket
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import orjson
import uvicorn
from fastapi import FastAPI

from proxy.app import create_app
from proxy.cli import leave, server
from proxy.cli.guard import guarded
from proxy.cli.line import Line
from proxy.cli.spawn import Order
from proxy.cli.supervisor import LISTENING, NUMBERS, RELOAD, RELOAD_S
from proxy.config import ConfigError
from proxy.everyone import Alone, Reloaded, Silent
from proxy.numbers import Numbers, as_json, from_json


class Workers:
    """All workers, as the supervisor speaks for them."""

    def __init__(self) -> None:
        self.line: Line | None = None

    async def numbers(self) -> Numbers:
        return from_json(await self.ask(NUMBERS))

    async def reload(self) -> Reloaded:
        return Reloaded(**await self.ask(RELOAD, timeout_s=RELOAD_S))

    async def ask(self, word: str, **how: float) -> Any:
        if self.line is None:
            raise Silent("this worker has no supervisor")
        try:
            return await self.line.ask(word, **how)
        except Silent as exc:
            raise Silent(f"the other workers cannot be asked: {exc}") from exc


class WorkerServer(server.Server):
    """A server that ends with its supervisor, and leaves Ctrl-C to it."""

    def __init__(
        self, config: uvicorn.Config, app: FastAPI, *, end: socket.socket, workers: Workers
    ) -> None:
        super().__init__(config, app)
        self._end = end
        self._workers = workers

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._workers.line = line = await Line(self._answer).open(self._end)
        line.on_end = lambda: self.handle_exit(signal.SIGTERM, None)
        try:
            await super().serve(sockets)
        finally:
            line.on_end = None
            await line.aclose()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            await self._workers.ask(LISTENING)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # A terminal sends it to the whole group, and the supervisor sends each worker a SIGTERM.
        if sig != signal.SIGINT:
            super().handle_exit(sig, frame)

    async def _answer(self, word: str) -> Any:
        alone: Alone = self._app.state.alone
        if word == RELOAD:
            return asdict(await alone.reload())
        return as_json(await alone.numbers() if word == NUMBERS else alone.glance())


def command() -> NoReturn:
    """Be one worker: this ends with it."""
    try:
        sys.exit(_work())
    except SystemExit as ended:
        leave(ended)


def _work() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end, order = _begin()
    environ = dict(os.environ)
    path = Path(order.config)
    load = guarded(loopback=order.loopback, several=True, redis=order.redis)
    try:
        config = load(path, environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    workers = Workers()
    app = create_app(path, config, environ=environ, load=load, everyone=workers)
    listeners = [socket.socket(fileno=each) for each in order.listeners]
    kind = partial(WorkerServer, end=end, workers=workers)
    apart = [socket.socket(fileno=each) for each in order.apart]
    return server.run(app, listeners, apart=apart, kind=kind, **order.options)


def _begin() -> tuple[socket.socket, Order]:
    """Return the line's end, which is standard input no more, and what was told on it first."""
    end = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    told = b""
    while not told.endswith(b"\n"):
        piece = end.recv(65536)
        if not piece:
            sys.exit(0)  # the supervisor is gone already
        told += piece
    end.setblocking(False)
    return end, Order(**orjson.loads(told))
