"""
The order in which everything is measured. Read this file first.

The servers of a round are measured one right after the other, in turning order, so that whatever
the machine does meanwhile hits all of them; a ratio is only ever taken within a round.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import cast
from bench.cache import measure_cache
from bench.cast import Start
from bench.child import Child
from bench.load import LEAST_CPU_S, Case, Sample, measure
from bench.payload import Kind, WrongAnswer
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
PARTS = ("unary", "stream", "paced", "ring", "cache", "quota", "start")
EXTRA_STARTS = 2
WARM_UP = 16  # connections
LEAST_ROUNDS = 3
RING_S = 15.0  # what is left of the time for the ring, which comes last


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    rounds: int
    seconds: float
    within_s: float
    only: frozenset[str]

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(case for case in CASES if case.kind in self.only)


@dataclass(slots=True)
class Results:
    """Everything that was measured, raw."""

    samples: list[Sample] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    memory_mib: dict[str, float] = field(default_factory=dict)  # after the load
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
        only = self._options.only
        with cast.provider(self._folder) as origin:
            if "start" in only:
                self._measure_starts(origin)
            if self._options.cases:
                await self._measure_load(origin)
            if "ring" in only:
                self._progress.step("ring")
                with cast.ring(origin, self._folder) as child:
                    self.results.ring = await measure_ring(child)
            if "cache" in only:
                self._progress.step("cache")
                rounds, seconds = self._options.rounds, self._options.seconds
                self.results.cache = await measure_cache(origin, rounds, seconds, self._folder)
        if "quota" in only:
            self._progress.step("quota")
            rounds, seconds = self._options.rounds, self._options.seconds
            self.results.quota = await measure_quota(rounds, seconds, self._folder)
        self.results.took_s = time.monotonic() - start_s
        return self.results

    def _measure_starts(self, origin: Child) -> None:
        for _ in range(EXTRA_STARTS):
            for server in SERVERS:
                self._progress.step("start", server.__name__)
                with server(origin, self._folder) as (_child, start):
                    self.results.starts.append(start)

    async def _measure_load(self, origin: Child) -> None:
        with ExitStack() as running:
            children = {origin.name: origin}
            self._progress.step("start")
            for server in SERVERS:
                child, start = running.enter_context(server(origin, self._folder))
                children[child.name] = child
                self.results.starts.append(start)
            rig = Rig(self._options, children, self._progress)
            await rig.warm_up()
            await self._measure_rounds(rig)
            self.results.memory_mib = {name: each.memory_mib() for name, each in children.items()}

    async def _measure_rounds(self, rig: Rig) -> None:
        """Measure as many rounds as were asked for and as there is time for."""
        longest_s = 0.0
        end_s = self._end_s - (RING_S if "ring" in self._options.only else 0.0)
        for number in range(1, self._options.rounds + 1):
            start_s = time.monotonic()
            if number > LEAST_ROUNDS and start_s + longest_s > end_s:
                break
            self.results.samples += await rig.measure_round(number)
            self.results.rounds = number
            longest_s = max(longest_s, time.monotonic() - start_s)


class Rig:
    """The servers under load."""

    def __init__(self, options: Options, children: dict[str, Child], progress: Progress) -> None:
        self._options, self._children, self._progress = options, children, progress

    async def warm_up(self) -> None:
        """Every server has answered every kind of request for a while."""
        for kind in sorted({case.kind for case in self._options.cases}):
            for name in _order(Case(kind, WARM_UP), 0):
                self._progress.step("warm-up", f"{kind}, {name}")
                await self._measure(0, Case(kind, WARM_UP), name)

    async def measure_round(self, number: int) -> list[Sample]:
        samples = []
        for case in self._options.cases:
            for name in _order(case, number):
                what = f"{case.kind} on {case.concurrency}, {name}"
                self._progress.step(f"round {number} of {self._options.rounds}", what)
                samples.append(await self._measure(number, case, name))
        return samples

    async def _measure(self, number: int, case: Case, name: str) -> Sample:
        """Measure one server. Raises WrongAnswer unless the provider served just as many."""
        served = await cast.served(self._children["direct"], case.kind)
        sample = await measure(
            number,
            case,
            self._children[name],
            cast.request(case.kind),
            seconds=self._options.seconds,
            least_cpu_s=0.0 if name == "direct" else LEAST_CPU_S,
        )
        served = await cast.served(self._children["direct"], case.kind) - served
        if served != len(sample.latencies_ms):
            raise WrongAnswer(f"{name}: {len(sample.latencies_ms)} answers of {served} served")
        return sample


def steps(options: Options) -> int:
    """Return how many steps a campaign reports."""
    starts = len(SERVERS) * EXTRA_STARTS if "start" in options.only else 0
    kinds = len({case.kind for case in options.cases})
    load = sum(len(_order(case, 0)) for case in options.cases) * options.rounds
    return starts + bool(kinds) + 3 * kinds + load + len({"ring", "cache", "quota"} & options.only)


def _order(case: Case, number: int) -> list[str]:
    names = ["floor", "mobius"]
    if case.concurrency <= WARM_UP:
        names = ["direct", *names]
        if case.kind is not Kind.PACED:
            names.append("translated")
    return names[::-1] if number % 2 else names
