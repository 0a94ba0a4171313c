"""Why there is no answer is said in words that tell what to mend."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

import pytest
import trustme
from yarl import URL

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import ANYBODY, Trust
from proxy.upstream.http import Http
from proxy.waiting import Waiting

pytestmark = pytest.mark.anyio


async def failure(url: str, **headers: str) -> UpstreamFailure:
    http = Http()
    try:
        with pytest.raises(UpstreamFailure) as caught:
            await http.post(
                URL(url), b"{}", headers, connect_s=5.0, waiting=Waiting(time.monotonic)
            )
    finally:
        await http.aclose()
    return caught.value


async def test_nobody_at_the_port_refuses() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and does not listen
        found = await failure(f"http://127.0.0.1:{held.getsockname()[1]}/")
    assert (found.kind, str(found)) == (Kind.UNREACHABLE, "it refuses connections")


async def test_a_certificate_of_nobody_we_trust_is_named() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(tls)
    server = await asyncio.start_server(
        lambda reader, writer: writer.close(), "127.0.0.1", 0, ssl=tls
    )
    async with server:
        found = await failure(f"https://localhost:{server.sockets[0].getsockname()[1]}/")
    assert found.kind is Kind.UNREACHABLE
    assert str(found).startswith("its certificate is not trusted: ")


async def test_plain_bytes_where_tls_was_expected_are_named() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with server:
        found = await failure(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert (found.kind, str(found)) == (Kind.UNREACHABLE, "it does not speak TLS as we do")


async def test_a_header_that_cannot_be_sent_is_no_fault_of_the_targets() -> None:
    found = await failure("http://127.0.0.1:9/", **{"x-name": "a\r\nb: c"})
    assert (found.kind, str(found)) == (
        Kind.DIALECT, "a header of this target holds a line break",
    )  # fmt: skip


async def test_through_a_proxy_too_the_certificate_must_be_of_whom_is_trusted() -> None:
    authority, tls = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(tls)
    tunnels: list[bytes] = []

    async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while await reader.readuntil(b"\r\n\r\n{}"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tunnels.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[1])
        onward = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))

    async with (
        await asyncio.start_server(provide, "127.0.0.1", 0, ssl=tls) as provider,
        await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy,
    ):
        port = provider.sockets[0].getsockname()[1]
        http = Http(proxies={"https": f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"})

        async def ask(trust: Trust | None) -> bytes:
            url, waiting = URL(f"https://localhost:{port}/"), Waiting(time.monotonic)
            answer = await http.post(url, b"{}", {}, connect_s=5.0, waiting=waiting, trust=trust)
            return await answer.whole(1024)

        try:
            for trust in (ANYBODY, ANYBODY, Trust("x", authority.cert_pem.bytes().decode())):
                assert await ask(trust) == b"ok"
            assert tunnels == [f"localhost:{port}".encode()] * 2
            with pytest.raises(UpstreamFailure):
                await ask(None)
        finally:
            await http.aclose()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
    writer.close()
