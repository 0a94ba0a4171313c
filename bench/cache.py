"""
What a hit costs: the CPU of the whole server for an answer that it keeps, over that of the floor.

The same question is asked again and again. Of the floor, the provider answers every one; of a
server with a cache, the first, and its count must not rise after that. What is kept on a Redis is
kept on a real server on this machine, whose own CPU is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import cast
from bench.child import Child
from bench.load import LEAST_CPU_S, Case, Sample, measure
from bench.payload import Kind, WrongAnswer
from bench.redis_server import redis_server

CASES = tuple(Case(kind, at_once) for kind in (Kind.UNARY, Kind.STREAM) for at_once in (1, 16))
SERVERS = ("floor", "local", "redis")
WARM_UP = 16  # connections


@dataclass(frozen=True, slots=True)
class Rig:
    """The servers, by name, and the provider behind all of them."""

    origin: Child
    children: Mapping[str, Child]

    async def round(self, number: int, seconds: float) -> list[Sample]:
        """Measure every case on every server, in turning order."""
        names = sorted(self.children, key=SERVERS.index, reverse=bool(number % 2))
        samples = []
        for case in CASES:
            for name in names:
                samples.append(await self._measure(number, case, name, seconds))
        return samples

    async def warm_up(self, seconds: float) -> None:
        """Every server has answered both kinds of request for a while, and keeps the answer."""
        for kind in (Kind.UNARY, Kind.STREAM):
            for child in self.children.values():
                case, asking = Case(kind, WARM_UP), _asking(kind)
                await measure(
                    0,
                    case,
                    cast.Server(child.name, child),
                    asking,
                    seconds=seconds,
                    least_cpu_s=0.0,
                )

    async def _measure(self, number: int, case: Case, name: str, seconds: float) -> Sample:
        before = await cast.served(self.origin, case.kind)
        asking, server = _asking(case.kind), cast.Server(name, self.children[name])
        sample = await measure(
            number, case, server, asking, seconds=seconds, least_cpu_s=LEAST_CPU_S
        )
        served = await cast.served(self.origin, case.kind) - before
        expected = len(sample.latencies_ms) if name == "floor" else 0
        if served != expected:
            raise WrongAnswer(f"{name}: the provider served {served} answers, not {expected}")
        return sample


def _asking(kind: Kind) -> bytes:
    return cast.request(kind, cast.kept_model(kind))


async def measure_cache(origin: Child, rounds: int, seconds: float, folder: Path) -> list[Sample]:
    """Return the samples of all rounds. Raises WrongAnswer, ConnectionError or NotServing."""
    samples: list[Sample] = []
    with _rig(origin, folder) as rig:
        await rig.warm_up(seconds / 2)
        for number in range(1, rounds + 1):
            # Half as long: what counts is the CPU time that a measurement waits for in any case.
            samples += await rig.round(number, seconds / 2)
    return samples


@contextmanager
def _rig(origin: Child, folder: Path) -> Iterator[Rig]:
    with ExitStack() as running:
        floor, _ = running.enter_context(cast.floor(origin, folder))
        children = {"floor": floor}
        children["local"] = running.enter_context(cast.keeping("local", None, origin, folder))
        url = running.enter_context(redis_server(folder))
        if url is not None:
            children["redis"] = running.enter_context(cast.keeping("redis", url, origin, folder))
        yield Rig(origin, children)
