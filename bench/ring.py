"""What a dead first provider costs: until its breaker opens, and from then on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bench.cast import RINGS, request, ring_model
from bench.child import Child
from bench.client import Connection, connected
from bench.payload import Kind, WrongAnswer, check

CLOSED_ASKS = 4  # the fifth failure in a row opens a breaker
OPENING_ASKS = 3
OPEN_ASKS = 25


@dataclass(frozen=True, slots=True)
class RingTimes:
    """Latencies of unary requests, one at a time, in the order they were asked."""

    alone_ms: list[float] = field(default_factory=list)  # the healthy target, without a ring
    first_ms: list[float] = field(default_factory=list)  # the first that ever asks a dead target
    closed_ms: list[float] = field(default_factory=list)  # the dead target is asked and refuses
    open_ms: list[float] = field(default_factory=list)  # it is passed over
    probe_ms: list[float] = field(default_factory=list)  # its breaker is open, and tries it again


async def measure_ring(child: Child) -> RingTimes:
    """Ask every ring, and the healthy target alone in between; each trail says what happened."""
    times = RingTimes()
    async with connected(child.port, 1, Connection) as (connection,):
        for _ in range(20):
            await _ask(connection, request(Kind.UNARY))
        for turn in range(CLOSED_ASKS):
            for number in range(RINGS):
                took_ms, asked = await _ask_both(connection, number, times)
                _expect(asked == 2, "the breaker is open too soon")
                (times.closed_ms if turn else times.first_ms).append(took_ms)
        for _ in range(OPENING_ASKS):
            for number in range(RINGS):
                await _ask(connection, request(Kind.UNARY, ring_model(number)))
        for _ in range(OPEN_ASKS):
            for number in range(RINGS):
                took_ms, asked = await _ask_both(connection, number, times)
                (times.probe_ms if asked == 2 else times.open_ms).append(took_ms)
    _expect(len(times.open_ms) > len(times.probe_ms), "the breakers did not open")
    return times


async def _ask_both(connection: Connection, number: int, times: RingTimes) -> tuple[float, int]:
    alone_ms, _ = await _ask(connection, request(Kind.UNARY))
    times.alone_ms.append(alone_ms)
    return await _ask(connection, request(Kind.UNARY, ring_model(number)))


async def _ask(connection: Connection, asking: bytes) -> tuple[float, int]:
    """Return the latency, and how many targets were asked."""
    start_s = time.perf_counter()
    answer = await connection.ask(asking)
    took_ms = (time.perf_counter() - start_s) * 1000
    check(Kind.UNARY, answer.status, bytes(answer.body))
    return took_ms, len(answer.headers[b"x-mobius-attempts"].split(b","))


def _expect(fact: bool, otherwise: str) -> None:
    if not fact:
        raise WrongAnswer(f"ring: {otherwise}")
