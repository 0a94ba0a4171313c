"""Connections are used again, made in time, and never given a header that is two."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import trustme
from yarl import URL

from proxy.types import ANYBODY, Trust
from proxy.upstream.connection import ConnectionBroken
from proxy.upstream.pool import Pool
from proxy.waiting import Waiting

pytestmark = pytest.mark.anyio

HEADERS = {"content-type": "application/json", "authorization": "Bearer x"}
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Provider:
    """A server that answers each request on a connection with the same bytes."""

    def __init__(self, answer: bytes = ANSWER) -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.asked, self.closed = asyncio.Semaphore(0), asyncio.Semaphore(0)
        self._handlers: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            await asyncio.gather(*self._handlers)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._handlers.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(length))
                self.asked.release()
                writer.write(self.answer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        self.closed.release()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    def url(self, scheme: str = "http", host: str = "127.0.0.1") -> URL:
        return URL(f"{scheme}://{host}:{self.port}/v1/chat?a=b%2Fc", encoded=True)


@contextlib.asynccontextmanager
async def pooled(keep_alive_s: float = 90.0) -> AsyncIterator[Pool]:
    pool = Pool(keep_alive_s=keep_alive_s)
    try:
        yield pool
    finally:
        pool.close()


async def ask(
    pool: Pool,
    url: URL,
    body: bytes = b"{}",
    more: Mapping[str, str] = MappingProxyType({}),
    trust: Trust | None = None,
) -> bytes:
    waiting, headers = Waiting(time.monotonic), {**HEADERS, **more}
    arrival = await pool.post(url, body, headers, connect_s=5.0, waiting=waiting, trust=trust)
    found = b""
    while piece := await arrival.read():
        found += piece
    return found


async def test_a_request_is_sent_as_it_is_told_and_its_connection_used_again() -> None:
    async with Provider().listening() as provider, pooled() as pool:
        for _ in range(3):
            assert await ask(pool, provider.url(), b'{"x":1}') == b"ok"
        assert provider.connections == 1
        assert provider.bodies == [b'{"x":1}'] * 3
        lines = provider.heads[0].decode().split("\r\n")
        assert lines[0] == "POST /v1/chat?a=b%2Fc HTTP/1.1"
        assert sorted(lines[1:-2]) == [
            "authorization: Bearer x",
            "content-length: 7",
            "content-type: application/json",
            f"host: 127.0.0.1:{provider.port}",
        ]


async def test_requests_at_once_have_a_connection_each() -> None:
    async with Provider().listening() as provider, pooled() as pool:
        await asyncio.gather(*(ask(pool, provider.url()) for _ in range(5)))
        assert provider.connections == 5
        await asyncio.gather(*(ask(pool, provider.url()) for _ in range(5)))
        assert provider.connections == 5


async def test_those_who_connect_at_once_look_the_name_up_once() -> None:
    loop = asyncio.get_running_loop()
    getaddrinfo, looked_up = loop.getaddrinfo, list[object]()

    async def counted(host: object, *rest: Any, **more: Any) -> Any:
        looked_up.append(host)
        return await getaddrinfo("127.0.0.1", *rest, **more)

    loop.getaddrinfo = counted  # type: ignore[method-assign]
    async with Provider().listening() as provider, pooled() as pool:
        await asyncio.gather(*(ask(pool, provider.url(host="somewhere")) for _ in range(5)))
        assert (provider.connections, looked_up) == (5, ["somewhere"])


async def test_a_large_body_arrives_whole() -> None:
    async with Provider().listening() as provider, pooled() as pool:
        body = b"x" * 3_000_000
        assert await ask(pool, provider.url(), body) == b"ok"
        assert provider.bodies == [body]


async def test_a_connection_that_has_waited_too_long_is_closed() -> None:
    async with Provider().listening() as provider, pooled(keep_alive_s=0.01) as pool:
        await ask(pool, provider.url())
        await asyncio.wait_for(provider.closed.acquire(), 5)
        assert await ask(pool, provider.url()) == b"ok"
        assert provider.connections == 2


async def test_a_connection_that_the_provider_has_closed_is_not_used_again() -> None:
    closing = ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with Provider(closing).listening() as provider, pooled() as pool:
        await ask(pool, provider.url())
        await ask(pool, provider.url())
        assert provider.connections == 2


@pytest.mark.parametrize(
    ("says", "connections"),
    [("timeout=1", 2), ("max=99, Timeout=0", 2), ("timeout=5, max=99", 1), ("max=1", 1)],
)
async def test_a_connection_is_kept_no_longer_than_its_provider_says(
    says: str, connections: int
) -> None:
    answer = ANSWER.replace(b"\r\n\r\n", b"\r\nkeep-alive: %b\r\n\r\n" % says.encode())
    async with Provider(answer).listening() as provider, pooled() as pool:
        await ask(pool, provider.url())
        await ask(pool, provider.url())
        assert provider.connections == connections


async def test_what_the_file_says_of_the_host_is_sent_and_of_the_length_is_not() -> None:
    async with Provider().listening() as provider, pooled() as pool:
        headers = {"host": "elsewhere", "content-length": "99", "transfer-encoding": "chunked"}
        assert await ask(pool, provider.url(), more=headers) == b"ok"
        head = provider.heads[0]
        assert head.count(b"host: ") == 1
        assert b"host: elsewhere\r\n" in head
        assert b"content-length: 2\r\n" in head
        assert b"chunked" not in head


@pytest.mark.parametrize("value", ["a\r\nx-evil: b", "a\nb", "a\rb", "a\0b"])
async def test_a_header_that_would_be_two_is_never_sent(value: str) -> None:
    async with Provider().listening() as provider, pooled() as pool:
        with pytest.raises(ValueError, match="line break"):
            await ask(pool, provider.url(), more={"x-name": value})
        assert provider.connections == 0


@pytest.mark.parametrize("name", ["", "a b", "a:", "ä", "a\nb"])
async def test_a_header_whose_name_is_none_is_never_sent(name: str) -> None:
    async with Provider().listening() as provider, pooled() as pool:
        with pytest.raises(ValueError, match="name that is none"):
            await ask(pool, provider.url(), more={name: "x"})
        assert provider.connections == 0


async def test_nobody_at_the_address_is_an_error_at_once() -> None:
    async with Provider().listening() as provider:
        url = provider.url()
    async with pooled() as pool:
        with pytest.raises(OSError, match=r"refused|Connect call failed|Multiple"):
            await ask(pool, url)


async def test_a_provider_that_hangs_up_breaks_the_request() -> None:
    async with Provider(b"").listening() as provider, pooled() as pool:
        asking = asyncio.create_task(ask(pool, provider.url()))
        await provider.asked.acquire()
        provider.hang_up()
        with pytest.raises(ConnectionBroken):
            await asking


async def test_one_who_stops_waiting_for_the_head_closes_the_connection() -> None:
    async with Provider(b"").listening() as provider, pooled() as pool:
        asking = asyncio.create_task(ask(pool, provider.url()))
        await provider.asked.acquire()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(provider.closed.acquire(), 5)


async def test_over_tls_the_certificate_must_be_that_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with Provider().listening(tls) as provider, pooled() as stranger:
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(stranger, provider.url("https", "localhost"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        async with pooled() as pool:
            for _ in range(2):
                assert await ask(pool, provider.url("https", "localhost")) == b"ok"
            assert len(provider.heads) == 2
            with pytest.raises(ssl.SSLCertVerificationError):
                await ask(pool, provider.url("https", "127.0.0.1"))


async def test_a_connection_is_used_again_only_by_those_who_trust_alike() -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    known = Trust("a digest", authority.cert_pem.bytes().decode())
    async with Provider().listening(tls) as provider, pooled() as pool:
        url = provider.url("https", "localhost")
        for _ in range(2):
            assert await ask(pool, url, trust=ANYBODY) == b"ok"
        assert provider.connections == 1
        for _ in range(2):
            assert await ask(pool, url, trust=known) == b"ok"
        assert provider.connections == 2
        # What stands idle was made for those who ask less of a certificate.
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(pool, url)
        with pytest.raises(ssl.SSLCertVerificationError):
            await ask(pool, provider.url("https", "127.0.0.1"), trust=known)
        assert await ask(pool, provider.url("https", "127.0.0.1"), trust=ANYBODY) == b"ok"
