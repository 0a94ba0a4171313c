"""Histograms of seconds and counters for the path of every request, on Prometheus' registry."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import Metric as Page
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

# Seconds, half a millisecond to a quarter of an hour: our own time and a model's in one scale.
BUCKETS_S = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it says, and the labels of its series."""

    name: str
    text: str
    labels: tuple[str, ...] = ()


class Spans(Collector):
    """
    A histogram of seconds that is cheap to add to, several at a time: every word of every stream
    is one. For the event loop alone, so it needs no lock. A bucket holds what is no longer than its
    bound.
    """

    def __init__(self, family: Family) -> None:
        self._family = family
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def add(self, series: tuple[str, ...], span_s: float, count: int = 1) -> None:
        """Observe `count` spans of the same length."""
        held = self._series.get(series)
        if held is None:
            held = self._series[series] = ([0] * (len(BUCKETS_S) + 1), [0.0])
        counts, total_s = held
        counts[bisect_left(BUCKETS_S, span_s)] += count
        total_s[0] += span_s * count

    def collect(self) -> Iterator[Page]:
        family = HistogramMetricFamily(
            self._family.name, self._family.text, labels=self._family.labels
        )
        bounds = [*map(floatToGoString, BUCKETS_S), "+Inf"]
        for series, (counts, total_s) in self._series.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            family.add_metric(series, buckets, total_s[0])
        yield family


class Counts(Collector):
    """A counter that is cheap to add to, for the event loop alone likewise."""

    def __init__(self, family: Family, wall: Callable[[], float]) -> None:
        self._family = family
        self._wall = wall
        self._series: dict[tuple[str, ...], float] = {}
        self._since: dict[tuple[str, ...], float] = {}

    def add(self, series: tuple[str, ...], amount: float = 1) -> None:
        """Count so much more."""
        held = self._series.get(series)
        if held is None:
            self._since[series] = self._wall()
            held = 0.0
        self._series[series] = held + amount

    def collect(self) -> Iterator[Page]:
        family = CounterMetricFamily(
            self._family.name, self._family.text, labels=self._family.labels
        )
        for series, amount in self._series.items():
            family.add_metric(series, amount, created=self._since[series])
        yield family
