"""What is looked up together, on a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.policy import RedisSettings
from proxy.store.patience import Failed, Patience
from proxy.store.redis_client import open_client
from proxy.store.redis_finder import Finder
from tests.harness import RedisServer, redis_server

pytestmark = pytest.mark.redis

MOST = 100


@dataclass(frozen=True)
class Stand:
    server: RedisServer
    client: Any
    finder: Finder

    async def served(self) -> dict[str, int]:
        """How often each command was carried out."""
        found = await self.client.info("commandstats")
        return {name.removeprefix("cmdstat_"): facts["calls"] for name, facts in found.items()}


def run(main: Callable[[Stand], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with redis_server() as server:
            client = open_client(RedisSettings(url=server.url))
            finder = Finder(client, Patience(SystemClock(), client.ping), most_bytes=MOST)
            try:
                async with asyncio.timeout(30):
                    await main(Stand(server, client, finder))
            finally:
                await finder.aclose()
                await client.aclose()

    asyncio.run(bounded())


def test_a_thousand_that_ask_at_once_are_told_each_its_own() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.mset({f"k{number}": f"v{number}" for number in range(0, 1000, 2)})
        found = await asyncio.gather(*(stand.finder.find(f"k{n}") for n in range(1000)))
        assert found == [None if n % 2 else b"v%d" % n for n in range(1000)]

    run(main)


def test_the_same_key_is_asked_for_once() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.set("k", "v")
        found = await asyncio.gather(*(stand.finder.find("k") for _ in range(50)))
        assert found == [b"v"] * 50
        assert (await stand.served())["getrange"] == 1

    run(main)


def test_no_more_is_read_of_a_value_than_is_wanted() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.set("fits", "x" * MOST)
        await stand.client.set("large", "x" * 1_000_000)
        assert await stand.finder.find("fits") == b"x" * MOST
        assert await stand.finder.find("large") == b"x" * (MOST + 1)

    run(main)


def test_a_value_of_another_kind_is_none_and_hides_no_other() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.rpush("list", "a")
        await stand.client.set("k", "v")
        asked = ("k", "list", "k2", "k")
        found = await asyncio.gather(*(stand.finder.find(place) for place in asked))
        assert found == [b"v", None, None, b"v"]

    run(main)


def test_who_leaves_takes_nobody_along() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.set("k", "v")
        leaving, staying = (asyncio.create_task(stand.finder.find("k")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        assert await staying == b"v"
        assert await stand.finder.find("k") == b"v"

    run(main)


def test_a_connection_that_was_hung_up_on_is_no_failure() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.set("k", "v")
        assert await stand.finder.find("k") == b"v"
        await stand.client.client_kill_filter(_type="normal", skipme=True)
        assert await stand.finder.find("k") == b"v"

    run(main)


def test_a_redis_that_is_gone_fails_at_once_and_is_found_again() -> None:
    async def main(stand: Stand) -> None:
        assert await stand.finder.find("k") is None
        await asyncio.to_thread(stand.server.stop)
        outcomes = await asyncio.gather(
            *(stand.finder.find(f"k{n}") for n in range(300)), return_exceptions=True
        )
        assert all(isinstance(each, Failed) for each in outcomes)
        await asyncio.to_thread(stand.server.start)
        await stand.client.set("k", "v")
        found: bytes | None = None
        while found is None:
            await asyncio.sleep(0.05)
            try:
                found = await stand.finder.find("k")
            except Failed:
                continue
        assert found == b"v"

    run(main)


def test_a_late_reply_is_not_taken_for_the_next_one() -> None:
    async def main(stand: Stand) -> None:
        await stand.client.mset({"a": "A", "b": "B"})
        assert await stand.finder.find("a") == b"A"
        stand.server.hang()
        with pytest.raises(Failed):
            await stand.finder.find("a")
        stand.server.resume()
        found: bytes | None = None
        while found is None:
            await asyncio.sleep(0.05)
            try:
                found = await stand.finder.find("b")
            except Failed:
                continue
        assert found == b"B"

    run(main)


def test_who_waits_when_it_is_closed_is_told() -> None:
    async def main(stand: Stand) -> None:
        stand.server.hang()
        waiting = asyncio.create_task(stand.finder.find("k"))
        await asyncio.sleep(0.01)
        await stand.finder.aclose()
        with pytest.raises(Failed):
            await waiting
        stand.server.resume()

    run(main)
