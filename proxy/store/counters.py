"""What is used of one unit by one scope in one window. Pure: the time is passed in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from math import inf

from proxy.limits import Window
from proxy.store.windows import bounds

MINUTE_S = 60.0


class Counter:
    """
    What is set aside (`open`) and what is `settled`; this one for what is only under way.

    `known` is false until the past of the window is in it.
    """

    def __init__(self) -> None:
        self.open = 0
        self.settled = 0
        self.known = False
        self.loading: asyncio.Task[None] | None = None

    @property
    def used(self) -> int:
        return self.settled + self.open

    def turn(self, now_s: float, wall_s: float) -> None:
        """Forget what has left the window. `now_s` is monotonic, `wall_s` since 1970."""

    def add(self, amount: int, now_s: float) -> None:
        """Count what is used for good."""
        self.settled += amount

    def begin(self) -> None:
        """Know nothing that is settled: the past is asked for, and has all of it up to now."""
        self.settled = 0

    def frees_in_s(self, amount: int, now_s: float, wall_s: float) -> float | None:
        """Return when `amount` of what is settled will have left the window; None: never."""
        return None

    def empty_in_s(self, now_s: float, wall_s: float) -> float:
        """
        Return when all that is used will have left the window, were it settled now.

        0 where nothing is used, and where nothing ever leaves.
        """
        return 0.0


class Sliding(Counter):
    """The last sixty seconds, entry by entry."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: deque[tuple[float, int]] = deque()

    def turn(self, now_s: float, wall_s: float) -> None:
        entries, before_s = self._entries, now_s - MINUTE_S
        while entries and entries[0][0] <= before_s:
            self.settled -= entries.popleft()[1]

    def add(self, amount: int, now_s: float) -> None:
        if amount:
            self._entries.append((now_s, amount))
            self.settled += amount

    def begin(self) -> None:
        super().begin()
        self._entries.clear()

    def remember(self, entries: Iterable[tuple[float, int]], now_s: float) -> None:
        """Put what was used before the first entry in front of it; moments as `now_s`."""
        for at_s, amount in sorted(entries, reverse=True):
            # By a clock that was set back since, it was in the future; it was not.
            self._entries.appendleft((min(at_s, now_s), amount))
            self.settled += amount

    def frees_in_s(self, amount: int, now_s: float, wall_s: float) -> float | None:
        freed = 0
        for at_s, entry in self._entries:
            freed += entry
            if freed >= amount:
                return at_s + MINUTE_S - now_s
        return None

    def empty_in_s(self, now_s: float, wall_s: float) -> float:
        if self.open:
            return MINUTE_S
        return self._entries[-1][0] + MINUTE_S - now_s if self._entries else 0.0


class Calendar(Counter):
    """A UTC day or month, or all time."""

    def __init__(self, window: Window) -> None:
        super().__init__()
        self._window = window
        self.since = inf  # of the window that `settled` is about
        self._until = -inf

    def turn(self, now_s: float, wall_s: float) -> None:
        if not self.since <= wall_s < self._until:
            self.since, self._until = bounds(self._window, wall_s)
            self.settled = 0
            self.known = False

    def frees_in_s(self, amount: int, now_s: float, wall_s: float) -> float | None:
        return None if self._until == inf else self._until - wall_s

    def empty_in_s(self, now_s: float, wall_s: float) -> float:
        return self._until - wall_s if self.used and self._until != inf else 0.0


def counter_for(window: Window) -> Counter:
    match window:
        case Window.NOW:
            return Counter()
        case Window.MINUTE:
            return Sliding()
        case Window.DAY | Window.MONTH | Window.TOTAL:
            return Calendar(window)
