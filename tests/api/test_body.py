"""The body and the headers of a request, within their limits."""

from __future__ import annotations

import gzip
import zlib

import orjson
import pytest
from starlette.types import Message

from proxy.api.body import read_body
from proxy.api.headers import safe
from proxy.errors import BodyTooSlow
from tests.api.fakes import CHAT, COMPLETION, Client, Edge, replies, snapshot

pytestmark = pytest.mark.anyio

MB = 1024 * 1024


def edge(**limits: object) -> Edge:
    return Edge(replies(COMPLETION), snapshot(limits=limits))


def chat_of(size_bytes: int) -> bytes:
    """A chat request of exactly that size."""
    body = orjson.dumps({**CHAT, "x": ""})
    return body[:-2] + b"a" * (size_bytes - len(body)) + b'"}'


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    assert (await edge(body_mb=1).post(chat_of(MB)).run()).status == 200


async def test_a_body_over_the_limit_is_413_as_soon_as_it_is_over() -> None:
    app = edge(body_mb=1).app
    client = Client(app, pieces=[b"a" * MB, b"a", b"never read"])
    await client.run()
    assert client.status == 413
    assert client.error["code"] == "request_too_large"
    assert client._pieces == [b"never read"]


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    over = edge(body_mb=1)
    client = over.post(chat_of(MB), content_length=str(MB + 1))
    await client.run()
    assert client.status == 413
    assert len(client._pieces) == 1
    assert over.meters.reasons == ["request_too_large"]


async def test_a_body_that_does_not_come_is_waited_for_so_long_and_no_longer() -> None:
    client = Client(edge().app, pieces=[])
    with pytest.raises(BodyTooSlow) as slow:
        await read_body(client._receive, {}, MB, within_s=0.01)
    assert slow.value.status == 408


async def test_a_slow_body_loses_its_connection() -> None:
    slow = edge()

    async def late() -> Message:
        raise BodyTooSlow("the body was not here in time")

    client = slow.post()
    client._receive = late  # type: ignore[method-assign]
    await client.run()
    assert (client.status, client.error["code"]) == (408, "request_too_slow")
    assert client.headers["connection"] == "close"
    assert slow.meters.reasons == ["request_too_slow"]
    assert slow.drain.in_flight == 0


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000])
async def test_an_absurd_length_is_no_fault_of_ours(length: str) -> None:
    client = await edge(body_mb=1).post(content_length=length).run()
    assert client.status in {200, 413}


async def test_a_body_in_pieces_is_put_together() -> None:
    raw = orjson.dumps(CHAT)
    whole = edge()
    client = Client(whole.app, pieces=[raw[:5], b"", raw[5:]])
    await client.run()
    assert whole.gateway.calls[0].body == CHAT


@pytest.mark.parametrize("name", ["gzip", "x-gzip", " GZIP "])
async def test_a_gzip_body_is_unpacked(name: str) -> None:
    packed = edge()
    raw = orjson.dumps(CHAT)
    members = gzip.compress(raw[:10]) + gzip.compress(raw[10:])
    client = await packed.post(members, content_encoding=name).run()
    assert client.status == 200
    assert packed.gateway.calls[0].body == CHAT


async def test_a_gzip_bomb_is_413() -> None:
    bomb = gzip.compress(b"a" * (64 * MB))
    client = await edge(body_mb=1).post(bomb, content_encoding="gzip").run()
    assert client.status == 413


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (gzip.compress(b"{}", mtime=0)[:-9], "gzip"),
        (b"{}", "gzip"),
        (gzip.compress(b"{}", mtime=0) + b"junk", "gzip"),
        (zlib.compress(b"{}"), "gzip"),
        (b"", "br"),
        (b"{}", "gzip, gzip"),
    ],
)
async def test_an_encoding_that_cannot_be_undone_is_400(raw: bytes, encoding: str) -> None:
    client = await edge().post(raw, content_encoding=encoding).run()
    assert client.status == 400
    assert "gzip" in client.error["message"]


async def test_headers_over_the_limit_are_431_at_the_small_addresses_too() -> None:
    client = await edge(header_kb=1).get("/health/liveness", x_long="a" * 1024).run()
    assert (client.status, client.error["code"]) == (431, "request_headers_too_large")


async def test_headers_over_the_limit_are_431() -> None:
    over = edge(header_kb=1)
    client = await over.post(x_long="a" * 1024).run()
    assert client.status == 431
    assert client.error["code"] == "request_headers_too_large"
    assert over.meters.reasons == ["request_headers_too_large"]
    assert client._pieces != []


@pytest.mark.parametrize("given", ["a" * 129, "a b", "a\nb", "ä", ""])
async def test_a_request_id_unfit_for_logs_is_replaced(given: str) -> None:
    client = edge().post()
    client._scope["headers"] = [(b"x-request-id", given.encode())]
    assert (await client.run()).headers["x-request-id"].startswith("req_")


def test_header_values_are_one_bounded_line_of_latin_1() -> None:
    assert safe("a\r\nb\x00ü🙂 ") == "a??b?ü?".encode("latin-1")
    assert len(safe("a" * 5000)) == 2048
