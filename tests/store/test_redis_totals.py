"""All replicas together: told twice, emptied, fallen back, purged, gone; the sums are the rows'."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from proxy.ledger import Ledger
from proxy.policy import RedisSettings
from proxy.store import GroupBy, UsageQuery, UsageRow
from proxy.store.redis_client import open_client
from proxy.store.redis_totals import MOST_FIELDS, RedisTotals
from proxy.store.sqlite_report import sums_by
from proxy.store.totals import days_before, usage_row
from proxy.store.windows import DAY_S
from tests.fakes import FakeClock
from tests.harness import RedisServer, redis_server
from tests.providers import closed_port
from tests.store.rows import HOUR_S, closed, opened

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

KEEP_DAYS = 400


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@dataclass
class Replica:
    """One ledger, and what it tells and is told."""

    ledger: Ledger
    totals: RedisTotals
    path: Path
    heard: list[str | None] = field(default_factory=list)

    async def rows(self, *group_by: GroupBy, **period: float) -> list[UsageRow]:
        return list((await self.totals.report(UsageQuery(group_by, **period))).rows)


@dataclass
class World:
    """Some replicas before one Redis, and a ledger in which all of them write."""

    folder: Path
    clock: FakeClock
    settings: RedisSettings
    stack: AsyncExitStack
    whole: Ledger
    keep_days: int = KEEP_DAYS
    ids: Iterator[int] = field(default_factory=itertools.count)

    async def replica(self, name: str, file: str = "") -> Replica:
        path = self.folder / f"{file or name}.db"
        ledger = await self.stack.enter_async_context(Ledger(path, self.clock))
        heard: list[str | None] = []
        totals = RedisTotals(
            open_client(self.settings),
            self.clock,
            path,
            keep_days=lambda: self.keep_days,
            told=heard.append,
        )
        self.stack.push_async_callback(totals.aclose)
        return Replica(ledger, totals, path, heard)

    async def use(self, replica: Replica, ago_s: float = 0, **whose: Any) -> None:
        """Have an attempt closed that long ago."""
        row_id, at = f"a{next(self.ids)}", self.clock.wall() - ago_s
        for ledger in (replica.ledger, self.whole):
            await ledger.open(opened(row_id, opened_at=at, **whose), admitted=True)
            await ledger.close(closed(row_id, closed_at=at))

    async def expected(self, *group_by: GroupBy, **period: float) -> list[UsageRow]:
        query, first = UsageQuery(group_by, **period), days_before(self.clock.wall())
        found = sums_by(self.folder / "whole.db", query, days_before=first)
        return [usage_row(*each) for each in found.items()]


@asynccontextmanager
async def world(folder: Path, settings: RedisSettings) -> AsyncIterator[World]:
    clock = FakeClock()
    clock.wall_s += 5 * HOUR_S
    async with AsyncExitStack() as stack:
        whole = await stack.enter_async_context(Ledger(folder / "whole.db", clock))
        yield World(folder, clock, settings, stack, whole)


@pytest.fixture
async def place(tmp_path: Path, server: RedisServer) -> AsyncIterator[World]:
    server.command("FLUSHALL")
    async with world(tmp_path, RedisSettings(url=server.url)) as made:
        yield made


async def told(*replicas: Replica) -> None:
    for replica in replicas:
        await replica.totals.tell()


async def test_either_of_two_replicas_tells_what_both_used(place: World) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    for ago_s in (0, HOUR_S, 26 * HOUR_S, 9 * DAY_S, 9 * DAY_S + HOUR_S, 100 * DAY_S):
        await place.use(one, ago_s, key="web", tags=("a", "b"))
        await place.use(other, ago_s, key="cli", user="bob", tags=("b",))
        await place.use(other, ago_s, key="web")
    await told(one, other)
    now = place.clock.wall()
    periods: list[dict[str, float]] = [
        {},
        {"since": now - 3 * HOUR_S},
        {"since": now - 9 * DAY_S - 3 * HOUR_S, "until": now - HOUR_S},
        {"since": now - 200 * DAY_S, "until": now - 9 * DAY_S},
    ]
    for period in periods:
        for group_by in (*((group,) for group in GroupBy), (), tuple(GroupBy)):
            expected = await place.expected(*group_by, **period)
            assert expected
            assert await one.rows(*group_by, **period) == expected
            assert await other.rows(*group_by, **period) == expected
    assert (await one.totals.report(UsageQuery())).replicas == 2


async def test_what_is_told_twice_counts_once_and_this_replica_needs_no_telling(
    place: World,
) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(other)
    for _ in range(3):
        await told(one, other)
    await place.use(one)
    assert await one.rows() == await place.expected()
    assert [row.attempts for row in await other.rows()] == [1]
    await told(one)
    assert await other.rows() == await place.expected()


async def test_only_what_changed_is_told_again(place: World, server: RedisServer) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    for number in range(50):
        await place.use(one, user=f"u{number}")
    await told(one)
    server.command("CONFIG", "RESETSTAT")
    await place.use(one, user="u7")
    await told(one)
    # The hour and the day, each with one field: all of them would be many more bytes.
    written = int(await info(place, "total_net_input_bytes"))
    assert written < 6000
    assert await other.rows(GroupBy.USER) == await place.expected(GroupBy.USER)


async def info(place: World, name: str) -> str:
    async with Redis.from_url(str(place.settings.url)) as client:
        return str((await client.info())[name])


async def test_a_redis_that_came_back_empty_is_told_everything_again(
    place: World, server: RedisServer
) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    for ago_s in (0, 20 * DAY_S):
        await place.use(one, ago_s)
        await place.use(other, ago_s)
    await told(one, other)
    server.command("FLUSHALL")
    assert [row.attempts for row in await one.rows()] == [2]
    await told(other)
    assert await one.rows(GroupBy.DAY) == await place.expected(GroupBy.DAY)


async def test_a_redis_that_fell_back_is_told_everything_again(
    place: World, server: RedisServer
) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(one)
    await told(one)
    async with Redis.from_url(server.url) as client:
        before = {key: bytes(await client.dump(key) or b"") for key in await client.keys("*")}
        await place.use(one)
        await told(one)
        await client.flushall()
        for key, value in before.items():
            await client.restore(key, 0, value)
    assert [row.attempts for row in await other.rows()] == [1]
    await told(one)
    assert await other.rows() == await place.expected()


async def test_a_replica_that_is_gone_still_counts(place: World) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(one)
    await place.use(other)
    await other.totals.aclose()  # which tells it to the end
    assert await one.rows() == await place.expected()
    place.clock.wall_s += 30 * DAY_S  # and later its day does
    assert await one.rows(GroupBy.DAY) == await place.expected(GroupBy.DAY)


async def test_of_two_processes_at_one_ledger_one_does_the_telling(place: World) -> None:
    first, second = await place.replica("first", "same"), await place.replica("second", "same")
    other = await place.replica("other")
    await place.use(first)
    await place.use(second)
    await told(first, second)
    assert await other.rows() == await second.rows() == await place.expected()
    await place.use(second)
    await told(second)
    assert [row.attempts for row in await other.rows()] == [2]
    await first.totals.aclose()
    await place.use(second)
    await told(second)
    assert await other.rows() == await place.expected()
    assert (await other.totals.report(UsageQuery())).replicas == 2


async def test_what_the_ledger_deletes_moves_to_what_was_used_ever(place: World) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    for ago_s in (0, 30 * DAY_S, 30 * DAY_S + HOUR_S):
        await place.use(one, ago_s)
    await told(one)
    for ledger in (one.ledger, place.whole):
        await ledger.purge(place.clock.wall() - 10 * DAY_S)
    place.clock.pass_(3600)
    await told(one)
    assert await other.rows(GroupBy.DAY) == await place.expected(GroupBy.DAY)
    assert [row.attempts for row in await other.rows()] == [3]
    assert [row.attempts for row in await other.rows(since=DAY_S)] == [1]


async def test_a_process_that_starts_anew_removes_what_was_deleted_meanwhile(
    place: World,
) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(one, 30 * DAY_S)
    await told(one)
    await one.totals.aclose()
    for ledger in (one.ledger, place.whole):
        await ledger.purge(place.clock.wall() - 10 * DAY_S)
    again = await place.replica("again", "one")
    await told(again)
    assert await other.rows(GroupBy.DAY) == await place.expected(GroupBy.DAY)


async def test_more_groups_than_fit_into_one_step_arrive_all(place: World) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await asyncio.gather(
        *(place.use(one, user=f"u{number}") for number in range(2 * MOST_FIELDS + 7))
    )
    await told(one)
    found = await other.rows(GroupBy.USER)
    assert len(found) == 2 * MOST_FIELDS + 7
    assert found == await place.expected(GroupBy.USER)


async def test_all_of_it_goes_when_its_time_is_over(place: World) -> None:
    one = await place.replica("one")
    place.clock.wall_s -= 20 * DAY_S
    for ago_s in (0, 30 * DAY_S):
        await place.use(one, ago_s)
    place.keep_days = 50
    await told(one)
    async with Redis.from_url(str(place.settings.url)) as client:
        for key in set(await client.keys("*")) - set(await client.keys("*:replicas")):
            assert await client.ttl(key) > 0, key


async def test_while_redis_is_gone_a_report_is_of_this_replica_and_says_so(
    place: World, server: RedisServer
) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(one)
    await place.use(other)
    await told(one, other)
    try:
        server.stop()
        found = await one.totals.report(UsageQuery())
        assert [row.attempts for row in found.rows] == [1]
        assert found.replicas == 1
        assert found.note == "This is what one replica alone used: Redis cannot be reached."
        await told(one)
        await told(one)
        assert len(one.heard) == 1
    finally:
        server.start()
    await told(one, other, other)  # whose connection of before is found broken first
    assert one.heard[1:] == [None]
    found = await one.totals.report(UsageQuery())
    assert (found.note, found.replicas) == ("", 2)
    assert list(found.rows) == await place.expected()


async def test_a_redis_that_hangs_is_not_waited_for(place: World, server: RedisServer) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(one)
    await told(one)
    server.hang()
    try:
        await place.use(one)
        await told(one)
        assert one.heard == ["Redis did not answer within 0.1 s"]
        assert "did not answer within 0.1 s" in (await one.totals.report(UsageQuery())).note
    finally:
        server.resume()
    # What came too late is no newer than what is told now, and does not take its place.
    await told(one)
    assert await other.rows() == await place.expected()


async def until(asked: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await asked():  # noqa: ASYNC110 - it is another task's doing, on a real Redis
            await asyncio.sleep(0.01)


async def test_it_is_told_by_itself_while_it_runs(place: World) -> None:
    one, other = await place.replica("one"), await place.replica("other")
    await place.use(one)
    one.totals.start()

    async def known() -> bool:
        return await other.rows() == await place.expected()

    await until(known)
    await place.use(one)
    await until(known)


async def test_without_any_redis_it_is_this_replica_alone(tmp_path: Path) -> None:
    with closed_port() as port:
        settings = RedisSettings(host="127.0.0.1", port=port)
        async with world(tmp_path, settings) as place:
            one = await place.replica("one")
            await place.use(one)
            await told(one)
            assert [row.attempts for row in await one.rows()] == [1]
            assert one.heard[0] is not None


async def test_a_redis_without_a_url_does_as_well(tmp_path: Path, server: RedisServer) -> None:
    server.command("FLUSHALL")
    async with world(tmp_path, RedisSettings(host="127.0.0.1", port=server.port)) as place:
        one, other = await place.replica("one"), await place.replica("other")
        await place.use(one)
        one.totals.start()  # it tells and asks at the same time

        async def known() -> bool:
            return await other.rows() == await one.rows() == await place.expected()

        await until(known)
