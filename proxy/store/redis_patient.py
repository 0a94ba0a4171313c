"""A Redis that may be gone: asked for a tenth of a second at most, and then not for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from proxy.clock import Clock

TIMEOUT_S = 0.1
GRACE_S = 0.05  # in which a busy event loop may find the reply that is there
REST_S = 1.0

T = TypeVar("T")


class Failed(Exception):
    """The Redis did not do it, or nobody knows."""


class Patience:
    """Asks, and remembers for how long it is of no use to ask."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._again_s = 0.0  # not asked before this moment

    async def ask(self, ask: Callable[[], Awaitable[T]], *, longer_s: float = 0.0) -> T:
        """Return the reply, which may take so much longer. Raises Failed, at once in a rest."""
        if self._clock.now() < self._again_s:
            raise Failed
        loop = asyncio.get_running_loop()
        timeout_s = TIMEOUT_S + longer_s
        try:
            async with asyncio.timeout(None) as limit:
                late = loop.call_later(timeout_s, lambda: limit.reschedule(loop.time() + GRACE_S))
                try:
                    return await ask()
                finally:
                    late.cancel()
        except (RedisError, OSError, TimeoutError) as exc:
            self._again_s = self._clock.now() + REST_S
            raise Failed from exc
