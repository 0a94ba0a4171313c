"""For how long a place is asked that may be gone, and by whom."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

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


def run(main: Callable[[FakeClock, Patience], Awaitable[None]]) -> None:
    async def begin() -> None:
        clock = FakeClock()
        await main(clock, Patience(clock))

    asyncio.run(begin())


@pytest.mark.parametrize("error", [RedisGone(), OSError(), TimeoutError(), EOFError(), KeyError()])
def test_what_fails_is_not_asked_for_a_while(error: Exception) -> None:
    async def main(clock: FakeClock, patience: Patience) -> None:
        asked = Asked(error, "yes")
        for _ in range(3):
            with pytest.raises(Failed):
                await patience.ask(asked)
        assert asked.count == 1
        clock.pass_(REST_S)
        assert await patience.ask(asked) == "yes"

    run(main)


def test_how_long_it_is_asked_is_for_whoever_asks_to_say() -> None:
    async def slow() -> str:
        await asyncio.sleep(0.3)
        return "yes"

    async def main() -> None:
        with pytest.raises(Failed):
            await Patience(FakeClock(), 0.01).ask(slow)
        assert await Patience(FakeClock(), 20.0).ask(slow) == "yes"

    asyncio.run(main())


@pytest.mark.parametrize("error", [ResponseError("WRONGTYPE"), OutOfMemoryError()])
def test_what_answers_and_refuses_is_asked_again_at_once(error: Exception) -> None:
    async def main(clock: FakeClock, patience: Patience) -> None:
        asked = Asked(error, "yes")
        with pytest.raises(Failed):
            await patience.ask(asked)
        assert await patience.ask(asked) == "yes"

    run(main)


def test_after_a_rest_one_finds_out_and_nobody_waits_for_that() -> None:
    async def main(clock: FakeClock, patience: Patience) -> None:
        asked = Asked(RedisGone(), "back", "yes")
        with pytest.raises(Failed):
            await patience.ask(asked)
        clock.pass_(REST_S)
        asked.go.clear()
        first = asyncio.create_task(patience.ask(asked))
        await asyncio.sleep(0)
        for _ in range(3):
            with pytest.raises(Failed):
                await patience.ask(asked)
        asked.go.set()
        assert await first == "back"
        assert await patience.ask(asked) == "yes"
        assert asked.count == 3

    run(main)
