"""One measurement: the same question, over and over, on so many connections at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.cast import Server
from bench.child import Child
from bench.client import Connection, connected
from bench.payload import Kind, check

# CPU times come in ticks of 10 ms: half a second of it is known to within 2 %.
LEAST_CPU_S = 0.5
STRETCH = 7  # a measurement may take so many times longer than asked to reach that
HANGS_S = 120.0


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and on how many connections."""

    kind: Kind
    concurrency: int


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one case in one round. `cpu_s` is the server's."""

    round: int
    case: Case
    server: str
    wall_s: float
    cpu_s: float
    latencies_ms: tuple[float, ...]  # in ascending order, one for each answer
    gaps_ms: tuple[float, ...]  # likewise: the longest silence within each answer

    @property
    def cpu_ms(self) -> float:
        """CPU time per answer."""
        return self.cpu_s * 1000 / len(self.latencies_ms)

    @property
    def per_s(self) -> float:
        return len(self.latencies_ms) / self.wall_s

    @property
    def busy(self) -> float:
        """The share of one core that the server used."""
        return self.cpu_s / self.wall_s


async def measure(
    number: int, case: Case, server: Server, request: bytes, *, seconds: float, least_cpu_s: float
) -> Sample:
    """
    Ask for at least `seconds`, and until the server has used `least_cpu_s` of CPU time.

    Every answer is checked. What the server does after its last answer is still counted.
    """
    child = server.child
    async with connected(child.port, case.concurrency, Connection) as connections:
        before_s = await settled_cpu_s(child)
        clients = [_Client(connection, case.kind, request) for connection in connections]
        start_s = time.monotonic()
        async with asyncio.timeout(HANGS_S):
            await _ask(clients, child, before_s + least_cpu_s, seconds)
        wall_s = time.monotonic() - start_s
        cpu_s = await settled_cpu_s(child) - before_s
    latencies_ms = sorted(each for client in clients for each in client.latencies_ms)
    gaps_ms = sorted(each for client in clients for each in client.gaps_ms)
    return Sample(number, case, server.name, wall_s, cpu_s, tuple(latencies_ms), tuple(gaps_ms))


class _Client:
    """Whoever is on one connection: asks the next question when the last one is answered."""

    def __init__(self, connection: Connection, kind: Kind, request: bytes) -> None:
        self._connection = connection
        self._kind = kind
        self._request = request
        self.latencies_ms: list[float] = []
        self.gaps_ms: list[float] = []

    async def ask_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            start_s = time.perf_counter()
            answer = await self._connection.ask(self._request)
            self.latencies_ms.append((time.perf_counter() - start_s) * 1000)
            self.gaps_ms.append(answer.gap_s * 1000)
            check(self._kind, answer.status, bytes(answer.body))


async def _ask(
    clients: Sequence[_Client], child: Child, until_cpu_s: float, seconds: float
) -> None:
    stop = asyncio.Event()
    end_s = time.monotonic() + seconds * STRETCH
    try:
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.ask_until(stop))
            await asyncio.sleep(seconds)
            await _used(child, until_cpu_s, end_s)
            stop.set()
    except ExceptionGroup as group_error:
        raise group_error.exceptions[0] from None


async def _used(child: Child, until_cpu_s: float, end_s: float) -> None:
    # Nobody tells when a process has used so much: looking is all there is.
    while child.cpu_s() < until_cpu_s and time.monotonic() < end_s:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


async def settled_cpu_s(child: Child) -> float:
    """Return its CPU time once it has come to rest, or after a second."""
    last_s = child.cpu_s()
    for _ in range(20):
        await asyncio.sleep(0.05)
        now_s = child.cpu_s()
        if now_s == last_s:
            break
        last_s = now_s
    return last_s


def percentile(ascending: Sequence[float], share: float) -> float:
    """Return the value that `share` of the sorted values do not exceed (the nearest rank)."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
