"""Clocks that are set: one replica's by an hour, and Redis' own to just before midnight."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.limits import Spent, Window
from tests.e2e.redis_load import FEW_RPD, pair
from tests.harness import redis_server
from tests.harness.fake_time import FakeTime
from tests.store.redis_stand import Replica, replica, until
from tests.store.stores import WEB, budget, claims, let_in, refused, rpd, tpd

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.redis,
    pytest.mark.proof,
    pytest.mark.timeout(200),
]


def lines_of(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("offset", ["+1h", "-1h"])
def test_a_replica_whose_clock_is_set_lets_nobody_in(tmp_path: Path, offset: str) -> None:
    clock = FakeTime(tmp_path)
    with pair("closed", env=clock.env) as both:

        async def main() -> None:
            async with both.load():
                await asyncio.sleep(1.0)
                clock.set(offset)
                await asyncio.sleep(3.0)
                both.redis.command("FLUSHALL")
                await asyncio.sleep(6.0)
                times = [line["time"] for line in lines_of(both.replicas[1].log)]
                off_s = datetime.fromisoformat(times[-1]).timestamp() - time.time()
                assert abs(abs(off_s) - 3600) < 60  # it does take the time from there
                clock.set("+0")
                await asyncio.sleep(10.0)

        asyncio.run(main())
        both.wait_right()
        for place in (0, 1):
            assert both.ask_once(place, "few") == 429
        let_in_ = sum(each.caller == "few" and each.status == 200 for each in both.told)
        print(f"\nclock {offset}: {let_in_} of {FEW_RPD} let in")  # noqa: T201
        assert let_in_ <= FEW_RPD
        assert let_in_ >= FEW_RPD * 0.9
        assert max(each.took_s for each in both.told) < 5.0


async def _room(each: Replica, amount: int) -> bool:
    answer = await each.store.reserve(f"t{time.monotonic()}", claims(amount, tpd(100)), [WEB])
    return isinstance(answer, tuple)


def test_a_day_and_a_month_end_for_everybody_when_they_end_for_redis(tmp_path: Path) -> None:
    first = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(day=1)
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    clock = FakeTime(tmp_path, f"+{int(midnight.timestamp() - time.time()) - 6}s")
    with redis_server(env={**clock.env, "TZ": "UTC"}) as server:

        async def main() -> None:
            async with (
                replica(server.url, "one") as one,
                replica(server.url, "two") as two,
            ):
                month = budget(Window.MONTH, 1000)
                assert midnight.timestamp() - 7 < one.store.wall() < midnight.timestamp()
                let_in(await one.store.admit("a", [rpd(1)]))
                wanted = [*claims(80, tpd(100)), *claims(900, month)]
                let_in(await one.store.reserve("a.1", wanted, [WEB]))
                let_in(await two.store.reserve("a.2", claims(20, tpd(100)), [WEB]))
                await two.store.settle("a.2", Spent(tokens=20))
                refusal = refused(await two.store.admit("b", [rpd(1)]))
                assert refusal.retry_after_s is not None
                assert refusal.retry_after_s < 7
                refused(await two.store.reserve("b.1", claims(101, month), [WEB]))
                await until(lambda: _room(two, 20))  # the 80 are still open
                assert one.store.wall() >= midnight.timestamp()
                refused(await two.store.reserve("c.1", claims(1, tpd(100)), [WEB]))
                refused(await two.store.reserve("c.2", claims(101, month), [WEB]))
                await one.store.settle("a.1", Spent(tokens=10, nano_usd=1))
                await until(lambda: _room(two, 70))
                let_in(await one.store.admit("c", [rpd(1)]))
                let_in(await two.store.reserve("d.2", claims(999, month), [WEB]))
                server.command("FLUSHALL")
                await asyncio.sleep(1)
                refused(await one.store.reserve("e.1", claims(1, tpd(100)), [WEB]))
                refused(await one.store.reserve("e.2", claims(1, month), [WEB]))

        asyncio.run(main())
