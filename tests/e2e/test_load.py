"""More than it can serve, and what is no request at all: turned away at once, at nobody's cost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from proxy.cli.protocol import MOST_HEAD_BYTES
from tests.e2e.stream_checks import check_envelope, request_bytes, said, target
from tests.harness import Mobius, total
from tests.providers import Answer, FakeAnthropic, FakeOpenAI, FakeProvider, Gate

pytestmark = pytest.mark.e2e

PLACES = 100
SURPLUS = 20
TOKENS = 30
DEPTH = 16
BODY_BYTES = 1024 * 1024
HEADER_BYTES = 8 * 1024
NAMES = ("openai-gpt", "anthropic-claude")
CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Place:
    """A Mobius with few places and small limits, and the providers behind it."""

    mobius: Mobius
    fakes: Sequence[FakeProvider]

    def rejected(self, reason: str) -> float:
        """How many requests were turned away for that."""
        return total(self.mobius.metrics(), "mobius_rejected_total", reason=reason)

    def asked(self) -> int:
        """How many requests the providers have seen."""
        return sum(len(fake.journal) for fake in self.fakes)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as openai_fake, FakeAnthropic() as anthropic_fake:
        fakes = (openai_fake, anthropic_fake)
        models = [
            target(name.replace("-", "/"), fake.base_url)
            for name, fake in zip(NAMES, fakes, strict=True)
        ]
        limits = {
            "in_flight": PLACES,
            "body_mb": BODY_BYTES / 1024**2,
            "json_depth": DEPTH,
            "header_kb": HEADER_BYTES / 1024,
        }
        with Mobius({"model_list": models, "mobius": {"limits": limits}}) as mobius:
            yield Place(mobius, fakes)


@asynccontextmanager
async def crowd(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit of its own."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(base_url=url, connector=connector) as session:
        yield session


@dataclass(frozen=True)
class Reply:
    """One answer, whole."""

    status: int
    headers: httpx.Headers
    text: str

    @property
    def events(self) -> list[Any]:
        """The JSON of each event but for what no two answers share; `[DONE]` as it is."""
        data = [line[6:] for line in self.text.split("\n\n") if line.startswith("data: ")]
        found = [json.loads(event) for event in data[:-1]]
        return [{**event, "id": "", "created": 0} for event in found] + data[-1:]


async def _ask(session: aiohttp.ClientSession, model: str, *, stream: bool) -> Reply:
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    async with session.post(CHAT, json=body) as answer:
        headers = httpx.Headers(list(answer.headers.items()))
        return Reply(answer.status, headers, await answer.text())


def test_what_is_too_much_is_refused_and_what_was_admitted_is_served(place: Place) -> None:
    gate = Gate()
    for fake in place.fakes:
        fake.always(Answer(tokens=TOKENS, gate=gate))
    admitted, refused = asyncio.run(_fill(place, gate))
    for reply in refused:
        assert reply.status == 503
        assert check_envelope(json.loads(reply.text))["code"] == "server_is_overloaded"
        assert 1 <= int(reply.headers["retry-after"]) <= 3
    assert len({reply.headers["retry-after-ms"] for reply in refused}) > 1
    for reply in admitted:
        assert reply.status == 200
        assert reply.events == admitted[0 if reply.events[0]["model"] == "gpt" else 1].events
        deltas = [event["choices"][0]["delta"] for event in reply.events[:-1]]
        assert "".join(delta.get("content") or "" for delta in deltas) == said(TOKENS)
        assert reply.events[-1] == "[DONE]"
    assert place.asked() == PLACES
    assert place.rejected("server_is_overloaded") == SURPLUS
    samples = place.mobius.metrics()
    assert total(samples, "mobius_in_flight_requests") == 0
    assert total(samples, "mobius_request_seconds_count", outcome="ok") == PLACES
    assert total(samples, "mobius_request_seconds_count") == PLACES
    for fake in place.fakes:
        fake.reset_script()
    client = place.mobius.openai()
    answer = client.chat.completions.create(
        model="openai-gpt", messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.choices[0].message.content == said(5)


async def _fill(place: Place, gate: Gate) -> tuple[list[Reply], list[Reply]]:
    """Every place is taken, then more come; the answers of the first and of the others."""
    async with crowd(place.mobius.url) as session:
        first = [
            asyncio.create_task(_ask(session, NAMES[at % 2], stream=True)) for at in range(PLACES)
        ]
        for fake in place.fakes:
            await fake.journal.wait_async(lambda journal: len(journal) == PLACES // 2, 30.0)
        more = [_ask(session, NAMES[0], stream=at % 2 > 0) for at in range(SURPLUS)]
        refused = await asyncio.gather(*more)
        async with session.get("/health/readiness") as ready:
            assert ready.status == 200, "a full server is no dead one"
        gate.open()
        return list(await asyncio.gather(*first)), list(refused)


def _nested(levels: int) -> bytes:
    body = b'{"model": "openai-gpt", "messages": [{"role": "user", "content": %s}]}'
    return body % (b"[" * levels + b"]" * levels)


LARGE = b'{"model": "' + b"a" * (3 * BODY_BYTES) + b'"}'
WRONG: dict[str, tuple[bytes, int, str | None]] = {
    "larger than allowed": (LARGE, 413, "request_too_large"),
    "nested too deep": (_nested(DEPTH), 400, None),
    "nested far too deep": (_nested(100_000), 400, None),
    "no JSON": (b"{'model': 'openai-gpt'}", 400, None),
    "half of it": (b'{"model": "openai-gpt", "messages": [{"ro', 400, None),
    "nothing": (b"", 400, None),
    "a list": (b"[]", 400, None),
    "no UTF-8": (b'{"model": "\xff\xfe"}', 400, None),
    "no messages": (b'{"model": "openai-gpt"}', 400, None),
    "no model": (b'{"messages": [{"role": "user", "content": "hi"}]}', 400, None),
    "an unknown model": (
        b'{"model": "nobody", "messages": [{"role": "user", "content": "hi"}]}',
        404,
        "model_not_found",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_that_is_no_request_is_refused_in_our_words(
    place: Place, kind: str, chunked: bool
) -> None:
    body, status, code = WRONG[kind]
    before = place.asked()
    content = iter([body[at : at + 65536] for at in range(0, len(body), 65536)])
    answer = place.mobius.http.post(CHAT, content=content if chunked else body)
    assert answer.status_code == status, answer.text
    error = check_envelope(answer.json())
    assert (error["type"], error["code"]) == ("invalid_request_error", code)
    assert answer.headers["x-request-id"]
    assert place.asked() == before
    assert total(place.mobius.metrics(), "mobius_in_flight_requests") == 0


def test_headers_larger_than_allowed_are_refused(place: Place) -> None:
    before = place.asked()
    for size in (HEADER_BYTES, 4 * HEADER_BYTES):
        answer = place.mobius.http.post(CHAT, headers={"x-large": "a" * size}, json={})
        assert answer.status_code == 431
        assert check_envelope(answer.json())["code"] == "request_headers_too_large"
    assert place.asked() == before


def test_other_addresses_and_methods_have_envelopes_too(place: Place) -> None:
    http = place.mobius.http
    assert check_envelope(http.get("/v2/anything").json())["code"] == "unknown_url"
    assert http.get(CHAT).status_code == 405
    assert check_envelope(http.get(CHAT).json())["code"] == "method_not_supported"


def test_the_sdk_raises_what_it_raises_for_openai_itself(place: Place) -> None:
    client = place.mobius.openai()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(
            model="nobody", messages=[{"role": "user", "content": "hi"}], stream=True
        )
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="openai-gpt", messages=[])


@pytest.mark.parametrize("opening", [b"GET /", b"GET / HTTP/1.1\r\nhost: x\r\nx-long: "])
def test_a_head_without_an_end_is_cut_off(place: Place, opening: bytes) -> None:
    address = ("127.0.0.1", place.mobius.port)
    with socket.create_connection(address, timeout=10) as endless:
        endless.sendall(opening.ljust(MOST_HEAD_BYTES + 1, b"a"))
        head, _, body = endless.recv(65_536).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 431 ")
        assert check_envelope(json.loads(body))["code"] == "request_headers_too_large"
        assert endless.recv(1) == b""
    with socket.create_connection(address, timeout=10) as endless:
        endless.sendall(opening)
        with pytest.raises(ConnectionError):
            endless.sendall(b"a" * 64 * 1024**2)  # far more than the buffers between us


def test_a_request_that_is_turned_away_has_one_line_in_the_log(place: Place) -> None:
    answer = place.mobius.http.post(CHAT, content=b"{", headers={"x-request-id": "turned-away"})
    assert answer.status_code == 400
    place.mobius.wait_until(lambda: "turned-away" in place.mobius.log)
    assert place.mobius.log.count("turned-away") == 1


def test_a_client_that_never_ends_its_request_holds_up_nobody(place: Place) -> None:
    request = request_bytes({"model": "openai-gpt", "messages": []})
    slow = [socket.create_connection(("127.0.0.1", place.mobius.port)) for _ in range(20)]
    try:
        for at, half in enumerate(slow):
            half.sendall(request[: len(request) - 1 - at % 2 * 40])
        answer = place.mobius.http.post(
            CHAT, json={"model": "openai-gpt", "messages": [{"role": "user", "content": "hi"}]}
        )
        assert answer.status_code == 200
    finally:
        for half in slow:
            half.close()
    place.mobius.wait_until(lambda: total(place.mobius.metrics(), "mobius_in_flight_requests") == 0)
