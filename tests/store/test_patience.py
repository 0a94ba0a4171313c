"""For how long a place is asked that may be gone, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import OutOfMemoryError, ResponseError

from proxy.store.patience import REST_S, Failed, Patience
from tests.fakes import FakeClock


class Asked:
    """What is asked: it does in turn what it was told to, and counts."""

    def __init__(self, *outcomes: Exception | str) -> None:
        self._outcomes = list(outcomes)
        self.count = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self) -> str:
        self.count += 1
        await self.go.wait()
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


Main: TypeAlias = Callable[[FakeClock, Patience, Asked], Awaitable[None]]


def run(main: Main, *probed: Exception | str) -> None:
    async def begin() -> None:
        clock, probe = FakeClock(), Asked(*probed)
        await main(clock, Patience(clock, probe), probe)

    asyncio.run(begin())


async def fails(patience: Patience, asked: Asked) -> None:
    with pytest.raises(Failed):
        await patience.ask(asked)


async def turns() -> None:
    """Let the probe come to its end."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("error", [RedisGone(), OSError(), TimeoutError(), EOFError(), KeyError()])
def test_what_fails_is_not_asked_until_a_probe_finds_it_back(error: Exception) -> None:
    async def main(clock: FakeClock, patience: Patience, probe: Asked) -> None:
        asked = Asked(error, "yes")
        for _ in range(3):
            await fails(patience, asked)
        assert (asked.count, probe.count) == (1, 0)
        clock.pass_(REST_S)
        await fails(patience, asked)  # and does not wait for what it brings about
        await turns()
        assert await patience.ask(asked) == "yes"
        assert (asked.count, probe.count) == (2, 1)

    run(main, "PONG")


def test_a_probe_that_fails_is_sent_again_a_second_later() -> None:
    async def main(clock: FakeClock, patience: Patience, probe: Asked) -> None:
        asked = Asked(RedisGone(), "yes")
        await fails(patience, asked)
        clock.pass_(REST_S)
        for _ in range(3):
            await fails(patience, asked)
            await turns()
        assert probe.count == 1
        clock.pass_(REST_S)
        await fails(patience, asked)
        await turns()
        assert await patience.ask(asked) == "yes"

    run(main, RedisGone(), "PONG")


def test_one_probe_is_sent_at_a_time_and_nobody_waits_for_it() -> None:
    async def main(clock: FakeClock, patience: Patience, probe: Asked) -> None:
        asked = Asked(RedisGone(), "yes")
        await fails(patience, asked)
        probe.go.clear()
        for _ in range(3):
            clock.pass_(REST_S)
            await fails(patience, asked)
            await turns()
        assert probe.count == 1
        probe.go.set()
        await turns()
        assert await patience.ask(asked) == "yes"

    run(main, "PONG")


@pytest.mark.parametrize("error", [ResponseError("WRONGTYPE"), OutOfMemoryError()])
def test_what_answers_and_refuses_is_asked_again_at_once(error: Exception) -> None:
    async def main(clock: FakeClock, patience: Patience, probe: Asked) -> None:
        asked = Asked(error, "yes")
        await fails(patience, asked)
        assert await patience.ask(asked) == "yes"

    run(main)


def test_a_probe_that_is_refused_was_answered() -> None:
    async def main(clock: FakeClock, patience: Patience, probe: Asked) -> None:
        asked = Asked(RedisGone(), "yes")
        await fails(patience, asked)
        clock.pass_(REST_S)
        await fails(patience, asked)
        await turns()
        assert await patience.ask(asked) == "yes"

    run(main, ResponseError("NOPERM"))


def test_how_long_it_is_asked_is_for_whoever_asks_to_say() -> None:
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "yes"

    async def main() -> None:
        with pytest.raises(Failed):
            await Patience(FakeClock(), slow, 0.01).ask(slow)
        assert await Patience(FakeClock(), slow, 20.0).ask(slow) == "yes"

    asyncio.run(main())
