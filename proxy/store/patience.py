"""A place that may be gone: asked for so long at most, and then not for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import ResponseError

from proxy.clock import Clock

TIMEOUT_S = 0.1
GRACE_S = 0.05  # in which a busy event loop may find the reply that is there
REST_S = 1.0

T = TypeVar("T")


class Failed(Exception):
    """It was not done, or nobody knows."""


class Patience:
    """Asks, and remembers for how long it is of no use to ask."""

    def __init__(self, clock: Clock, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._again_s = 0.0  # not asked before this moment
        self._failing = False

    async def ask(self, ask: Callable[[], Awaitable[T]], *, longer_s: float = 0.0) -> T:
        """Return the reply, which may take so much longer. Raises Failed, at once in a rest."""
        now_s = self._clock.now()
        if now_s < self._again_s:
            raise Failed
        if self._failing:
            # One finds out whether it is back; the others are not to wait for that.
            self._again_s = now_s + REST_S
        try:
            reply = await _in_time(ask, self._timeout_s + longer_s)
        except ResponseError as exc:
            # It answers: it is full, or this value is of another kind. Others may well be found.
            self._failing, self._again_s = False, 0.0
            raise Failed from exc
        except Exception as exc:
            # Whatever it is: clients let out more than their own errors when a reply is garbled.
            self._failing, self._again_s = True, self._clock.now() + REST_S
            raise Failed from exc
        self._failing, self._again_s = False, 0.0
        return reply


async def _in_time(ask: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Return the reply. Raises TimeoutError where it takes longer, however busy the loop is."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        late = loop.call_later(timeout_s, lambda: limit.reschedule(loop.time() + GRACE_S))
        try:
            return await ask()
        finally:
            late.cancel()
