"""
`python -m tests.harness.garbage FILE KIND…`: what requests leave for the garbage collector.

The service of that configuration, behind the protocol of its connections, is asked each kind of
request over and over while nothing is collected. A JSON object says for each kind how many objects
of which type were then unreachable: those that hold one another in a circle.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop
from fastapi import FastAPI
from uvicorn.server import ServerState

from proxy.app import create_app
from proxy.cli.protocol import BoundedProtocol
from proxy.config import load_config

TIMES = 20
WARM = 5
LEAVES = "leaves"  # the kind whose client goes before there is an answer


class Socket(asyncio.Transport):
    """A connection whose client reads at once; what it read is `got`."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.got = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.got += data

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...


class Connections:
    """Connections to the service."""

    def __init__(self, app: FastAPI, state: dict[str, Any]) -> None:
        self._config = uvicorn.Config(app, lifespan="off", proxy_headers=False, interface="asgi3")
        self._config.load()
        self._state = state
        self._server = ServerState()

    async def ask(self, kind: str) -> None:
        """Make one request of that kind, on a connection of its own, and hang up."""
        socket = Socket()
        protocol = BoundedProtocol(self._config, self._server, self._state)
        protocol.connection_made(cast(asyncio.BaseTransport, socket))
        protocol.data_received(request(kind))
        if kind == LEAVES:
            await asyncio.sleep(0.02)  # by then it waits for the provider
            protocol.connection_lost(None)
        if tasks := tuple(self._server.tasks):
            await asyncio.wait(tasks)
        protocol.connection_lost(None)
        assert socket.got.startswith(b"HTTP/1.1 ") is (kind != LEAVES)


def request(kind: str) -> bytes:
    """Return a request of the kind, which is also the name of its model."""
    body = {"model": kind, "messages": [{"role": "user", "content": "hi"}]}
    raw = json.dumps({**body, "stream": kind.endswith("stream")}).encode()
    control = b"max-age=1000" if kind.startswith("hit") else b"no-cache, no-store"
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncache-control: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (control, len(raw)) + raw


async def count(path: Path, kinds: list[str]) -> dict[str, dict[str, int]]:
    app = create_app(path, load_config(path, os.environ), write=lambda line: None)
    found = {}
    async with app.router.lifespan_context(app) as state:
        connections = Connections(app, dict(state or {}))
        for kind in kinds:
            for _ in range(WARM):
                await connections.ask(kind)
            gc.collect()
            for _ in range(TIMES):
                await connections.ask(kind)
            found[kind] = left()
    return found


def left() -> dict[str, int]:
    """Return how many objects of which type are unreachable, and collect them."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    gc.set_debug(0)
    types = Counter(type(each).__name__ for each in gc.garbage)
    gc.garbage.clear()
    gc.collect()
    return dict(types)


if __name__ == "__main__":
    gc.disable()
    sys.stdout.write(json.dumps(uvloop.run(count(Path(sys.argv[1]), sys.argv[2:]))) + "\n")
