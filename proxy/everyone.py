"""
What concerns all processes that serve at one address: this one alone, or several workers.

A request reaches one of them; its numbers and its configuration are those of all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from proxy.metrics import Metrics
from proxy.numbers import Numbers

WORST = ("error", "ok", "unchanged")  # what a reload came to: the first that any of them says


class Silent(Exception):
    """Nobody knows of the others now."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of the file when it was read again."""

    result: str  # one of WORST
    error: str | None
    generation: int


class Everyone(Protocol):
    """All that serve here. Both methods raise Silent."""

    async def numbers(self) -> Numbers: ...

    async def reload(self) -> Reloaded:
        """Have the file read again by all of them."""
        ...


class Rereads(Protocol):
    """The keeper of the file of one process."""

    @property
    def generation(self) -> int: ...
    @property
    def last_error(self) -> Exception | None: ...
    async def reload(self) -> str: ...


class Alone:
    """This process: everyone, where it is the only one."""

    def __init__(
        self, metrics: Metrics, files: Rereads, refresh: Callable[[], Awaitable[None]]
    ) -> None:
        self._metrics = metrics
        self._files = files
        self._refresh = refresh

    async def numbers(self) -> Numbers:
        """Return the numbers, with the gauges that are set by whoever looks."""
        await self._refresh()
        return self._metrics.numbers()

    def glance(self) -> Numbers:
        """Return what has been counted so far."""
        return self._metrics.numbers()

    async def reload(self) -> Reloaded:
        result = await self._files.reload()
        error = self._files.last_error
        return Reloaded(result, None if error is None else str(error), self._files.generation)


def reloaded_by_all(found: Sequence[Reloaded]) -> Reloaded:
    """Return the answer for all: an error of any is one of all. Raises Silent where nobody is."""
    if not found:
        raise Silent("no worker answers")
    worst = min(found, key=lambda each: WORST.index(each.result))
    return Reloaded(worst.result, worst.error, min(each.generation for each in found))
