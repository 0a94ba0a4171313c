"""Replicas on one real Redis: limits hold over all of them, whatever becomes of one or of Redis."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeAlias

import pytest
import redis.asyncio

from proxy.limits import Claim, Limit, Refusal, Scope, ScopeKind, Spent, Unit, Window
from proxy.store.port import StoreUnavailable
from proxy.store.redis import OnFailure
from proxy.store.redis_link import PREFIX, Spans
from tests.harness import RedisServer, redis_server
from tests.store.redis_stand import (
    SHORT,
    FakeSharedHistory,
    Replica,
    SteppedClock,
    agree,
    counters,
    mirrored,
    replica,
    until,
)
from tests.store.stores import (
    TARGET,
    TEAM,
    WEB,
    budget,
    claims,
    let_in,
    parallel,
    refused,
    rpd,
    rpm,
    tpd,
    tpm,
)

pytestmark = pytest.mark.redis

PATIENT = replace(SHORT, owner_s=60.0)  # nobody is buried
HOUR_S = 3600.0
Pair: TypeAlias = Callable[[Replica, Replica], Awaitable[None]]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def pair(
    server: RedisServer, script: Pair, on_failure: OnFailure = "closed", spans: Spans = PATIENT
) -> None:
    """The script has come to its end, with two replicas that see nobody as dead."""

    async def main() -> None:
        async with (
            replica(server.url, "one", on_failure=on_failure, spans=spans) as one,
            replica(server.url, "two", on_failure=on_failure, spans=spans) as two,
        ):
            await script(one, two)

    asyncio.run(main())


async def back(*replicas: Replica) -> None:
    """All of them can use Redis again, which is recovering no more."""
    for each in replicas:

        async def usable(each: Replica = each) -> bool:
            try:
                await each.store.standings([tpm(1)])
            except StoreUnavailable:
                return False
            return True

        await until(usable)


async def gone(each: Replica) -> None:
    async def noticed() -> bool:
        return each.store.trouble is not None

    await until(noticed)


async def used(each: Replica, *limits: Limit) -> list[int]:
    return [standing.used for standing in await each.store.standings(limits)]


async def uses(each: Replica, limits: Sequence[Limit], amounts: Sequence[int]) -> bool:
    return await used(each, *limits) == amounts


async def spent_alone(each: Replica, wanted: Sequence[Claim], times: int = 30) -> int:
    """How often the replica lets in that much, without Redis."""
    lent = 0
    for number in range(times):
        with suppress(StoreUnavailable):
            let_in(await each.store.reserve(f"{each.owner}{number}{wanted}", wanted, [WEB]))
            lent += 1
    return lent


# Together


def test_two_replicas_let_in_what_one_limit_allows(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        limits = [rpm(40), rpd(30), parallel(50)]
        asked = [
            each.store.admit(f"{each.owner}{n}", limits) for n in range(50) for each in (one, two)
        ]
        answers = await asyncio.gather(*asked)
        assert sum(isinstance(each, tuple) for each in answers) == 30
        wanted = [
            each.store.reserve(
                f"{each.owner}a{n}", claims(10, tpm(455), budget(Window.DAY, 405)), []
            )
            for n in range(50)
            for each in (one, two)
        ]
        assert sum(isinstance(each, tuple) for each in await asyncio.gather(*wanted)) == 40
        await agree(server.url, one, two)

    pair(server, script)


def test_what_is_adopted_counts_for_all_until_it_is_settled(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.reserve("a.1", claims(30, tpm(100)), [WEB]))
        await one.store.learn([tpd(100), parallel(1)])  # as after every edit
        for _ in range(2):
            one.store.adopt("a", [Claim(parallel(1), 1)])
            one.store.adopt("a.1", claims(30, tpm(100), tpd(100)))
        await until(lambda: uses(two, [tpm(100), tpd(100), parallel(1)], [30, 30, 1]))
        refused(await two.store.admit("b", [parallel(1)]))
        refused(await two.store.reserve("b.1", claims(71, tpd(100)), [WEB]))
        await one.store.settle("a.1", Spent(tokens=10))
        await one.store.leave("a")
        await until(lambda: uses(two, [tpm(100), tpd(100), parallel(1)], [10, 10, 0]))
        await agree(server.url, one, two)

    pair(server, script)


def test_a_limit_that_comes_back_has_counted_what_the_ledger_knows(server: RedisServer) -> None:
    async def main() -> None:
        ledger = FakeSharedHistory()
        async with (
            replica(server.url, "one", history=ledger, spans=PATIENT) as one,
            replica(server.url, "two", spans=PATIENT) as two,
        ):
            limits = [rpd(9), rpm(9)]
            for each in (one, two):
                let_in(await each.store.admit(each.owner, limits))
            one.store.forget(limits)
            for _ in range(3):  # with the one that was counted, and two that came without a limit
                ledger.note(WEB, Unit.REQUESTS, "one", one.store.wall(), 1)
            assert await used(two, *limits) == [2, 2]
            await one.store.learn(limits)
            await until(lambda: uses(two, limits, [4, 4]))
            await agree(server.url, one, two)

    asyncio.run(main())


def test_a_refusal_tells_what_the_other_replica_used(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.admit("a", [rpm(1)]))
        refusal = refused(await two.store.admit("b", [rpm(1)]))
        assert (refusal.limit, refusal.used, refusal.remaining, refusal.wanted) == (rpm(1), 1, 0, 1)
        assert refusal.retry_after_s is not None
        assert 50 < refusal.retry_after_s <= 60
        let_in(await one.store.reserve("a.1", claims(8, tpd(10)), [WEB]))
        held = refused(await two.store.reserve("b.1", claims(5, tpd(10)), [WEB]))
        assert (held.used, held.retry_after_s) == (8, 1.0)
        await one.store.settle("a.1", Spent(tokens=9))
        await agree(server.url, one, two)
        late = refused(await two.store.reserve("b.2", claims(5, tpd(10)), [WEB]))
        assert late.used == 9
        assert late.retry_after_s == late.reset_s
        assert 0 < late.reset_s <= 86_400

    pair(server, script)


def test_who_leaves_while_it_asks_holds_nothing(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        await one.store.learn([parallel(1), tpd(10)])
        server.hang()
        asking = [
            asyncio.create_task(one.store.admit("a", [parallel(1)])),
            asyncio.create_task(one.store.reserve("a.1", claims(10, tpd(10)), [WEB])),
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        server.resume()
        await agree(server.url, one, two)
        let_in(await two.store.admit("b", [parallel(1)]))
        let_in(await two.store.reserve("b.1", claims(10, tpd(10)), [WEB]))

    pair(server, script)


def test_in_any_order_of_steps_redis_and_the_mirrors_say_the_same(server: RedisServer) -> None:
    chance = random.Random(7)  # noqa: S311  # which steps
    limits = [tpm(10_000), tpd(20_000), budget(Window.MONTH, 20_000), budget(Window.TOTAL, 9**9)]

    async def worker(each: Replica, name: str) -> None:
        for number in range(40):
            id = f"{name}.{number}"
            wanted = [claims(chance.randrange(1, 900), limit)[0] for limit in limits]
            ask = each.store.reserve(id, [*wanted, *claims(1, rpm(100, TARGET))], [WEB, TARGET])
            task = asyncio.create_task(ask)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() / 500)
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            amount = chance.randrange(1200)
            await each.store.settle(id, Spent(tokens=amount, nano_usd=amount))

    async def script(one: Replica, two: Replica) -> None:
        workers = [worker(each, f"{each.owner}{n}") for each in (one, two) for n in range(8)]
        await asyncio.gather(*workers)
        await agree(server.url, one, two)

    pair(server, script)


def test_thousands_of_entries_are_few_and_count_in_full(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        for _ in range(4):
            asked = [
                each.store.admit(f"{each.owner}{random.random()}", [rpm(3000)])  # noqa: S311
                for _ in range(500)
                for each in (one, two)
            ]
            await asyncio.gather(*asked)
        assert await used(two, rpm(3000)) == [3000]
        refusal = refused(await one.store.admit("more", [rpm(3000)]))
        assert refusal.retry_after_s is not None
        assert 30 < refusal.retry_after_s <= 60.05
        client = redis.asyncio.Redis.from_url(server.url)
        assert await client.llen(f"{PREFIX}e:{one.store._parts.all()[0].name}") < 2000
        await client.aclose()
        await agree(server.url, one, two)

    pair(server, script)


# Replicas that end


def test_who_ends_holds_nothing(server: RedisServer) -> None:
    async def main() -> None:
        async with replica(server.url, on_failure="leased") as one:
            async with replica(server.url, on_failure="leased") as two:
                let_in(await two.store.admit("a", [parallel(1), rpd(1000)]))
                let_in(await two.store.reserve("a.1", claims(400, tpd(1000)), [WEB]))
                let_in(await two.store.reserve("b.1", claims(400, tpm(1000)), [WEB]))

                async def leased() -> bool:
                    return all(part.lease for part in two.store._parts.all() if part.most > 1)

                await until(leased)
                await two.store.settle("b.1", Spent())  # nothing is open, and yet a lease held
            held = await counters(server.url)
            assert [name for name in held if name.startswith(("open", "lease"))] == []
            let_in(await one.store.admit("b", [parallel(1)]))
            let_in(await one.store.reserve("b.1", claims(1000, tpd(1000)), [WEB]))

    asyncio.run(main())


def test_a_killed_replicas_places_are_free_and_its_reservations_charged(
    server: RedisServer,
) -> None:
    async def main() -> None:
        async with replica(server.url, "one") as one, replica(server.url, "two") as two:
            let_in(await two.store.admit("a", [parallel(1)]))
            let_in(await two.store.reserve("a.1", claims(70, tpd(100), tpm(100)), [WEB]))
            await two.cut()
            refused(await one.store.admit("b", [parallel(1)]))

            async def free() -> bool:
                return isinstance(await one.store.admit("b", [parallel(1)]), tuple)

            await until(free)
            assert await used(one, tpd(100), tpm(100)) == [70, 70]
            refused(await one.store.reserve("b.1", claims(31, tpd(100)), [WEB]))
            held = await counters(server.url)
            assert {name: held[name] for name in held if name.startswith("open")} == {
                "open parallel:now:key:web": 1
            }

    asyncio.run(main())


def test_the_next_process_of_a_ledger_frees_and_charges_at_once(server: RedisServer) -> None:
    async def main() -> None:
        spans = replace(SHORT, owner_s=60.0)
        async with replica(server.url, "one", spans=spans) as one:
            async with replica(server.url, "two", spans=spans) as two:
                let_in(await two.store.admit("a", [parallel(1), rpd(10)]))
                let_in(await two.store.reserve("a.1", claims(70, tpd(100)), [WEB]))
                await two.cut()
            ledger = FakeSharedHistory()  # which knows of 70 that were charged, and of no attempt
            ledger.note(WEB, Unit.TOKENS, "two", one.store.wall(), 70)
            ledger.note(WEB, Unit.REQUESTS, "two", one.store.wall(), 0)
            async with replica(
                server.url, "three", history=ledger, spans=spans, dead=["two"]
            ) as three:
                await three.store.learn([tpd(100), rpd(10)])
                let_in(await one.store.admit("b", [parallel(1)]))
                assert await used(one, tpd(100), rpd(10)) == [70, 1]

    asyncio.run(main())


def test_a_budget_for_ever_grows_by_no_start_of_a_process(server: RedisServer) -> None:
    ever = budget(Window.TOTAL, 10_000)
    key = f"{PREFIX}s:nano_usd:total:key:web:0"

    async def live(number: int, ledger: FakeSharedHistory) -> None:
        """One process of the ledger: it takes 100, and is killed."""
        async with replica(
            server.url, f"p{number}", history=ledger, dead=[f"p{number - 1}"]
        ) as each:
            await each.store.learn([ever])
            assert await used(each, ever) == [100 * number]
            let_in(await each.store.reserve(f"{number}", claims(100, ever), [WEB]))
            await each.store.settle(f"{number}", Spent(nano_usd=100))
            await until(lambda: uses(each, [ever], [100 * number + 100]))
            await each.cut()
        ledger.note(WEB, Unit.NANO_USD, f"p{number}", 0.0, 100)

    async def main() -> None:
        ledger = FakeSharedHistory()
        for number in range(5):
            await live(number, ledger)
        stale = FakeSharedHistory({(WEB, Unit.NANO_USD): [("p0", 0.0, 100)]})  # asked long ago
        async with replica(server.url, "late", history=stale) as late:
            await late.store.learn([ever])
            assert await used(late, ever) == [500]
        other = FakeSharedHistory({(WEB, Unit.NANO_USD): [("q0", 0.0, 30)]}, name="other")
        async with replica(server.url, "q1", history=other) as beside:
            await beside.store.learn([ever])
            assert await used(beside, ever) == [530]
        async with redis.asyncio.Redis.from_url(server.url) as client:
            fields: dict[bytes, bytes] = dict(await client.hgetall(key))  # type: ignore[arg-type]  # never texts here
        assert {name.decode(): int(value) for name, value in fields.items()} == {
            "sum": 530,
            "p4": 100,  # whom no process has followed yet
            "ledger:books": 400,
            "ledger:other": 30,
        }

    asyncio.run(main())


def test_a_replica_that_was_only_away_is_as_it_was(server: RedisServer) -> None:
    async def main() -> None:
        spans = replace(SHORT, beat_s=0.05, owner_s=0.5)
        async with (
            replica(server.url, "one", spans=spans) as one,
            replica(server.url, "two", spans=spans) as two,
        ):
            let_in(await two.store.admit("a", [parallel(3), rpm(9)]))
            let_in(await two.store.reserve("a.1", claims(70, tpd(100), tpm(200)), [WEB]))
            assert two.store._beats is not None
            two.store._beats.cancel()  # it says nothing for a while

            async def buried() -> bool:
                return "open tokens:day:key:web" not in await counters(server.url)

            await until(buried)
            assert await used(one, tpd(100), tpm(200), parallel(3)) == [70, 70, 0]
            await two.store.settle("a.1", Spent(tokens=20))
            await agree(server.url, one, two)
            assert await used(two, tpd(100), tpm(200), parallel(3), rpm(9)) == [20, 20, 1, 1]

    asyncio.run(main())


# Redis that ends


def test_a_redis_that_came_back_empty_knows_all_again(server: RedisServer) -> None:
    async def main() -> None:
        wall = time.time()
        ledger = FakeSharedHistory()
        ledger.note(WEB, Unit.TOKENS, "dead", wall, 11)
        ledger.note(WEB, Unit.NANO_USD, "dead", wall - 1, 500)
        async with (
            replica(server.url, "one", spans=PATIENT) as one,
            replica(server.url, "two", history=ledger, spans=PATIENT) as two,
        ):
            limits = [tpd(100), tpm(100), budget(Window.TOTAL, 1000), rpm(9), parallel(9)]
            await two.store.learn(limits)
            for each in (one, two):
                let_in(await each.store.admit(f"{each.owner}", [rpm(9), parallel(9)]))
                wanted = claims(20, *limits[:3])
                let_in(await each.store.reserve(f"{each.owner}.1", wanted, [WEB]))
                let_in(await each.store.reserve(f"{each.owner}.2", wanted, [WEB]))
                await each.store.settle(f"{each.owner}.1", Spent(tokens=13, nano_usd=7))
            await until(
                lambda: uses(one, limits, [26 + 40 + 11, 26 + 40 + 11, 14 + 40 + 500, 2, 2])
            )
            server.stop()
            await gone(one)
            await gone(two)
            await one.store.settle("one.2", Spent(tokens=1, nano_usd=1))
            server.start()
            await back(one)  # and nobody asks anything of `two`
            assert await used(one, *limits) == [58, 58, 535, 2, 2]
            refused(await one.store.reserve("x", claims(43, tpd(100)), [WEB]))

    asyncio.run(main())


def test_nobody_is_let_in_before_all_have_told_an_empty_redis(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.admit("a", [parallel(1), rpd(1)]))
        for _ in range(5):
            server.command("FLUSHALL")
            with pytest.raises(StoreUnavailable):
                await two.store.admit("b", [parallel(1), rpd(1)])
            await back(one, two)
            refused(await two.store.admit("b", [parallel(1), rpd(1)]))
        server.command("SCRIPT", "FLUSH")
        refused(await two.store.admit("b", [parallel(1), rpd(1)]))
        await agree(server.url, one, two)

    pair(server, script)


@pytest.mark.parametrize("on_failure", ["leased", "open"])
def test_what_is_let_in_while_redis_recovers_is_known_to_it(
    server: RedisServer, on_failure: OnFailure
) -> None:
    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.reserve("a", claims(10, tpd(10_000)), [WEB]))
        if on_failure == "leased":
            await until(lambda: _leases(one))
        server.command("FLUSHALL")
        assert let_in(await one.store.reserve("b", claims(20, tpd(10_000)), [WEB])) == ()
        await one.store.settle("a", Spent(tokens=5))
        await back(one, two)
        await agree(server.url, one, two)
        assert (await counters(server.url))["open tokens:day:key:web"] == 20
        await one.store.settle("b", Spent(tokens=7))
        await agree(server.url, one, two)
        assert 12 in (await counters(server.url)).values()

    pair(server, script, on_failure)


async def _leases(*replicas: Replica) -> int:
    return all(any(part.lease for part in each.store._parts.all()) for each in replicas)


def test_a_redis_that_hangs_holds_nobody_up_and_nothing_drifts(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        limits = [tpd(1000), tpm(1000)]
        let_in(await one.store.reserve("a", claims(100, *limits), [WEB]))
        for round in range(3):
            server.hang()
            # Whether these are carried out is not known: they stand in the buffer of a socket.
            asked = [
                each.store.reserve(f"{each.owner}{round}.{n}", claims(10, *limits), [WEB])
                for n in range(10)
                for each in (one, two)
            ]
            async with asyncio.timeout(5):  # and not for as long as it hangs
                answers = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, StoreUnavailable) for each in answers)
            await one.store.settle("a", Spent(tokens=3))
            with pytest.raises(StoreUnavailable):
                await one.store.admit(f"late{round}", [rpm(5)])
            server.resume()
            await back(one, two)
            await agree(server.url, one, two)
            assert await used(two, *limits) == [3, 3]

    pair(server, script)


def test_a_batch_that_comes_late_changes_nothing(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        sent: list[tuple[Any, ...]] = []
        client, evaluate = one.client, one.client.evalsha

        async def spied(*words: Any) -> Any:
            sent.append(words)
            return await evaluate(*words)

        client.evalsha = spied
        let_in(await one.store.reserve("a", claims(10, tpd(100)), [WEB]))
        await one.store.settle("a", Spent(tokens=4))
        await agree(server.url, one, two)
        for _ in range(2):
            server.hang()
            with pytest.raises(StoreUnavailable):
                await one.store.reserve("b", claims(50, tpd(100)), [WEB])
            server.resume()
            await back(one, two)
        other = redis.asyncio.Redis.from_url(server.url)
        last = sent[-1][4]
        old = [words for words in sent if words[4] < last]
        assert {words[7] for words in old} == {"ask", "sync", "synced"}
        for words in (*old, *(each for each in sent if each[7] == "ask")):
            assert (await other.evalsha(*words))[0] == b"SYNC"
        await other.aclose()
        await agree(server.url, one, two)
        assert await used(one, tpd(100)) == [4]

    pair(server, script)


def test_all_that_a_replica_has_is_told_in_portions(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        for number in range(700):
            scope = Scope(ScopeKind.USER, f"u{number}")
            let_in(await one.store.admit(f"r{number}", [rpm(5, scope), parallel(5, scope)]))
        for _ in range(2):
            server.command("FLUSHALL")
            await asyncio.sleep(0.15)
            # It is told meanwhile of what changes.
            await asyncio.gather(*(one.store.leave(f"r{number}") for number in range(0, 700, 7)))
            await back(one, two)
            await agree(server.url, one, two)

    pair(server, script)


# While Redis is gone


def test_who_has_no_limits_is_let_in_without_redis(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        server.hang()
        for each, how in ((one, "closed"), (two, "leased")):
            each.fails(how)  # type: ignore[arg-type]
            assert await each.store.admit("a", []) == ()
            assert await each.store.reserve("a.1", [], [WEB]) == ()
            await each.store.settle("a.1", Spent(5, 5))
        server.resume()

    pair(server, script)


def test_the_leases_of_all_together_are_a_hundredth_of_a_limit(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        limits = [tpd(10_000), rpd(1000)]
        for each in (one, two):
            let_in(await each.store.admit(each.owner, [rpd(1000)]))
            let_in(await each.store.reserve(f"{each.owner}.1", claims(100, tpd(10_000)), [WEB]))
        await until(lambda: _leases(one, two))
        await agree(server.url, one, two)
        held = await counters(server.url)
        assert 0 < held["lease tokens:day:key:web"] <= 100
        assert 0 < held["lease requests:day:key:web"] <= 10
        server.stop()
        await gone(one)
        await gone(two)
        lent = sum([await spent_alone(each, claims(1, rpd(1000))) for each in (one, two)])
        assert 0 < lent <= 10
        tokens = 7 * sum([await spent_alone(each, claims(7, tpd(10_000))) for each in (one, two)])
        assert 0 < tokens <= 100
        server.start()
        await back(one, two)
        assert (await used(one, *limits))[0] >= 200 + tokens
        assert (await used(one, *limits))[1] >= 2 + lent

    pair(server, script, "leased")


def test_a_lease_is_spent_once_however_often_redis_goes(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.reserve("a", claims(9900, tpd(10_000)), [WEB]))
        await one.store.settle("a", Spent(tokens=9900))
        await until(lambda: _leases(one))
        total = 9900
        for _ in range(4):
            server.hang()
            await gone(one)
            total += 5 * await spent_alone(one, claims(5, tpd(10_000)))
            for id in list(one.store._held):
                await one.store.settle(id, Spent(tokens=5))
            server.resume()
            await back(one)
        assert 9900 < total <= 10_000
        await agree(server.url, one, two)

    pair(server, script, "leased")


def test_a_deployments_limits_are_kept_by_each_replica_alone(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        wanted = claims(1, rpm(3, TARGET), parallel(2, TARGET))
        let_in(await one.store.reserve("a", wanted, [TARGET]))
        server.stop()
        await gone(one)
        assert let_in(await one.store.reserve("b", wanted, [TARGET])) == ()
        assert refused(await one.store.reserve("c", wanted, [TARGET])).limit.word == "max_parallel"
        await one.store.settle("a", Spent())
        assert let_in(await one.store.reserve("d", wanted, [TARGET])) == ()
        await one.store.settle("b", Spent())
        refusal = refused(await one.store.reserve("e", wanted, [TARGET]))
        assert refusal.limit.word == "rpm"
        assert refusal.retry_after_s is not None
        assert 50 < refusal.retry_after_s <= 60.1
        server.start()
        await back(one, two)
        await agree(server.url, one, two)
        assert refused(await two.store.reserve("f", wanted, [TARGET])).used == 3

    pair(server, script, "leased")


def test_open_lets_everybody_in_and_counts_it_afterwards(server: RedisServer) -> None:
    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.reserve("a", claims(5, tpd(10)), [WEB]))
        server.stop()
        await gone(one)
        for number in range(5):
            let_in(await one.store.reserve(f"b{number}", claims(5, tpd(10)), [WEB]))
        for number in range(4):
            await one.store.settle(f"b{number}", Spent(tokens=6))
        server.start()
        await back(one, two)
        assert await used(two, tpd(10)) == [34]
        refused(await two.store.reserve("c", claims(1, tpd(10)), [WEB]))

    pair(server, script, "open")


def test_a_redis_that_is_not_there_at_first_is_used_when_it_comes(server: RedisServer) -> None:
    async def main() -> None:
        server.stop()
        ledger = FakeSharedHistory()
        ledger.note(WEB, Unit.TOKENS, "dead", time.time(), 60)
        async with replica(server.url, history=ledger, spans=PATIENT) as one:
            assert one.store.trouble is not None
            assert len(one.told) == 1
            await one.store.learn([tpd(100, TEAM)])
            with pytest.raises(StoreUnavailable):
                await one.store.reserve("a", claims(50, tpd(100)), [WEB])
            server.start()
            await back(one)
            assert one.told[1:] == [None]
            assert refused(await one.store.reserve("a", claims(50, tpd(100)), [WEB])).used == 60

    asyncio.run(main())


# Clocks


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S], ids=["ahead", "behind"])
def test_a_clock_that_is_set_lets_nobody_in(server: RedisServer, step_s: float) -> None:
    async def main() -> None:
        clock = SteppedClock()
        async with (
            replica(server.url, "one", clock=clock, spans=PATIENT) as one,
            replica(server.url, "two", spans=PATIENT) as two,
        ):
            limits = [rpm(10), rpd(10)]
            for number in range(5):
                let_in(await one.store.admit(f"a{number}", limits))
            clock.ahead_s = step_s
            assert abs(one.store.wall() - two.store.wall()) < 1
            for number in range(5):
                let_in(await one.store.admit(f"b{number}", limits))
            for each in (one, two):
                refused(await each.store.admit("c", limits))
            server.command("FLUSHALL")
            await back(one, two)
            refused(await one.store.admit("c", limits))
            await agree(server.url, one, two)
            # And one that starts with a wrong clock, off by months.
            wrong = SteppedClock()
            wrong.ahead_s = 2400 * step_s
            async with replica(server.url, "three", clock=wrong, spans=PATIENT) as three:
                refused(await three.store.admit("d", limits))
                assert abs(three.store.wall() - two.store.wall()) < 1

    asyncio.run(main())


def test_a_mirror_is_never_below_what_its_process_was_let_in_for(server: RedisServer) -> None:
    """As long as it is so, whatever Redis loses is told to it again."""

    async def script(one: Replica, two: Replica) -> None:
        let_in(await one.store.reserve("a", claims(5, tpd(10), tpm(10)), [WEB]))
        answer = await two.store.reserve("b", claims(6, tpd(10), tpm(10)), [WEB])
        assert isinstance(answer, Refusal)
        assert sum(mirrored(one).values()) == 10
        assert sum(mirrored(two).values()) == 0

    pair(server, script)


@pytest.mark.proof
@pytest.mark.parametrize("doing", ["hang", "stop"])
@pytest.mark.parametrize("how", ["leased", "closed", "open"])
def test_what_a_redis_that_goes_costs_a_reservation(
    server: RedisServer, how: OnFailure, doing: str
) -> None:
    """Under load, so that somebody is under way when it goes; the figures are printed."""
    took: list[tuple[float, float]] = []

    async def worker(each: Replica, name: str, end_s: float) -> None:
        number = 0
        while time.monotonic() < end_s:
            number += 1
            before = time.monotonic()
            with suppress(StoreUnavailable):
                await each.store.reserve(f"{name}{number}", claims(1, tpd(10**9)), [WEB])
            took.append((before, time.monotonic() - before))
            await each.store.settle(f"{name}{number}", Spent(tokens=1))
            await asyncio.sleep(0.005)

    async def script(one: Replica, two: Replica) -> None:
        end_s = time.monotonic() + 6
        workers = [
            asyncio.create_task(worker(each, f"{each.owner}{n}", end_s))
            for each in (one, two)
            for n in range(4)
        ]
        await asyncio.sleep(1.0)
        went_s = time.monotonic()
        getattr(server, doing)()
        await asyncio.gather(*workers)
        (server.resume if doing == "hang" else server.start)()
        await back(one, two)
        spans = {"with": (0.0, went_s), "first": (went_s - 0.2, went_s + 0.5)}
        spans["gone"] = (went_s + 0.5, end_s)
        for name, (start_s, until_s) in spans.items():
            found = sorted(1000 * took_s for at_s, took_s in took if start_s <= at_s < until_s)
            print(  # noqa: T201  # the figures of the proof
                f"\n{how} {doing} {name}: {len(found)}, median {found[len(found) // 2]:.3f} ms, "
                f"p99 {found[int(len(found) * 0.99)]:.3f}, most {found[-1]:.3f}",
                end="",
            )
        assert max(took_s for _, took_s in took) < 1
        await agree(server.url, one, two)

    pair(server, script, how, replace(PATIENT, batch_s=0.1))
