"""
How long somebody else was waited for: a provider, or a reader who is slow.

What runs between two suspensions is our own time, whoever wrote the code. What has come while the
loop was busy with another request counts as still waited for: nobody can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


@coroutine
def within(seconds: float, work: Awaitable[T]) -> Generator[Any, Any, T]:
    """
    Await `work`, and raise TimeoutError after so long; what need not be waited for needs no timer.
    """
    steps = work.__await__()
    try:
        awaited = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    return (yield from _timed(seconds, steps, awaited).__await__())


async def _timed(seconds: float, steps: Generator[Any, Any, T], awaited: Any) -> T:
    async with asyncio.timeout(seconds):
        return await _resumed(steps, awaited)


@coroutine
def watched(work: Awaitable[T], watch: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await `work`, and call `watch` once there is something to be waited for."""
    steps = work.__await__()
    try:
        awaited = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    watch()
    return (yield from _resumed(steps, awaited))


@coroutine
def _resumed(steps: Generator[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Go on with what has begun, and waits for `awaited`."""
    try:
        while True:
            try:
                yield awaited
            except BaseException as exc:
                awaited = steps.throw(exc)
            else:
                break
    except StopIteration as done:
        result: T = done.value
        return result
    return (yield from steps)


class Waiting:
    """The seconds that were spent suspended in what was awaited `through` it."""

    __slots__ = ("_now", "total_s", "used")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.total_s = 0.0
        self.used = False

    def now(self) -> float:
        """Seconds on a clock that runs only meanwhile; where nothing is, on the ordinary one."""
        return self.total_s if self.used else self._now()

    async def on(self, future: Awaitable[T]) -> T:
        """Await `future`, which does nothing of its own meanwhile; all of that time is added."""
        self.used = True
        since_s = self._now()
        try:
            return await future
        finally:
            self.total_s += self._now() - since_s

    @coroutine
    def through(self, work: Awaitable[T]) -> Generator[Any, Any, T]:
        """Await `work`, as `await work` does; each of its suspensions is added to the total."""
        self.used = True
        steps = work.__await__()
        try:
            awaited = next(steps)
            while True:
                since_s = self._now()
                try:
                    yield awaited
                except BaseException as exc:
                    self.total_s += self._now() - since_s
                    awaited = steps.throw(exc)
                else:
                    self.total_s += self._now() - since_s
                    awaited = next(steps)
        except StopIteration as done:
            result: T = done.value
            return result
