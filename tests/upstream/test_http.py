"""Why there is no answer is said in words that tell what to mend."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time

import pytest
import trustme
from yarl import URL

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
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
