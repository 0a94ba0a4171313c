"""
The process above several workers: it keeps them alive, ends them together, and speaks for all.

The address is its own, and every worker answers on it. One that dies is started again; what it had
counted stays in the sums. When the supervisor itself is killed, the workers finish what they have.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from proxy.cli.line import Answer
from proxy.clock import Clock
from proxy.everyone import Reloaded, Silent, reloaded_by_all
from proxy.log import Log
from proxy.metrics import GAUGES
from proxy.numbers import Numbers, as_json, from_json, lasting, together

# The words of the line. A worker that asks for one of the first two is answered for all.
NUMBERS, RELOAD = "numbers", "reload"
GLANCE = "glance"  # the numbers without a look at what sets gauges
LISTENING = "listening"  # said by a worker that answers requests now

GLANCE_EVERY_S = 5.0  # what a killed worker counted since then is lost
ANSWER_S = 1.0
RELOAD_S = 30.0
STEADY_S = 10.0  # a worker that lived so long may be started again at once
FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 30.0


class Worker(Protocol):
    """One process that serves."""

    async def ask(self, word: str, *, timeout_s: float) -> Any:
        """Raises Silent."""
        ...

    def stop(self) -> None:
        """Send SIGTERM."""
        ...

    async def wait(self) -> int:
        """Return the exit code; minus the signal's number when a signal ended it."""
        ...


Spawn: TypeAlias = Callable[[int, Answer], Awaitable[Worker]]


class Supervisor:
    def __init__(self, workers: int, spawn: Spawn, clock: Clock, log: Log) -> None:
        self._count = workers
        self._spawn = spawn
        self._clock = clock
        self._log = log
        self._code = 0
        self._ending = asyncio.Event()
        self._workers: dict[int, Worker] = {}  # that are alive
        self._serving: set[int] = set()  # of these, those that answer requests
        self._served: set[int] = set()  # that ever did
        self._last: dict[int, Numbers] = {}  # of the living, as far as they told
        self._dead: Numbers = ()  # what those counted that are gone

    async def run(self) -> int:
        """Keep the workers until `end`, or until one cannot be started; return the exit code."""
        glances = asyncio.create_task(self._glance(), name="look at the workers")
        try:
            numbers = range(1, self._count + 1)
            await asyncio.gather(*(self._keep(number) for number in numbers))
        finally:
            glances.cancel()
            await asyncio.gather(glances, return_exceptions=True)
        return self._code

    def end(self, number: signal.Signals) -> None:
        """Have all workers end; another call is another signal to each, which is in a hurry."""
        if not self._ending.is_set() and number == signal.SIGINT:
            self._code = 128 + signal.SIGINT
        self._ending.set()
        for worker in self._workers.values():
            worker.stop()

    async def numbers(self) -> Numbers:
        """Return the numbers of all, the dead included."""
        await self._look(NUMBERS)
        return together([self._dead, *self._last.values()], GAUGES)

    async def reload(self) -> Reloaded:
        """Have the file read again by all; one that is only starting reads it anyway."""
        asked = [self._workers[number].ask(RELOAD, timeout_s=RELOAD_S) for number in self._serving]
        return reloaded_by_all([Reloaded(**each) for each in await asyncio.gather(*asked)])

    async def _glance(self) -> None:
        while True:
            await self._clock.sleep(GLANCE_EVERY_S)
            await self._look(GLANCE)

    async def _look(self, word: str) -> None:
        async def look(number: int) -> None:
            worker = self._workers[number]
            with suppress(Silent):  # what it told last is still true of what counts up
                told = from_json(await worker.ask(word, timeout_s=ANSWER_S))
                if self._workers.get(number) is worker:
                    self._last[number] = told

        await asyncio.gather(*(look(number) for number in self._serving))

    async def _keep(self, number: int) -> None:
        pause_s = 0.0
        while not self._ending.is_set():
            begun_s = self._clock.now()
            code = await self._live(number)
            if self._ending.is_set():
                return
            self._log.line("worker_ended", level="error", worker=number, code=code)
            if number not in self._served:
                self._code = 1  # it has said why, and would say it again
                self.end(signal.SIGTERM)
                return
            pause_s = pause_after(self._clock.now() - begun_s, pause_s)
            await self._pause(pause_s)

    async def _live(self, number: int) -> int:
        """Return the exit code of a worker that was started now and has ended."""
        worker = await self._spawn(number, lambda word: self._answer(number, word))
        self._workers[number] = worker
        if self._ending.is_set():
            worker.stop()
        code = await worker.wait()
        del self._workers[number]
        self._serving.discard(number)
        self._dead = lasting(together([self._dead, self._last.pop(number, ())], GAUGES))
        return code

    async def _answer(self, number: int, word: str) -> Any:
        if word == NUMBERS:
            return as_json(await self.numbers())
        if word == RELOAD:
            return await self.reload()
        if number in self._workers:
            self._serving.add(number)
            self._served.add(number)
        return None

    async def _pause(self, pause_s: float) -> None:
        waits = {
            asyncio.create_task(self._clock.sleep(pause_s)),
            asyncio.create_task(self._ending.wait()),
        }
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def pause_after(lived_s: float, last_s: float) -> float:
    """Return how long to wait before a worker is started again, that lived so long."""
    if lived_s >= STEADY_S:
        return 0.0
    return min(MOST_PAUSE_S, max(FIRST_PAUSE_S, 2 * last_s))
