"""The edge behind a real server and a real socket: what the fakes could hide."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import openai
import orjson
import pytest
import uvicorn

from proxy.cli.protocol import BoundedProtocol
from proxy.replies import Completion
from tests.api.fakes import CHAT, STREAMED, Edge, Upstream, replies, snapshot
from tests.api.test_departures import Waiting

pytestmark = pytest.mark.anyio

ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}'
)
DELTA = (
    b'{"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,'
    b'"finish_reason":null,"delta":{"content":"t%d "}}]}'
)


def sdk(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


@asynccontextmanager
async def served(edge: Edge) -> AsyncIterator[str]:
    """Serve `edge` on a free port; the address is its base URL."""
    config = uvicorn.Config(edge.app, http=BoundedProtocol, port=0, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        edge.drain.abort()
        assert await edge.drain.wait_idle(10)
        await server.shutdown()


async def test_the_official_sdk_reads_a_completion() -> None:
    async with served(Edge(replies(Completion(ANSWER)))) as url, sdk(url) as client:
        answer = await client.chat.completions.create(
            model="gpt", messages=[{"role": "user", "content": "hi"}]
        )
    assert answer.choices[0].message.content == "hello"


async def test_the_official_sdk_reads_a_stream() -> None:
    source = Upstream(*(DELTA % n for n in range(50)))
    async with served(Edge(replies(source.stream))) as url, sdk(url) as client:
        stream = await client.chat.completions.create(
            model="gpt", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == "".join(f"t{n} " for n in range(50))
    assert source.settled == 1


async def test_hanging_up_on_a_silent_stream_closes_it() -> None:
    source = Upstream(DELTA % 0, asyncio.Event())
    edge = Edge(replies(source.stream))
    async with served(edge) as url, httpx.AsyncClient() as http:
        async with http.stream("POST", f"{url}/v1/chat/completions", json=STREAMED) as answer:
            assert await anext(answer.aiter_bytes()) == b"data: " + DELTA % 0 + b"\n\n"
            await source.silent.wait()
        assert await edge.drain.wait_idle(10)
        assert (source.closed, source.settled) == (1, 1)


async def test_hanging_up_before_the_answer_cancels_the_call() -> None:
    gateway = Waiting()
    gateway.may_clean_up.set()
    edge = Edge(gateway.serve)
    async with served(edge) as url, httpx.AsyncClient() as http:
        asking = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=CHAT))
        await gateway.asked.wait()
        asking.cancel()
        await asyncio.wait({asking})
        assert await edge.drain.wait_idle(10)
    assert gateway.cleaned_up


async def test_a_body_over_the_limit_gets_its_413() -> None:
    edge = Edge(replies(Completion(ANSWER)), snapshot(limits={"body_mb": 1}))

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"a" * 65_536

    async with served(edge) as url, httpx.AsyncClient() as http:
        for content in (endless(), b"a" * 3_000_000):
            answer = await http.post(f"{url}/v1/chat/completions", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "request_too_large"


async def test_head_has_no_body_and_the_connection_is_kept() -> None:
    async with served(Edge(replies(Completion(ANSWER)))) as url, httpx.AsyncClient() as http:
        head = await http.head(f"{url}/health/liveness")
        assert (head.status_code, head.content) == (200, b"")
        options = await http.options(f"{url}/v1/chat/completions")
        assert (options.status_code, options.headers["allow"]) == (204, "POST")
        for _ in range(3):
            answer = await http.post(f"{url}/v1/chat/completions", json=CHAT)
            assert answer.content == ANSWER


async def _answer(url: str, *pieces: bytes) -> bytes:
    """Say the pieces one after the other over one connection; return all that comes back."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    heard = b""
    with suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)  # a server on the same loop reads them apart
        heard = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return heard


OPENING = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
MB = 1024 * 1024


@pytest.mark.parametrize(
    "opening",
    [
        b"POST /",
        OPENING,
        OPENING + b"x-long: ",
        OPENING + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx-long: ",
    ],
)
async def test_a_head_without_an_end_loses_its_connection(opening: bytes) -> None:
    edge = Edge(replies(Completion(ANSWER)))
    async with served(edge) as url:
        heard = await _answer(url, opening, *[b"a" * 65_536] * 64)
    assert heard == b"" or heard.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))
    assert edge.gateway.calls == []


async def test_a_large_body_after_a_large_head_is_neither() -> None:
    edge = Edge(replies(Completion(ANSWER)))
    body = orjson.dumps({**CHAT, "x": "a" * MB})
    head = b"connection: close\r\nx-long: %s\r\ncontent-length: %d\r\n\r\n"
    one = OPENING + head % (b"a" * 30_000, len(body))
    async with served(edge) as url:
        heard = await _answer(url, one[:9000], one[9000:], body[:5], body[5:])
    assert heard.startswith(b"HTTP/1.1 200 ")
