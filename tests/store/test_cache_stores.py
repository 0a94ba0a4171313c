"""Where answers are kept: whole or not at all, for no longer and no more than they may be."""

from __future__ import annotations

import asyncio
import random
import threading
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from os import urandom
from pathlib import Path
from typing import TypeAlias

import diskcache
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.clock import SystemClock
from proxy.policy import RedisSettings
from proxy.store.cache_port import CacheStore, Entry, Kind, packed, unpacked
from proxy.store.disk_cache import DiskCache
from proxy.store.memory_cache import MemoryCache
from proxy.store.redis_cache import RedisCache
from proxy.store.redis_client import open_client
from tests.fakes import FakeClock
from tests.harness import redis_server

MB = 1024 * 1024
ENTRY = Entry(
    Kind.STREAM, (b'{"a":1}', b'{"b":2}'), 1.5, 600.0, "m", "m/openai/x", "openai", ("n",)
)
Opens: TypeAlias = Callable[[Path], AbstractAsyncContextManager[CacheStore]]

ENTRIES = st.builds(
    Entry,
    st.just(Kind.STREAM),
    st.tuples(st.binary(max_size=9000), st.binary(max_size=300)),
    st.floats(0, 2e9),
    st.floats(0, 1e6),
    st.text(max_size=5),
    st.text(max_size=5),
    st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=2).map(tuple),
)


@given(ENTRIES, st.text(max_size=5))
def test_what_is_packed_is_read_again(entry: Entry, key: str) -> None:
    assert unpacked(key, packed(key, entry), most_bytes=MB) == entry
    assert unpacked(key + "x", packed(key, entry), most_bytes=MB) is None


@settings(max_examples=300)
@given(ENTRIES, st.data())
def test_what_is_damaged_is_a_miss(entry: Entry, data: st.DataObject) -> None:
    raw = bytearray(packed("k", entry))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= 1 << data.draw(st.integers(0, 7))
    assert unpacked("k", bytes(raw), most_bytes=MB) is None
    assert unpacked("k", bytes(raw[:place]), most_bytes=MB) is None


@pytest.mark.parametrize("raw", [b"", b"x", b"mobius1\n", b"mobius1\n1 2\n", b"\x80\x04N."])
def test_what_is_foreign_is_a_miss(raw: bytes) -> None:
    assert unpacked("k", raw, most_bytes=MB) is None


def test_what_says_it_is_smaller_than_it_is_is_not_read_whole() -> None:
    bomb = zlib.compress(b"x" * 200 * MB)
    facts = orjson.dumps(["k", "whole", 1.0, 1.0, ["m", "t", "p"], [10], True])
    checksum = zlib.crc32(bomb, zlib.crc32(facts))
    raw = b"mobius1\n%d %d\n%s%s" % (checksum, len(facts), facts, bomb)
    tracemalloc.start()
    try:
        assert unpacked("k", raw, most_bytes=MB) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * MB


def test_what_is_too_large_is_a_miss() -> None:
    large = replace(ENTRY, payloads=(b"x" * 5000, b""))
    assert unpacked("k", packed("k", large), most_bytes=4999) is None
    assert len(packed("k", large)) < 1000  # it is compressed


@asynccontextmanager
async def in_memory(folder: Path) -> AsyncIterator[CacheStore]:
    yield MemoryCache(SystemClock(), most_bytes=MB)


@asynccontextmanager
async def on_disk(folder: Path) -> AsyncIterator[CacheStore]:
    store = DiskCache(str(folder / "cache"), SystemClock(), most_bytes=MB)
    try:
        yield store
    finally:
        store.close()


@asynccontextmanager
async def in_redis(folder: Path) -> AsyncIterator[CacheStore]:
    with redis_server() as server:
        client = open_client(RedisSettings(url=server.url))
        store = RedisCache(client, SystemClock(), namespace="x", most_bytes=MB)
        try:
            yield store
        finally:
            await store.aclose()


EVERYWHERE = pytest.mark.parametrize(
    "opens", [in_memory, on_disk, pytest.param(in_redis, marks=pytest.mark.redis)]
)


