"""Responses that providers keep: who may have one read, and what becomes of a refusal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from proxy.errors import (
    ProviderAuthFailed,
    RateLimited,
    Refused,
    ResponseUnknown,
    UpstreamFailure,
)
from proxy.origins import Origins
from proxy.replies import Chunk, ChunkStream
from proxy.retry import Kind
from proxy.shelf import Shelf
from proxy.snapshot import Snapshot
from proxy.store.origins import MemoryOrigins, Origin, key_of
from proxy.types import Caller, Lane, Ring, Target
from tests.fakes import Fails, FakeClock, group, target

WEB, OTHER = Caller("web"), Caller("other")
MAKER = target("maker", responses=Lane.DIRECT, credential="account-1")
NOW = Snapshot(rings={"m": Ring("m", (group("m", MAKER),))})


async def nothing() -> AsyncGenerator[Chunk, None]:
    for chunk in list[Chunk]():
        yield chunk


STREAM = ChunkStream((), nothing())


class FakeKeeps:
    """Answers with these bytes or fails like this, and remembers what it was asked."""

    def __init__(self, *said: bytes | Fails) -> None:
        self._said = list(said)
        self.asked: list[tuple[str, str, tuple[str, ...], tuple[tuple[str, str], ...]]] = []

    async def ask(
        self, target: Target, method: str, path: Sequence[str], query: Sequence[tuple[str, str]]
    ) -> bytes:
        self.asked.append((target.label, method, tuple(path), tuple(query)))
        match self._said.pop(0):
            case Fails() as failing:
                raise failing.failure()
            case bytes(said):
                return said

    async def follow(
        self, target: Target, path: Sequence[str], query: Sequence[tuple[str, str]]
    ) -> ChunkStream:
        await self.ask(target, "follow", path, query)
        return STREAM


async def kept(keeps: FakeKeeps) -> Shelf:
    """A shelf that knows of `resp_1`, which was made for WEB."""
    clock = FakeClock()
    memory = MemoryOrigins(clock)
    made_at = int(clock.wall())
    await memory.keep([key_of("resp_1")], Origin("account-1", "key:web", "maker", made_at))
    return Shelf(Origins([memory], clock), keeps)


async def ask(shelf: Shelf, method: str = "GET", caller: Caller = WEB, **facts: Any) -> bytes:
    below, query = facts.get("below", ()), facts.get("query", ())
    return await shelf.ask(method, "resp_1", below, query, caller=caller, snapshot=NOW)


def test_it_is_asked_for_where_it_is() -> None:
    async def run() -> None:
        keeps = FakeKeeps(b"{}", b"[]")
        shelf = await kept(keeps)
        assert await ask(shelf) == b"{}"
        assert await ask(shelf, below=("input_items",), query=(("limit", "3"),)) == b"[]"
        assert keeps.asked == [
            ("maker", "GET", ("resp_1",), ()),
            ("maker", "GET", ("resp_1", "input_items"), (("limit", "3"),)),
        ]

    asyncio.run(run())


def test_for_anybody_else_it_is_not_there() -> None:
    async def run() -> None:
        keeps = FakeKeeps()
        with pytest.raises(ResponseUnknown):
            await ask(await kept(keeps), caller=OTHER)
        assert keeps.asked == []

    asyncio.run(run())


def test_it_is_followed_where_it_is() -> None:
    async def run() -> None:
        keeps = FakeKeeps(b"", Fails(Kind.CREDENTIAL, 401))
        shelf = await kept(keeps)
        query = [("stream", "true")]
        assert await shelf.follow("resp_1", query, caller=WEB, snapshot=NOW) is STREAM
        assert keeps.asked == [("maker", "follow", ("resp_1",), (("stream", "true"),))]
        with pytest.raises(ProviderAuthFailed):
            await shelf.follow("resp_1", query, caller=WEB, snapshot=NOW)
        with pytest.raises(ResponseUnknown):
            await shelf.follow("resp_1", query, caller=OTHER, snapshot=NOW)

    asyncio.run(run())


def test_what_is_deleted_is_unknown_unless_that_failed() -> None:
    async def run() -> None:
        shelf = await kept(FakeKeeps(Fails(Kind.TRANSIENT, 500), b"{}"))
        with pytest.raises(UpstreamFailure):
            await ask(shelf, "DELETE")
        await ask(shelf, "DELETE")
        with pytest.raises(ResponseUnknown):
            await ask(shelf)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("failing", "error", "status"),
    [
        (Fails(Kind.CREDENTIAL, 401), ProviderAuthFailed, 502),
        (Fails(Kind.EXHAUSTED, 429), ProviderAuthFailed, 502),
        (Fails(Kind.RATE_LIMITED, 429, 7.0), RateLimited, 429),
        (Fails(Kind.DIALECT, 404), Refused, 404),
        (Fails(Kind.CALLER, 400), Refused, 400),
        (Fails(Kind.TRANSIENT, 500), UpstreamFailure, 502),
        (Fails(Kind.UNREACHABLE), UpstreamFailure, 502),
    ],
)
def test_what_its_provider_answers_instead_is_told(
    failing: Fails, error: type[Exception], status: int
) -> None:
    async def run() -> None:
        with pytest.raises(error) as found:
            await ask(await kept(FakeKeeps(failing)))
        assert getattr(found.value, "status", None) == status
        if failing.kind is Kind.RATE_LIMITED:
            assert getattr(found.value, "retry_after_s", None) == 7.0

    asyncio.run(run())
