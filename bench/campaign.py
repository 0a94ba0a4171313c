"""
The order in which everything is measured. Read this file first.

The servers of a round are measured one right after the other, in turning order, so that whatever
the machine does meanwhile hits all of them; a ratio is only ever taken within a round.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import cast, held, peer
from bench.cache import measure_cache
from bench.cast import Server, Start
from bench.child import Child
from bench.held import Held, measure_held
from bench.load import LEAST_CPU_S, Case, Sample, measure
from bench.loading import LoadingStart, measure_loading
from bench.memory import MemorySample, measure_memory
from bench.payload import Kind, WrongAnswer
from bench.peer import Peer
from bench.progress import Progress
from bench.quota import QuotaSample, measure_quota
from bench.ring import RingTimes, measure_ring

CASES = (
    Case(Kind.UNARY, 1),
    Case(Kind.UNARY, 16),
    Case(Kind.UNARY, 64),
    Case(Kind.STREAM, 1),
    Case(Kind.STREAM, 16),
    Case(Kind.PACED, 64),
)
SERVERS = (cast.floor, cast.mobius, cast.translated)
MEMORY_SERVERS = (cast.mobius,)
PARTS = ("unary", "stream", "paced", "held", "memory", "ring", "cache", "quota", "start")
EXTRA_STARTS = 2
WARM_UP = 16  # connections; more than that only the floor and Mobius are asked on
LEAST_ROUNDS = 3
HELD_S = 35.0  # what is left of the time for the streams that are held, which come last


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    rounds: int
    seconds: float
    within_s: float
    only: frozenset[str]
    peer: Peer

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(case for case in CASES if case.kind in self.only)

    @property
    def loads(self) -> bool:
        """Whether the servers are needed all at once."""
        return bool(self.cases) or "held" in self.only


@dataclass(slots=True)
class Results:
    """Everything that was measured, raw."""

    samples: list[Sample] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    loading: list[LoadingStart] = field(default_factory=list)
    memory_mib: dict[str, float] = field(default_factory=dict)  # after the load
    held: list[Held] = field(default_factory=list)
    streams: list[MemorySample] = field(default_factory=list)
    ring: RingTimes | None = None
    cache: list[Sample] = field(default_factory=list)
    quota: list[QuotaSample] = field(default_factory=list)
    rounds: int = 0
    took_s: float = 0.0


class Campaign:
    """One run. `results` is complete once `run` has returned."""

    def __init__(self, options: Options, folder: Path, progress: Progress) -> None:
        self._options, self._folder, self._progress = options, folder, progress
        self._end_s = time.monotonic() + options.within_s
        self.results = Results()

    async def run(self) -> Results:
        """Return what was measured. Raises WrongAnswer, ConnectionError or NotServing."""
        start_s = time.monotonic()
        with cast.provider(self._folder) as origin:
            for name, part in self._parts().items():
                if name in self._options.only:
                    await part(origin)
            if self._options.loads:
                await self._measure_load(origin)
        self.results.took_s = time.monotonic() - start_s
        return self.results

    def _parts(self) -> Mapping[str, Callable[[Child], Awaitable[None]]]:
        """Return what takes a time known before; the rounds of the load have what is left."""
        return {
            "start": self._measure_starts,
            "memory": self._measure_memory,
            "ring": self._measure_ring,
            "cache": self._measure_cache,
            "quota": self._measure_quota,
        }

    async def _measure_starts(self, origin: Child) -> None:
        for _ in range(EXTRA_STARTS):
            for server in SERVERS:
                self._progress.step("start", server.__name__)
                with server(origin, self._folder) as (_child, start):
                    self.results.starts.append(start)
            self._progress.step("start", "mixed")
            self.results.loading.append(measure_loading(origin, self._folder))

    async def _measure_memory(self, origin: Child) -> None:
        for server in MEMORY_SERVERS:
            self._progress.step("memory", server.__name__)
            self.results.streams.append(await measure_memory(server(origin, self._folder)))

    async def _measure_ring(self, origin: Child) -> None:
        self._progress.step("ring")
        with cast.ring(origin, self._folder) as child:
            self.results.ring = await measure_ring(child)

    async def _measure_cache(self, origin: Child) -> None:
        self._progress.step("cache")
        rounds, seconds = self._few_rounds(), self._options.seconds
        self.results.cache = await measure_cache(origin, rounds, seconds, self._folder)

    async def _measure_quota(self, _origin: Child) -> None:
        self._progress.step("quota")
        rounds, seconds = self._few_rounds(), self._options.seconds
        self.results.quota = await measure_quota(rounds, seconds, self._folder)

    def _few_rounds(self) -> int:
        return min(self._options.rounds, LEAST_ROUNDS)

    async def _measure_load(self, origin: Child) -> None:
        with ExitStack() as running:
            servers = [Server(origin.name, origin)]
            self._progress.step("start")
            for server in SERVERS:
                child, start = running.enter_context(server(origin, self._folder))
                servers.append(Server(child.name, child))
                self.results.starts.append(start)
            if self._options.peer.command is not None:
                self._progress.step("start", peer.NAME)
                serving = peer.serving(self._options.peer.command, origin, self._folder)
                child, start = running.enter_context(serving)
                servers += peer.servers(child)
                self.results.starts.append(start)
            rig = Rig(self._options, servers, self._progress)
            await rig.warm_up()
            await self._measure_rounds(rig)
            self.results.memory_mib = {each.child.name: each.child.memory_mib() for each in servers}
            if "held" in self._options.only:
                self.results.held = await rig.measure_held()

    async def _measure_rounds(self, rig: Rig) -> None:
        """Measure as many rounds as were asked for and as there is time for."""
        longest_s = 0.0
        end_s = self._end_s - (HELD_S if "held" in self._options.only else 0.0)
        for number in range(1, self._options.rounds + 1 if self._options.cases else 1):
            start_s = time.monotonic()
            if number > LEAST_ROUNDS and start_s + longest_s > end_s:
                break
            self.results.samples += await rig.measure_round(number)
            self.results.rounds = number
            longest_s = max(longest_s, time.monotonic() - start_s)


class Rig:
    """The servers under load, in the order of the tables."""

    def __init__(self, options: Options, servers: Sequence[Server], progress: Progress) -> None:
        self._options, self._servers, self._progress = options, servers, progress
        self._origin = servers[0].child

    async def warm_up(self) -> None:
        """Every server has answered every kind of request for a while."""
        for kind in sorted({case.kind for case in self._options.cases}):
            case = Case(kind, WARM_UP)
            for server in self._servers:
                if is_asked(server.name, case):
                    self._progress.step("warm-up", f"{kind}, {server.name}")
                    await self._measure(0, case, server)

    async def measure_held(self) -> list[Held]:
        found = []
        for turn in range(1, max(climb.turns for climb in held.CLIMBS.values()) + 1):
            for server in self._servers:
                if held.is_tried(server.name, turn):
                    self._progress.step("held", server.name)
                    found.append(await measure_held(turn, server))
        return found

    async def measure_round(self, number: int) -> list[Sample]:
        samples = []
        for case in self._options.cases:
            asked = [server for server in self._servers if is_asked(server.name, case)]
            for server in asked[::-1] if number % 2 else asked:
                what = f"{case.kind} on {case.concurrency}, {server.name}"
                self._progress.step(f"round {number} of {self._options.rounds}", what)
                samples.append(await self._measure(number, case, server))
        return samples

    async def _measure(self, number: int, case: Case, server: Server) -> Sample:
        """Measure one server. Raises WrongAnswer unless the provider served just as many."""
        served = await cast.served(self._origin, case.kind)
        sample = await measure(
            number,
            case,
            server,
            cast.request(case.kind, server.model),
            seconds=self._options.seconds,
            least_cpu_s=0.0 if server.child is self._origin else LEAST_CPU_S,
        )
        served = await cast.served(self._origin, case.kind) - served
        if served != len(sample.latencies_ms):
            raise WrongAnswer(f"{server.name}: {len(sample.latencies_ms)} answers, {served} served")
        return sample


def steps(options: Options) -> int:
    """Return how many steps a campaign reports."""
    steps_of = {
        "start": (len(SERVERS) + 1) * EXTRA_STARTS,
        "memory": len(MEMORY_SERVERS),
        **dict.fromkeys(("ring", "cache", "quota"), 1),
    }
    names = ["direct", *(server.__name__ for server in SERVERS)]
    if options.peer.command is not None:
        names += peer.OPPOSITE
    if "held" in options.only:
        steps_of["held"] = sum(held.CLIMBS[name].turns for name in names if name in held.CLIMBS)
    asked = [case for case in options.cases for name in names if is_asked(name, case)]
    warm_up = {
        (case.kind, name)
        for case in asked
        for name in names
        if is_asked(name, Case(case.kind, WARM_UP))
    }
    starts = (1 if options.peer.command is None else 2) * options.loads
    return (
        starts
        + len(warm_up)
        + len(asked) * options.rounds
        + sum(steps_of.get(part, 0) for part in options.only)
    )


def is_asked(server: str, case: Case) -> bool:
    """Say whether a server is measured in that case."""
    if case.kind is Kind.PACED:
        # LiteLLM holds a few such streams: many would only wait for one another.
        return server in {"floor", "mobius", "translated"}
    return server in {"floor", "mobius"} or case.concurrency <= WARM_UP
