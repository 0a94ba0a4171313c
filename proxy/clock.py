"""Time as a dependency, so that no test ever sleeps."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

TICK_S = 0.001


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds. Only differences mean anything."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, UTC: for expiry dates and timestamps, never for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return no earlier than that, by `now`."""
        ...


class SystemClock:
    # Asked some thirty times a request, so without a call of Python's in between.
    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    async def sleep(self, seconds: float) -> None:
        # uvloop counts in milliseconds and goes off early; what is waited for must be there then.
        await asyncio.sleep(seconds + TICK_S)
