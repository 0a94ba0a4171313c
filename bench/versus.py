"""LiteLLM's proxy over Mobius: what one costs as a multiple of the other, round by round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.load import Case, Sample, percentile
from bench.peer import OPPOSITE
from bench.table import spread, table


@dataclass(frozen=True, slots=True)
class Versus:
    """Both in one case. The samples of a round stand at the same place."""

    case: Case
    server: str
    own: tuple[Sample, ...]
    opposite: tuple[Sample, ...]

    @property
    def cpu(self) -> list[float]:
        """CPU time per request over Mobius', in each round."""
        return [own.cpu_ms / other.cpu_ms for own, other in self._pairs()]

    @property
    def p50(self) -> list[float]:
        """The median latency over Mobius', in each round."""
        return [
            percentile(own.latencies_ms, 0.5) / percentile(other.latencies_ms, 0.5)
            for own, other in self._pairs()
        ]

    def _pairs(self) -> Iterable[tuple[Sample, Sample]]:
        return zip(self.own, self.opposite, strict=True)


def compared(samples: Sequence[Sample]) -> list[Versus]:
    """Return every case that LiteLLM's proxy was measured in, in the order of the first round."""
    by: dict[tuple[Case, str], dict[int, Sample]] = {}
    for sample in samples:
        by.setdefault((sample.case, sample.server), {})[sample.round] = sample
    found = []
    for (case, server), own in by.items():
        if server in OPPOSITE:
            other = by[case, OPPOSITE[server]]
            pairs = [(own[number], other[number]) for number in sorted(own)]
            found.append(Versus(case, server, *zip(*pairs, strict=True)))
    return sorted(found, key=lambda each: list(OPPOSITE).index(each.server))


def show(found: Sequence[Versus]) -> str:
    """Return the table that a person reads."""
    head = ("path", "conns", "server", "over", "CPU ms/request", "its CPU ms", "CPU", "p50")
    rows = [
        (
            each.case.kind.value,
            str(each.case.concurrency),
            each.server,
            OPPOSITE[each.server],
            f"{median(sample.cpu_ms for sample in each.own):.2f}",
            f"{median(sample.cpu_ms for sample in each.opposite):.3f}",
            spread(each.cpu, 1) + " x",
            spread(each.p50, 1) + " x",
        )
        for each in found
    ]
    return table("LiteLLM's proxy over Mobius: the same asked of both in every round", head, rows)
