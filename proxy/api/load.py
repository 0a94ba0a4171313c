"""
How many requests are served at once, and how they end when the server does.

Owns the only count of requests in flight. A request over the limit is told so at once: a queue
would only turn overload into latency for everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.api.conversation import Conversation
from proxy.errors import Overloaded, ShuttingDown

RETRY_AFTER_S = (1.0, 3.0)  # spread, so that the refused do not come back together


class Drain:
    """
    The requests in flight. `chance` returns a random number in [0, 1).

    At SIGTERM: `begin()`, so that load balancers look elsewhere; `wait_idle(grace)`; `abort()` for
    what is still open then.
    """

    def __init__(self, chance: Callable[[], float]) -> None:
        self.draining = False
        self._over = False
        self._chance = chance
        self._open: set[Conversation] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        return len(self._open)

    def enter(self, limit: int) -> Conversation:
        """
        Hold a place for one request until its block has ended.

        Raises Overloaded, or ShuttingDown after `abort()`.
        """
        if self._over:
            raise self._shutting_down()
        if len(self._open) >= limit:
            raise Overloaded(
                "the server has as many requests as it can serve", retry_after_s=self._pause_s()
            )
        conversation = Conversation(self._leave)
        if not self._open:
            self._idle.clear()
        self._open.add(conversation)
        return conversation

    def _leave(self, conversation: Conversation) -> None:
        self._open.discard(conversation)
        if not self._open:
            self._idle.set()

    def begin(self) -> None:
        """From here on readiness says no. Requests are served until the listener closes."""
        self.draining = True

    async def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight, at most `timeout_s`; say whether that is so."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> int:
        """
        End every request in flight and refuse new ones; return how many there were.

        A stream gets an error event, any other request its 503; both settle before they are gone,
        which `wait_idle` waits for.
        """
        self.draining = self._over = True
        late = tuple(self._open)
        for conversation in late:
            conversation.end(self._shutting_down())
        return len(late)

    def _shutting_down(self) -> ShuttingDown:
        return ShuttingDown("the server is shutting down", retry_after_s=self._pause_s())

    def _pause_s(self) -> float:
        least, most = RETRY_AFTER_S
        return least + (most - least) * self._chance()