@EVERYWHERE
def test_an_answer_is_kept_found_and_dropped(opens: Opens, tmp_path: Path) -> None:
    async def main() -> None:
        async with opens(tmp_path) as store:
            assert await store.find("a") is None
            for key, model in (("a", "m"), ("b", "m"), ("c", "other"), ("d", "other")):
                await store.keep(key, replace(ENTRY, model=model), for_s=60)
            assert await store.find("a") == ENTRY
            assert await store.purge(key="a") == 1
            assert await store.purge(key="a") == 0
            assert await store.find("a") is None
            assert await store.purge(model="m") == 1
            assert await store.find("b") is None
            assert await store.find("c") == replace(ENTRY, model="other")
            assert await store.purge() == 2
            assert await store.find("c") is None
            await store.keep("e", ENTRY, for_s=0)
            assert await store.find("e") is None

    asyncio.run(main())


@EVERYWHERE
def test_a_large_answer_is_kept_like_any_other(opens: Opens, tmp_path: Path) -> None:
    async def main() -> None:
        async with opens(tmp_path) as store:
            for large in (urandom(400_000), b"x" * 400_000):
                entry = replace(ENTRY, payloads=(large, b"usage"))
                await store.keep("a", entry, for_s=60)
                assert await store.find("a") == entry

    asyncio.run(main())


@pytest.mark.redis
def test_a_purge_passes_over_what_is_foreign_and_a_redis_that_is_gone() -> None:
    async def main() -> None:
        with redis_server() as server:
            client = open_client(RedisSettings(url=server.url))
            store = RedisCache(client, SystemClock(), namespace="x", most_bytes=MB)
            await store.keep("a", ENTRY, for_s=60)
            await client.rpush("mobius:cache:x:list", "a")
            await client.set("mobius:cache:x:junk", "x" * 3 * MB)
            assert await store.find("junk") is None
            assert await store.find("list") is None
            assert await store.purge(model="m") == 1
            assert await store.purge() == 2
            server.stop()
            assert await store.purge() == 0
            assert await store.purge(model="m") == 0
            await store.aclose()

    asyncio.run(main())


def test_memory_holds_no_more_bytes_than_it_may_and_drops_the_longest_unused() -> None:
    async def main() -> None:
        clock = FakeClock()
        store = MemoryCache(clock, most_bytes=10 * (ENTRY.size_bytes + 1))
        for name in "abcdefghij":
            await store.keep(name, ENTRY, for_s=60)
        assert await store.find("a") == ENTRY
        await store.keep("k", ENTRY, for_s=60)
        assert [name for name in "abcdefghijk" if await store.find(name) is None] == ["b"]
        assert store.size_bytes == 10 * (ENTRY.size_bytes + 1)
        await store.keep("large", replace(ENTRY, payloads=(b"x" * MB,)), for_s=60)
        assert await store.find("large") is None
        await clock.sleep(61)
        assert await store.find("k") is None
        assert store.size_bytes == 9 * (ENTRY.size_bytes + 1)

    asyncio.run(main())


def test_a_disk_is_found_again_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        async with on_disk(tmp_path) as store:
            await store.keep("a", ENTRY, for_s=60)
        async with on_disk(tmp_path) as store:
            assert await store.find("a") == ENTRY

    asyncio.run(main())


