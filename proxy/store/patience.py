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
    """
    Asks, until that fails; then nobody waits any more until a probe has found the place back.

    `probe` is the least that can be asked of it. It is sent when somebody would have asked, at most
    once a second.
    """

    def __init__(
        self, clock: Clock, probe: Callable[[], Awaitable[object]], timeout_s: float = TIMEOUT_S
    ) -> None:
        self._clock = clock
        self._probe = probe
        self._timeout_s = timeout_s
        self._again_s = 0.0  # not probed before this moment
        self._failing = False
        self._probing: asyncio.Task[None] | None = None

    async def ask(self, ask: Callable[[], Awaitable[T]], *, longer_s: float = 0.0) -> T:
        """Return the reply, which may take so much longer. Raises Failed; at once if it is gone."""
        if self._failing:
            if self._probing is None and self._clock.now() >= self._again_s:
                self._probing = asyncio.create_task(self._find_out(), name="find out what is back")
            raise Failed
        try:
            return await _in_time(ask, self._timeout_s + longer_s)
        except ResponseError as exc:
            # It answers: it is full, or this value is of another kind. Others may well be found.
            raise Failed from exc
        except Exception as exc:
            # Whatever it is: clients let out more than their own errors when a reply is garbled.
            self._fails()
            raise Failed from exc

    async def _find_out(self) -> None:
        try:
            await _in_time(self._probe, self._timeout_s)
        except ResponseError:
            self._failing = False
        except Exception:
            self._fails()
        else:
            self._failing = False
        finally:
            self._probing = None

    def _fails(self) -> None:
        self._failing, self._again_s = True, self._clock.now() + REST_S


async def _in_time(ask: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """Return the reply. Raises TimeoutError where it takes longer, however busy the loop is."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:
        late = loop.call_later(timeout_s, lambda: limit.reschedule(loop.time() + GRACE_S))
        try:
            return await ask()
        finally:
            late.cancel()
