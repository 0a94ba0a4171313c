from __future__ import annotations

import asyncio

import uvloop

from proxy.clock import SystemClock


def test_a_sleep_is_never_shorter_than_it_was_asked_for() -> None:
    async def main() -> None:
        clock = SystemClock()
        for _ in range(20):
            before_s = clock.now()
            await clock.sleep(0.003)
            assert clock.now() - before_s >= 0.003

    asyncio.run(main())
    uvloop.run(main())


def test_wall_time_and_durations_are_different_clocks() -> None:
    clock = SystemClock()
    assert clock.wall() > 1_700_000_000 > clock.now() - 1_000_000_000
