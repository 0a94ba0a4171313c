"""
One request, and who may end it before its answer is complete: its client by leaving, the server
by shutting down.

Nothing here is on the path of the bytes. The block runs in the request's own task, so that what it
holds is closed by whoever opened it; what may end it runs beside it, and cancels it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeAlias

from starlette.types import Receive, Scope

Work: TypeAlias = Callable[[], Awaitable[None]]

# What runs beside a request begins after this: an answer that is at hand is sent before.
SOON_S = 0.01
# The server's extension of the ASGI scope: `watch(work)` has `work` done when the client leaves,
# and returns what ends that. Without it a task has to wait for the message that says so.
DEPARTURE = "mobius.departure"


class ClientLeft(Exception):
    """Nobody is listening any more: there is nothing to answer and nobody to blame."""


class Conversation:
    """
    A block that `end(error)` leaves with that error, whatever it was waiting for.

    Works as `asyncio.timeout` does: the block is cancelled, and on the way out the cancellation
    becomes the error, unless somebody else has cancelled the task as well.
    """

    def __init__(self, left: Callable[[Conversation], object] = lambda conversation: None) -> None:
        """`left` is told when the block has ended."""
        self._left = left
        self._task: asyncio.Task[Any] | None = None
        self._cancelled_before = 0
        # The one that is to end the block. It is taken out to be raised: kept here, or named on
        # its way, it would be garbage in a circle with the frames that it comes through.
        self._errors: list[Exception] = []
        self._waiting: list[asyncio.TimerHandle] = []
        self._forget: Callable[[], None] | None = None
        self._beside: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancelled_before = self._task.cancelling() if self._task else 0
        return self

    def beside(self, work: Work, after_s: float = SOON_S) -> None:
        """Run `work` from then on, as long as the block lasts; an error of its ends the block."""
        loop = asyncio.get_running_loop()
        self._waiting.append(loop.call_later(after_s, self._start, work))

    def heed(self, scope: Scope, receive: Receive, finished: Callable[[], bool]) -> None:
        """End the block when the client leaves, unless the answer is `finished` by then."""
        watch = scope.get("extensions", {}).get(DEPARTURE, {}).get("watch")
        if watch is None:
            self.beside(lambda: _until_departure(receive, finished))
            return
        self._forget = watch(lambda: None if finished() else self.end(ClientLeft()))

    def _start(self, work: Work) -> None:
        self._beside.append(asyncio.create_task(self._run(work)))

    def end(self, error: Exception) -> None:
        """End the block with `error`. The first to end it is heard, later ones are not."""
        if self._task is not None and not self._errors:
            self._errors.append(error)
            self._task.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._errors or self._forget is not None or self._waiting or self._beside:
                await self._unwind(exc)
        finally:
            self._task = None
            self._left(self)

    async def _unwind(self, exc: BaseException | None) -> None:
        task, self._task = self._task, None
        # What makes it be forgotten knows this conversation: kept, it would be garbage in a circle.
        forget, self._forget = self._forget, None
        if forget is not None:
            forget()
        for each in self._waiting:
            each.cancel()
        for work in self._beside:
            work.cancel()
        if self._beside:
            await asyncio.gather(*self._beside, return_exceptions=True)
        if not self._errors or task is None:
            return
        alone = task.uncancel() <= self._cancelled_before
        if alone and isinstance(exc, asyncio.CancelledError):
            raise self._errors.pop() from exc

    async def _run(self, work: Work) -> None:
        try:
            await work()
        except Exception as exc:  # whatever it is, the block is where it is handled
            self.end(exc)


async def _until_departure(receive: Receive, finished: Callable[[], bool]) -> None:
    """Return when the client has left after the whole answer. Raises ClientLeft when before."""
    while (await receive())["type"] != "http.disconnect":
        pass  # the body of the request has been read before
    if not finished():
        raise ClientLeft
