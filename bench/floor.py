"""
`python -m bench.floor PORT ORIGIN`: the floor, a pass-through that copies bytes and knows nothing.

The least that a gateway on this stack can do: Starlette's router, a plain ASGI application behind
it, one pooled aiohttp session, and uvicorn with the settings of `proxy/cli/server.py`. Whatever
makes it slower than it could be flatters Mobius: no middleware, no response class, no checks.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import TypedDict

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

PATH = "/v1/chat/completions"
_PASSED_ON = ((b"content-type", "content-type"), (b"authorization", "authorization"))


class State(TypedDict):
    """What the lifespan opens."""

    session: aiohttp.ClientSession


class Relay:
    """The one endpoint: the body goes out as it came in, and so does the answer."""

    def __init__(self, origin: str) -> None:
        self._url = origin + PATH

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(receive)
        given = dict(scope["headers"])
        headers = {name: given[raw].decode("latin-1") for raw, name in _PASSED_ON if raw in given}
        session: aiohttp.ClientSession = scope["state"]["session"]
        async with session.post(self._url, data=body, headers=headers) as answer:
            await _start(answer, send)
            if "content-length" in answer.headers:
                await send({"type": "http.response.body", "body": await answer.read()})
                return
            async for piece in answer.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    return body


async def _start(answer: aiohttp.ClientResponse, send: Send) -> None:
    kept = ("content-type", "content-length")
    headers = [
        (name.encode(), answer.headers[name].encode()) for name in kept if name in answer.headers
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[State]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield {"session": session}


def main(port: int, origin: str) -> None:
    """Serve until the process is ended."""
    app = Starlette(routes=[Route(PATH, Relay(origin), methods=["POST"])], lifespan=_lifespan)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        lifespan="on",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
