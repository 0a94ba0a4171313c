"""
How long somebody else was waited for: a provider, or a reader who is slow.

What runs between two suspensions is our own time, whoever wrote the code. What has come while the
loop was busy with another request counts as still waited for: nobody can tell.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


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
