"""
How long somebody else was waited for: a provider, or a reader who is slow.

What runs between two suspensions is our own time, whoever wrote the code. What has come while the
loop was busy with another request counts as still waited for: nobody can tell.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from types import TracebackType, coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")
_TICK_S = 0.001  # uvloop counts in milliseconds, and goes off early


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


class Bound:
    """
    A limit to each of many waits, one after the other: `with bound.to(seconds)` around each.

    It works as `asyncio.timeout` does, with one timer for all of them: what comes in time does not
    touch it, and one that rings too early is set again. Whoever has waited enough closes it.
    """

    __slots__ = ("_cancelled_before", "_loop", "_rang", "_rings_s", "_task", "_timer", "_until_s")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_s = 0.0
        self._until_s = 0.0
        self._task: asyncio.Task[Any] | None = None  # that waits
        self._cancelled_before = 0
        self._rang = False

    def to(self, seconds: float) -> Self:
        """Set the limit of the next wait."""
        self._until_s = self._loop.time() + seconds
        return self

    def __enter__(self) -> Self:
        if self._timer is None or self._until_s < self._rings_s:
            self._set()
        self._task = task = asyncio.current_task(self._loop)
        self._cancelled_before = task.cancelling() if task is not None else 0
        self._rang = False
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self._rang and task is not None:
            alone = task.uncancel() <= self._cancelled_before
            if alone and isinstance(error, asyncio.CancelledError):
                raise TimeoutError from error

    def close(self) -> None:
        """Forget the timer."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _set(self) -> None:
        self.close()
        self._rings_s = self._until_s
        self._timer = self._loop.call_at(self._rings_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._task is None:
            return  # nobody waits, and whoever does next sets it
        if self._until_s - self._loop.time() > _TICK_S:
            self._set()
        else:
            self._rang = True
            self._task.cancel()


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

    def through(self, work: Awaitable[T]) -> Awaitable[T]:
        """Await `work`, as `await work` does; each of its suspensions is added to the total."""
        self.used = True
        return counted(work, self._now, self._add)

    def _add(self, seconds: float) -> None:
        self.total_s += seconds


@coroutine
def counted(
    work: Awaitable[T], now: Callable[[], float], add: Callable[[float], None]
) -> Generator[Any, Any, T]:
    """Await `work`; `add` is told how long each of its suspensions was, where there are any."""
    steps = work.__await__()
    try:
        awaited = next(steps)
        while True:
            since_s = now()
            try:
                yield awaited
            except BaseException as exc:
                add(now() - since_s)
                awaited = steps.throw(exc)
            else:
                add(now() - since_s)
                awaited = next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