def test_a_disk_that_holds_junk_is_a_miss_and_one_that_is_damaged_begins_anew(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with on_disk(tmp_path) as store:
            await store.keep("a", ENTRY, for_s=60)
            await store.keep("large", replace(ENTRY, payloads=(urandom(100_000),)), for_s=60)
        with diskcache.Cache(str(tmp_path / "cache")) as other:
            for key, value in (("b", {"a": 1}), ("c", "text"), ("d", b"junk"), ("e", 7)):
                other[key] = value
        for file in (tmp_path / "cache").rglob("*.val"):
            file.write_bytes(b"junk")
        async with on_disk(tmp_path) as store:
            assert [key for key in ("large", *"abcde") if await store.find(key)] == ["a"]
        (tmp_path / "cache" / "cache.db").write_bytes(b"no database" * 1000)
        async with on_disk(tmp_path) as store:
            assert await store.find("a") is None
            await store.keep("a", ENTRY, for_s=60)
            assert await store.find("a") == ENTRY

    asyncio.run(main())


def test_what_many_look_for_at_once_on_a_disk_is_looked_up_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with on_disk(tmp_path) as store:
            await store.keep("a", ENTRY, for_s=60)
            found = await asyncio.gather(*(store.find("a") for _ in range(1000)))
            assert found == [ENTRY] * 1000
            several = await asyncio.gather(*(store.find(str(number)) for number in range(1000)))
            assert several == [None] * 1000
            assert await store.find("a") == ENTRY  # nothing of this was the disk's fault

    asyncio.run(main())


async def found_again(store: DiskCache | RedisCache) -> None:
    """Return once the entry is found: who asks first has it found out in the background."""
    async with asyncio.timeout(10):
        while await store.find("a") != ENTRY:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.005)


def test_a_disk_that_hangs_is_a_miss(tmp_path: Path) -> None:
    async def main() -> None:
        clock, go = FakeClock(), threading.Event()
        store = DiskCache(str(tmp_path / "cache"), clock, most_bytes=MB)
        await store.keep("a", ENTRY, for_s=60)
        hung = store._pool.submit(go.wait)
        assert await store.find("a") is None
        assert await store.find("a") is None
        assert await store.purge() == 0
        go.set()
        await asyncio.wrap_future(hung)
        clock.pass_(2)
        await found_again(store)
        store.close()

    asyncio.run(main())


@pytest.mark.redis
def test_a_redis_whose_callers_leave_gives_nobody_anothers_answer() -> None:
    async def main() -> None:
        with redis_server() as server:
            store = RedisCache(
                open_client(RedisSettings(url=server.url)),
                SystemClock(),
                namespace="",
                most_bytes=MB,
            )
            entries = {f"k{n}": replace(ENTRY, target=f"k{n}") for n in range(20)}
            for key, entry in entries.items():
                await store.keep(key, entry, for_s=60)
            order = random.Random(7)  # noqa: S311  # no secret
            for _ in range(100):
                tasks = {key: asyncio.create_task(store.find(key)) for key in entries}
                for _ in range(order.randrange(6)):
                    await asyncio.sleep(0)
                for key in order.sample(sorted(tasks), 10):
                    tasks[key].cancel()
                found = await asyncio.gather(*tasks.values(), return_exceptions=True)
                for key, got in zip(tasks, found, strict=True):
                    assert isinstance(got, asyncio.CancelledError) or got == entries[key]
            await store.aclose()

    asyncio.run(main())


@pytest.mark.redis
def test_a_redis_that_is_full_still_gives_what_it_holds() -> None:
    async def main() -> None:
        with redis_server("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
            client = open_client(RedisSettings(url=server.url))
            store = RedisCache(client, FakeClock(), namespace="", most_bytes=MB)
            await store.keep("a", ENTRY, for_s=60)
            for number in range(20):
                large = replace(ENTRY, payloads=(urandom(500_000),))
                await store.keep(f"large {number}", large, for_s=60)
            assert await store.find("large 19") is None
            assert await store.find("a") == ENTRY
            await store.aclose()

    asyncio.run(main())


@pytest.mark.redis
def test_a_redis_that_is_gone_or_holds_junk_is_a_miss() -> None:
    async def main() -> None:
        with redis_server() as server:
            client = open_client(RedisSettings(url=server.url))
            clock = FakeClock()
            store = RedisCache(client, clock, namespace="", most_bytes=MB)
            await store.keep("a", ENTRY, for_s=60)
            assert await store.find("a") == ENTRY
            server.command("SET", "mobius:cache:b", "junk")
            assert await store.find("b") is None
            server.command("RPUSH", "mobius:cache:c", "junk")
            assert await store.find("c") is None
            server.hang()
            assert await store.find("a") is None
            server.resume()
            assert await store.find("a") is None  # it is not asked for a while
            await clock.sleep(2)
            await found_again(store)
            await store.aclose()

    asyncio.run(main())
