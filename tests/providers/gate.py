"""A door that a scripted answer waits at, so that a test needs neither sleep nor luck."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TypeAlias

_Waiter: TypeAlias = tuple[asyncio.AbstractEventLoop, "asyncio.Future[None]"]


@dataclass(eq=False)
class Gate:
    """Closed until `open()`; opened by the test's thread, waited for on the provider's loop."""

    _opened: bool = False
    _waiters: list[_Waiter] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self) -> None:
        """Everybody who waits goes on, and nobody waits here again."""
        with self._lock:
            self._opened = True
            waiters, self._waiters = self._waiters, []
        for loop, waiter in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_wake, waiter)

    async def wait(self) -> None:
        """The gate is open."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._opened:
                return
            waiter: asyncio.Future[None] = loop.create_future()
            self._waiters.append((loop, waiter))
        await waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
