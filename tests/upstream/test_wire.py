"""The socket: one request per attempt, nothing unbounded, nobody led elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest

from proxy.clock import SystemClock
from proxy.retry import Kind
from proxy.upstream import wire as room
from proxy.upstream.unpack import PIECE_BYTES
from proxy.upstream.wire import WIRE, CurrentTransport, Transport, Wire, WireError
from proxy.waiting import Waiting
from tests.providers import (
    Answer,
    Breaks,
    Endless,
    Fails,
    FakeOpenAI,
    Resets,
    closed_port,
    html_page,
    redirects,
    unanswered_port,
)

MB = 1024 * 1024
T = TypeVar("T")
Ask = Callable[..., Awaitable[bytes]]


class Attempts:
    """Attempts of one process: each has a wire of its own, and all share the transport."""

    def __init__(self, fake: FakeOpenAI | None = None, **facts: Any) -> None:
        self.base = fake.base_url if fake is not None else ""
        self.facts: dict[str, Any] = {"connect_s": 2.0, "limit_bytes": MB, "stream": False, **facts}
        self.transport = Transport(SystemClock())
        # As LiteLLM is given it: whatever it is closed by, and however often.
        self.client = httpx.AsyncClient(transport=CurrentTransport())

    def wire(self, **facts: Any) -> Wire:
        waiting = Waiting(SystemClock().now)
        return Wire(transport=self.transport, waiting=waiting, **{**self.facts, **facts})

    async def ask(self, wire: Wire, url: str | None = None, **more: Any) -> bytes:
        """One request under `wire`: the body, or what was raised instead."""
        token = WIRE.set(wire)
        try:
            content = b'{"model": "m", "stream": %s}' % (b"true" if wire.stream else b"false")
            response = await self.client.post(
                url or f"{self.base}/chat/completions", content=content, **more
            )
            return response.content
        finally:
            WIRE.reset(token)


@contextmanager
def attempts(**facts: Any) -> Iterator[tuple[FakeOpenAI, Attempts]]:
    with FakeOpenAI() as fake:
        yield fake, Attempts(fake, **facts)


def fails(attempts: Attempts, wire: Wire, **more: Any) -> Kind:
    """The kind of the failure that the wire noted."""

    async def run() -> None:
        try:
            with pytest.raises(WireError):
                await attempts.ask(wire, **more)
        finally:
            await attempts.transport.aclose()

    asyncio.run(run())
    assert wire.failure is not None
    return wire.failure.kind


def succeeds(attempts: Attempts, *wires: Wire) -> list[bytes]:
    async def run() -> list[bytes]:
        try:
            return [await attempts.ask(wire) for wire in wires]
        finally:
            await attempts.transport.aclose()

    return asyncio.run(run())


def test_what_was_seen_is_noted() -> None:
    with attempts() as (fake, made):
        fake.script(Answer(headers={"X-Seen": "7"}))
        wire = made.wire()
        (body,) = succeeds(made, wire)
        assert (wire.sent, wire.status, wire.failure) == (True, 200, None)
        assert bytes(wire.body) == body != b""
        assert wire.headers["x-seen"] == "7"


def test_an_attempt_sends_once() -> None:
    with attempts() as (fake, made):
        wire = made.wire()

        async def run() -> None:
            await made.ask(wire)
            with pytest.raises(WireError):
                await made.ask(wire)
            await made.transport.aclose()

        asyncio.run(run())
        assert len(fake.journal) == 1
        # What LiteLLM does after an answer does not make a failure of it.
        assert wire.failure is None


def test_a_request_outside_of_any_attempt_is_not_sent() -> None:
    with attempts() as (fake, made):

        async def run() -> None:
            with pytest.raises(WireError):
                await made.client.post(f"{fake.base_url}/chat/completions", json={})

        asyncio.run(run())
        assert fake.journal.accepted == 0


def test_the_error_is_of_the_class_that_the_attempt_asks_for() -> None:
    class Told(WireError):
        pass

    with attempts(error=Told) as (fake, made):
        fake.script(Fails(500))

        async def run() -> None:
            wire = made.wire()
            for _ in range(2):
                with pytest.raises(Told):
                    await made.ask(wire)
            await made.transport.aclose()

        asyncio.run(run())


def test_compression_is_not_asked_for() -> None:
    with attempts() as (fake, made):
        succeeds(made, made.wire())
        assert fake.journal.last.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("packed", ["gzip", "deflate"])
def test_what_is_compressed_all_the_same_is_unpacked(packed: str) -> None:
    plain = b'{"a": "' + b"x" * 200_000 + b'"}'
    data = gzip.compress(plain) if packed == "gzip" else zlib.compress(plain)
    with attempts() as (fake, made):
        fake.script(Answer(raw_body=data, headers={"content-encoding": packed}))
        assert succeeds(made, made.wire()) == [plain]


def test_compression_that_is_unknown_or_broken_is_the_provider_s_fault() -> None:
    for encoding in ("br", "gzip"):
        with attempts() as (fake, made):
            fake.script(Answer(raw_body=b"not packed", headers={"content-encoding": encoding}))
            assert fails(made, made.wire()) is Kind.TRANSIENT


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bomb"])
def test_an_answer_without_an_end_is_cut_at_the_limit(packed: bool) -> None:
    with attempts(limit_bytes=MB) as (fake, made):
        fake.script(Endless(gzip=packed))
        wire = made.wire()
        assert fails(made, wire) is Kind.TRANSIENT
        assert len(wire.body) <= MB + PIECE_BYTES
        (entry,) = fake.journal.wait_over(1)
        assert entry.closed_by == "client"


def test_a_stream_is_not_kept_in_memory() -> None:
    with attempts(stream=True) as (fake, made):
        fake.script(Endless(limit_bytes=5 * MB))
        wire = made.wire()
        (body,) = succeeds(made, wire)
        assert len(body) > 4 * MB
        assert wire.body == b""


def test_an_error_s_body_is_read_up_to_a_limit() -> None:
    with attempts() as (fake, made):
        fake.script(Fails(500, body=b"x" * (3 * MB)))
        wire = made.wire()
        assert fails(made, wire) is Kind.TRANSIENT
        assert len(wire.body) <= room.ERROR_BODY_LIMIT + PIECE_BYTES * 4


def test_an_error_is_read_from_its_own_bytes() -> None:
    body = {"error": {"message": "no such model sk-abcdefgh12", "code": "model_not_found"}}
    with attempts() as (fake, made):
        fake.script(Fails(404, body=body))
        wire = made.wire()
        assert fails(made, wire) is Kind.MISSING
        assert wire.failure is not None
        assert wire.failure.provider_status == 404
        assert wire.failure.provider_message == "no such model [redacted]"


def test_an_error_whose_body_breaks_is_judged_by_its_status() -> None:
    with attempts() as (fake, made):
        fake.script(Breaks(status=429, how="reset"))
        wire = made.wire()
        assert fails(made, wire) is Kind.RATE_LIMITED


def test_a_redirect_is_not_followed() -> None:
    with FakeOpenAI() as elsewhere, attempts() as (fake, made):
        fake.script(redirects(f"{elsewhere.base_url}/chat/completions"))
        assert fails(made, made.wire()) is Kind.MISSING
        assert len(fake.journal) == 1
        assert elsewhere.journal.accepted == 0


def test_a_web_page_is_no_answer() -> None:
    with attempts() as (fake, made):
        fake.script(html_page())
        assert fails(made, made.wire()) is Kind.TRANSIENT


def test_a_port_that_is_closed_is_unreachable() -> None:
    with closed_port() as port:
        made = Attempts()
        wire = made.wire()
        assert fails(made, wire, url=f"http://127.0.0.1:{port}/v1") is Kind.UNREACHABLE
        assert wire.status is None


def test_the_time_to_connect_is_the_target_s() -> None:
    with unanswered_port() as port:
        made = Attempts(connect_s=0.1)
        wire = made.wire()
        # The minute is the client's, which LiteLLM sets.
        kind = fails(made, wire, url=f"http://127.0.0.1:{port}/v1", timeout=60.0)
    assert kind is Kind.UNREACHABLE
    assert str(wire.failure) == "no connection in time"


def test_a_reset_before_the_answer_and_one_within_it_are_told_apart() -> None:
    with attempts() as (fake, made):
        fake.script(Resets(before="headers"))
        assert fails(made, made.wire()) is Kind.UNREACHABLE
    with attempts() as (fake, made):
        fake.script(Resets(after_bytes=20))
        wire = made.wire()
        assert fails(made, wire) is Kind.TRANSIENT
        assert wire.failure is not None
        assert wire.failure.tokens_spent


def test_a_connection_is_used_again() -> None:
    with attempts() as (fake, made):

        async def run() -> None:
            for number in range(4):
                await made.ask(made.wire(stream=number % 2 == 1))
            # LiteLLM closes what it made when it likes: the connections are not its own.
            await made.client.aclose()
            made.client = httpx.AsyncClient(transport=CurrentTransport())
            await made.ask(made.wire())
            await made.transport.aclose()

        asyncio.run(run())
        assert len(fake.journal) == 5
        assert fake.journal.accepted == 1


def test_a_cookie_is_not_brought_back() -> None:
    with attempts() as (fake, made):
        fake.always(Answer(headers={"set-cookie": "session=1; Path=/"}))
        succeeds(made, made.wire(), made.wire())
        assert len(fake.journal) == 2
        assert "cookie" not in fake.journal.last.headers


def test_closing_a_wire_closes_what_nobody_read() -> None:
    with attempts(stream=True) as (fake, made):
        fake.script(Answer(tokens=1000, gap_s=0.02))

        async def run() -> None:
            wire = made.wire()
            token = WIRE.set(wire)
            request = made.client.build_request(
                "POST", f"{made.base}/chat/completions", json={"model": "m", "stream": True}
            )
            await made.client.send(request, stream=True)
            WIRE.reset(token)
            await wire.aclose()
            await wire.aclose()

        asyncio.run(run())
        (entry,) = fake.journal.wait_over(1)
        assert entry.closed_by == "client"


def test_a_wire_without_an_answer_may_be_closed() -> None:
    made = Attempts()
    asyncio.run(made.wire().aclose())
    assert "secret" not in repr(made.wire(secrets=("secret",)))


@pytest.mark.parametrize(("exempt", "kind"), [("", None), ("provider.invalid", Kind.UNREACHABLE)])
def test_a_proxy_of_the_environment_is_gone_by_but_for_the_hosts_without(
    exempt: str, kind: Kind | None
) -> None:
    with attempts() as (fake, made):
        address = f"http://127.0.0.1:{fake.port}"
        made.transport = Transport(SystemClock(), proxies={"http": address, "no": exempt})
        wire = made.wire()

        async def run() -> None:
            try:
                await made.ask(wire, url="http://provider.invalid/v1/chat/completions")
            except WireError:
                pass
            finally:
                await made.transport.aclose()

        asyncio.run(run())
        assert (wire.failure and wire.failure.kind) is kind
        assert fake.journal.accepted == (0 if kind else 1)
