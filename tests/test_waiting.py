"""A bound on waiting costs nothing where nothing is waited for, and holds where something is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.waiting import Bound, counted, watched, within

pytestmark = pytest.mark.anyio


async def at_hand(value: int) -> int:
    return value


async def given(future: asyncio.Future[int]) -> int:
    return await future + await future


def timers_set() -> list[float]:
    """Return the moments of the timers that are set from now on."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def noted(when: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *rest, **more)

    loop.call_at = noted  # type: ignore[assignment, method-assign]
    return timers


async def test_what_is_at_hand_is_returned_without_a_timer() -> None:
    timers = timers_set()
    assert await within(5.0, at_hand(3)) == 3
    assert timers == []


async def test_what_comes_in_time_is_returned() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(60.0, given(future)))
    await asyncio.sleep(0)
    future.set_result(2)
    assert await waiting == 4


async def test_what_does_not_come_is_cancelled_and_a_timeout() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await within(0.01, given(future))
    assert future.cancelled()


async def test_an_error_is_raised_whether_it_is_at_hand_or_comes() -> None:
    async def fails(future: asyncio.Future[int] | None) -> int:
        if future is not None:
            await future
        raise KeyError("wrong")

    with pytest.raises(KeyError, match="wrong"):
        await within(5.0, fails(None))
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 1)
    with pytest.raises(KeyError, match="wrong"):
        await within(5.0, fails(future))


async def test_one_who_is_cancelled_meanwhile_is_cancelled() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(within(60.0, given(future)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


class Waiter:
    """Waits again and again under one bound."""

    def __init__(self) -> None:
        self.bound = Bound()
        self.gates: list[asyncio.Future[None]] = []

    async def wait(self, seconds: float) -> None:
        self.gates.append(asyncio.get_running_loop().create_future())
        with self.bound.to(seconds):
            await self.gates[-1]

    async def wait_in_time(self, seconds: float) -> None:
        waiting = asyncio.create_task(self.wait(seconds))
        await asyncio.sleep(0)
        self.gates[-1].set_result(None)
        await waiting


async def test_one_timer_is_enough_for_many_waits() -> None:
    timers, waiter = timers_set(), Waiter()
    for _ in range(5):
        await waiter.wait_in_time(60.0)
    assert len(timers) == 1
    waiter.bound.close()


@pytest.mark.parametrize("before", [(), (60.0,), (0.005,), (0.005, 60.0)])
async def test_each_wait_has_its_own_limit(before: tuple[float, ...]) -> None:
    waiter = Waiter()
    for seconds in before:
        await waiter.wait_in_time(seconds)
    with pytest.raises(TimeoutError):
        await waiter.wait(0.01)
    assert waiter.gates[-1].cancelled()
    await waiter.wait_in_time(60.0)  # and the next one its own again
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timer_that_rings_too_early_is_set_again() -> None:
    timers, waiter = timers_set(), Waiter()
    await waiter.wait_in_time(0.005)
    with pytest.raises(TimeoutError):
        await waiter.wait(0.02)
    first, second = timers
    assert second > first


async def test_a_timer_that_rings_while_nobody_waits_ends_nothing() -> None:
    waiter, over = Waiter(), asyncio.Event()
    await waiter.wait_in_time(0.0)
    asyncio.get_running_loop().call_later(0.005, over.set)
    await over.wait()
    await waiter.wait_in_time(60.0)


async def test_who_is_cancelled_while_the_bound_holds_is_cancelled() -> None:
    waiter = Waiter()
    waiting = asyncio.create_task(waiter.wait(60.0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_who_is_cancelled_at_the_same_moment_is_cancelled_and_not_late() -> None:
    waiter = Waiter()
    waiting = asyncio.create_task(waiter.wait(0.0))
    await asyncio.sleep(0)
    waiting.cancel()
    waiter.bound._ring()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_bound_that_is_closed_has_no_timer() -> None:
    waiter = Waiter()
    await waiter.wait_in_time(60.0)
    timer = waiter.bound._timer
    assert timer is not None
    waiter.bound.close()
    assert timer.cancelled()


async def test_only_what_is_waited_for_is_counted() -> None:
    moments, spans = iter(range(0, 100, 10)), list[float]()

    def now() -> float:
        return float(next(moments))

    assert await counted(at_hand(3), now, spans.append) == 3
    assert spans == []
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 2)
    assert await counted(given(future), now, spans.append) == 4
    assert spans == [10.0]
    future = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await counted(given(future), now, spans.append)
    assert spans == [10.0, 10.0]


async def test_what_is_at_hand_is_not_watched_and_what_is_waited_for_is_from_then_on() -> None:
    seen: list[str] = []

    async def work(future: asyncio.Future[int]) -> int:
        seen.append("begun")
        first = await future
        await asyncio.sleep(0)
        seen.append("done")
        return first

    assert await watched(at_hand(3), lambda: seen.append("watched")) == 3
    assert seen == []
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(watched(work(future), lambda: seen.append("watched")))
    await asyncio.sleep(0)
    assert seen == ["begun", "watched"]
    future.set_result(2)
    assert await waiting == 2
    assert seen == ["begun", "watched", "done"]


async def test_one_who_is_watched_may_take_a_cancellation_and_go_on() -> None:
    async def stubborn(future: asyncio.Future[int]) -> list[str]:
        heard = []
        for _ in range(3):
            try:
                await future
            except asyncio.CancelledError:
                heard.append("cancelled")
                future = asyncio.get_running_loop().create_future()
        return heard

    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(watched(stubborn(future), lambda: None))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    assert await waiting == ["cancelled"] * 3
