"""A bound on waiting costs nothing where nothing is waited for, and holds where something is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.waiting import watched, within

pytestmark = pytest.mark.anyio


async def at_hand(value: int) -> int:
    return value


async def given(future: asyncio.Future[int]) -> int:
    return await future + await future


async def test_what_is_at_hand_is_returned_without_a_timer() -> None:
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def noted(when: float, *rest: Any, **more: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *rest, **more)

    loop.call_at = noted  # type: ignore[assignment, method-assign]
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
