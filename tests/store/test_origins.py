"""Who made which response, wherever that is known: here, in the file, and among replicas."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from proxy.ledger import Ledger, LedgerOrigins
from proxy.store import LedgerUnavailable
from proxy.store.origins import KEEP_S, MemoryOrigins, Origin, key_of
from proxy.store.redis_origins import AT, OF, RedisOrigins
from tests.fakes import FakeClock
from tests.harness.redis_server import RedisServer, redis_server
from tests.store.rows import select

NOW = int(FakeClock().wall())
ONE = Origin("account-1", "key:web", "m/openai/first", NOW)
TWO = Origin("account-2", "team:other", "m/openai/second", NOW)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def test_no_id_can_be_read_from_its_key() -> None:
    assert key_of("resp_1") == key_of("resp_1") != key_of("resp_2")
    assert "resp" not in key_of("resp_1")
    assert len(key_of("x" * 100_000 + "\ud800")) == 32


# In this process


def test_it_finds_what_it_was_given_and_nothing_else() -> None:
    async def run() -> None:
        store = MemoryOrigins(FakeClock())
        await store.keep(["a", "b"], ONE)
        assert [await store.find(key) for key in "abc"] == [ONE, ONE, None]
        await store.forget("a")
        await store.forget("never")
        assert [await store.find(key) for key in "ab"] == [None, ONE]

    asyncio.run(run())


def test_the_oldest_goes_when_there_is_no_room() -> None:
    async def run() -> None:
        store = MemoryOrigins(FakeClock(), most=2)
        for key in ("a", "b", "a", "c"):
            await store.keep([key], ONE)
        assert [await store.find(key) for key in "abc"] == [ONE, None, ONE]

    asyncio.run(run())


def test_nothing_is_known_for_longer_than_a_response_is_kept() -> None:
    async def run() -> None:
        clock = FakeClock()
        store = MemoryOrigins(clock)
        await store.keep(["a"], ONE)
        clock.pass_(KEEP_S - 1)
        assert await store.find("a") == ONE
        clock.pass_(1)
        assert await store.find("a") is None

    asyncio.run(run())


# In the ledger's file


def with_ledger(path: Path, script: Callable[[Ledger], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Ledger(path, FakeClock()) as ledger:
            await script(ledger)

    asyncio.run(run())


def test_the_file_knows_it_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def before(ledger: Ledger) -> None:
        store = LedgerOrigins(ledger)
        await store.keep(["a", "b"], ONE)
        await store.keep(["b"], TWO)
        await store.keep(["c"], TWO)
        await store.forget("c")

    async def after(ledger: Ledger) -> None:
        store = LedgerOrigins(ledger)
        assert [await store.find(key) for key in "abc"] == [ONE, TWO, None]

    with_ledger(path, before)
    with_ledger(path, after)


def test_workers_at_one_file_know_of_each_other_s(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def run() -> None:
        async with Ledger(path, FakeClock()) as one, Ledger(path, FakeClock()) as other:
            await LedgerOrigins(one).keep(["a"], ONE)
            assert await LedgerOrigins(other).find("a") == ONE

    asyncio.run(run())


def test_the_file_keeps_the_latest_of_those_that_are_not_too_old(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def script(ledger: Ledger) -> None:
        for age in range(600):
            await ledger.keep_origin([f"k{age}"], ONE._replace(made_at=NOW - age))
        await ledger.purge_origins(NOW - 500)
        assert select(path, "SELECT count(*) FROM origins") == [(501,)]
        await ledger.purge_origins(NOW - 500, most=3)
        assert select(path, "SELECT key FROM origins ORDER BY 1") == [("k0",), ("k1",), ("k2",)]

    with_ledger(path, script)


def test_a_file_that_cannot_be_used_knows_of_none_and_stops_nobody(tmp_path: Path) -> None:
    def refuse(path: Path, patience_s: float) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    async def run() -> None:
        async with Ledger(tmp_path / "m.db", FakeClock(), connect=refuse) as ledger:
            store = LedgerOrigins(ledger)
            await store.keep(["a"], ONE)
            await store.forget("a")
            assert await store.find("a") is None
            with pytest.raises(LedgerUnavailable):
                await ledger.origin("a")

    asyncio.run(run())


# Among replicas


@pytest.mark.redis
def test_replicas_know_of_each_other_s_until_they_are_too_many_or_too_old(
    server: RedisServer,
) -> None:
    async def run() -> None:
        clock = FakeClock()
        clients = [Redis.from_url(server.url) for _ in range(2)]
        here, there = (RedisOrigins(client, clock, most=3) for client in clients)
        await here.keep(["a"], ONE)
        await there.keep(["b", "b2"], TWO)
        assert (await there.find("a"), await here.find("b2")) == (ONE, TWO)
        assert await here.find("nothing") is None
        for key in "cdefg":
            clock.pass_(1)
            await here.keep([key], ONE._replace(made_at=int(clock.wall())))
        known = [await there.find(key) is not None for key in "abcdefg"]
        assert known == [False, False, False, False, True, True, True]
        await there.forget("g")
        assert await here.find("g") is None
        assert (await clients[0].hlen(OF), await clients[0].zcard(AT)) == (2, 2)
        clock.pass_(KEEP_S)
        assert await there.find("f") is None
        await here.keep(["h"], ONE._replace(made_at=int(clock.wall())))
        assert (await clients[0].hlen(OF), await clients[0].zcard(AT)) == (1, 1)
        for store in (here, there):
            await store.aclose()

    asyncio.run(run())


@pytest.mark.redis
def test_what_is_foreign_in_a_redis_is_not_known(server: RedisServer) -> None:
    async def run() -> None:
        client = Redis.from_url(server.url)
        store = RedisOrigins(client, FakeClock())
        for raw in (b"\xff", b"[]", b"17", b'["a", "b", "c", "d"]'):
            await client.hset(OF, "odd", raw)
            assert await store.find("odd") is None
        await store.aclose()

    asyncio.run(run())


@pytest.mark.redis
def test_a_redis_that_is_gone_knows_of_none_and_stops_nobody() -> None:
    async def run() -> None:
        with redis_server() as gone:
            store = RedisOrigins(Redis.from_url(gone.url), FakeClock())
            await store.keep(["a"], ONE)
        await store.keep(["b"], TWO)
        await store.forget("a")
        assert (await store.find("a"), await store.find("b")) == (None, None)
        await store.aclose()

    asyncio.run(run())
