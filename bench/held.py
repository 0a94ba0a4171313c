"""
How many paced streams a server holds at once: more and more of them begin, until they stall.

A stream stalls when nothing of it comes for longer than STALL_S, where the provider writes every
20 ms. One stall may be the machine's: the same number has a second chance before it is the end.
What the provider and the client hold without anything in between is measured, too: the others
cannot show more than that.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import cast
from bench.cast import Server
from bench.client import Answer, Connection, connected
from bench.load import settled_cpu_s
from bench.payload import Kind, check

STALL_S = 0.1
STEP_S = 0.6
GROWTH = 1.15
MOST = 1500


@dataclass(frozen=True, slots=True)
class Climb:
    """Of one server: how many streams there are in the first step, and how often it is tried."""

    first: int
    turns: int


CLIMBS = {
    "direct": Climb(MOST, turns=1),
    "floor": Climb(192, turns=2),
    "mobius": Climb(96, turns=2),
    "litellm": Climb(1, turns=1),
}


@dataclass(frozen=True, slots=True)
class Held:
    """The most streams that one server held without a stall."""

    turn: int
    server: str
    streams: int
    ended: bool  # it stalled with more; else there were no more to be had


class Watcher(Connection):
    """Knows the longest silence within a stream since that was last looked at."""

    def __init__(self) -> None:
        super().__init__()
        self._silent_s = 0.0

    async def ask(self, request: bytes) -> Answer:
        self._answer = Answer()  # what is waited for from here on is no silence of the last one
        return await super().ask(request)

    def on_body(self, piece: bytes) -> None:
        super().on_body(piece)
        self._silent_s = max(self._silent_s, self._answer.gap_s)

    def silent_s(self) -> float:
        """Return it; one that has not ended counts, and as what it has become when it ends."""
        silent_s, self._silent_s = self._silent_s, 0.0
        self._answer.gap_s = 0.0
        if self._waiter is not None and not self._waiter.done() and self._answer.body:
            silent_s = max(silent_s, time.perf_counter() - self._answer.piece_s)
        return silent_s


async def measure_held(turn: int, server: Server) -> Held:
    """Return how many it held. Raises WrongAnswer when one of them was not whole."""
    async with connected(server.child.port, MOST, Watcher) as watchers:
        await settled_cpu_s(server.child)  # it accepts one connection a turn of its loop: all now
        try:
            first = CLIMBS[server.name].first
            held = await _climb(watchers, cast.request(Kind.PACED, server.model), first)
        except ExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
    return Held(turn, server.name, held, ended=held < MOST)


def is_tried(server: str, turn: int) -> bool:
    """Say whether a server is given streams in that turn."""
    return server in CLIMBS and turn <= CLIMBS[server].turns


async def _climb(watchers: Sequence[Watcher], request: bytes, first: int) -> int:
    begun = held = 0
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for streams in levels(first):
            for number in range(begun, streams):
                # Spread over the step, as people come.
                after_s = STEP_S * (number - begun) / (streams - begun)
                group.create_task(_ask_until(stop, watchers[number], request, after_s))
            begun = streams
            if await _stalls(watchers) and await _stalls(watchers):
                break
            held = streams
        stop.set()
    return held


def levels(first: int) -> Iterator[int]:
    """Yield how many streams there are in each step, MOST in the last."""
    streams = first
    while streams < MOST:
        yield streams
        streams = max(streams + 1, math.floor(streams * GROWTH))
    yield MOST


async def _stalls(watchers: Sequence[Watcher]) -> bool:
    await asyncio.sleep(STEP_S)
    return max(watcher.silent_s() for watcher in watchers) > STALL_S


async def _ask_until(stop: asyncio.Event, watcher: Watcher, request: bytes, after_s: float) -> None:
    await asyncio.sleep(after_s)
    while not stop.is_set():
        answer = await watcher.ask(request)
        check(Kind.PACED, answer.status, bytes(answer.body))
