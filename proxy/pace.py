"""How soon a target answers: what it took lately, who waits, and whether it hangs. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, exp2, inf

HALF_LIFE_S = 30.0  # of what is believed of a target that nobody asks
WEIGHT = 0.2  # of the newest time in a decaying average
# An answer is overdue after so many times what it took lately, and so many seconds. One that is not
# streamed takes as long as the model has to say, which varies more.
OVERDUE_STREAM, OVERDUE_WHOLE = (3.0, 1.0), (5.0, 10.0)
TRIED_S = 10.0  # after so long without another call a target that hangs is tried again
# Percentiles are of the last times, as many and as young; of fewer nobody tells any.
MOST_TIMES, LEAST_TIMES, TIMES_KEPT_S = 200, 20, 600.0
# A first token is given up after so many times what nearly all of the last ones took, in steps, so
# that what follows from it is the same for many calls.
PATIENCE, NEARLY_ALL, LEAST_PATIENCE_S, STEP_S = 3.0, 0.99, 2.0, 0.5


class Lately:
    """The last times of one target, of which a percentile costs nothing."""

    __slots__ = ("_came", "_sorted")

    def __init__(self) -> None:
        self._came: deque[tuple[float, float]] = deque()  # each with its moment, in their order
        self._sorted: list[float] = []

    def add(self, took_s: float, now_s: float) -> None:
        self._came.append((now_s, took_s))
        insort(self._sorted, took_s)
        self._forget(now_s)

    def percentile_s(self, share: float, now_s: float) -> float | None:
        """Return what so large a share of them took at most; None where too few are known."""
        self._forget(now_s)
        known = len(self._sorted)
        return self._sorted[ceil(share * known) - 1] if known >= LEAST_TIMES else None

    def _forget(self, now_s: float) -> None:
        came = self._came
        while came and (len(came) > MOST_TIMES or came[0][0] <= now_s - TIMES_KEPT_S):
            _, took_s = came.popleft()
            del self._sorted[bisect_left(self._sorted, took_s)]


@dataclass(slots=True)
class Pace:
    """The times of the calls of one target. A stream is answered with its first content."""

    latency_s: float | None = None  # decaying average of the time to first content
    awaited_first_s: float | None = None  # likewise of streams alone, and of those given up
    awaited_whole_s: float | None = None  # likewise of whole answers
    told_s: float = -inf  # the moment when a call last said how the target is
    calls: int = 0  # ever
    begun_s: float = -inf  # the moment when the last of them began
    under_way: int = 0
    unanswered: int = 0  # of those under way
    # When these began, by the number of the call, but for those that a later call has overtaken:
    # the target is not to blame for one that got stuck.
    streams: dict[int, float] = field(default_factory=dict)
    wholes: dict[int, float] = field(default_factory=dict)
    lately: tuple[Lately, Lately] | None = None  # of streams and of whole answers, once asked for

    def expected_s(self, now_s: float) -> float | None:
        """
        Return what a first token is expected to take; None when nobody has an idea.

        What was known of a target that nobody asks is believed less and less, so that one that was
        slow is tried again; by one request, the others go by what was known until it has its
        answer. Where a first token is overdue, it is expected to take as long as it already has.
        """
        streams = self.awaited_first_s
        known_s = self.awaited_whole_s if streams is None else streams
        if known_s is None:
            return None
        if not self.unanswered:
            return known_s * exp2(-max(0.0, now_s - self.told_s) / HALF_LIFE_S)
        ages_s = _overdue_s(self.streams, known_s, now_s, OVERDUE_STREAM, most=1)
        return ages_s[0] if ages_s else known_s

    def hung_s(self, most: int, now_s: float) -> float:
        """
        Return for how long a target has let so many calls in a row wait for an answer.

        It is 0 unless that is overdue for all of them, and nobody was answered since they began.
        One more call now and then finds out whether it still hangs.
        """
        if len(self.streams) + len(self.wholes) < most or now_s - self.begun_s >= TRIED_S:
            return 0.0
        streams_s = _overdue_s(self.streams, self.awaited_first_s, now_s, OVERDUE_STREAM, most)
        wholes_s = _overdue_s(self.wholes, self.awaited_whole_s, now_s, OVERDUE_WHOLE, most)
        ages_s = sorted((*streams_s, *wholes_s), reverse=True)
        return ages_s[most - 1] if len(ages_s) >= most else 0.0

    def percentile_s(self, share: float, now_s: float, *, streamed: bool) -> float | None:
        """
        Return what so large a share of the last answers took to begin; None where nobody knows.

        They are kept from the first time on that somebody asks.
        """
        if self.lately is None:
            self.lately = (Lately(), Lately())
        return self.lately[not streamed].percentile_s(share, now_s)

    def begins(self, now_s: float, *, streamed: bool) -> int:
        """Take note of a call, and return its number."""
        self.calls += 1
        self.under_way += 1
        self.unanswered += 1
        self.begun_s = now_s
        (self.streams if streamed else self.wholes)[self.calls] = now_s
        return self.calls

    def hears(self, number: int, *, heard: bool) -> None:
        """Take note that a call waits no longer, for whatever reason, unless that was `heard`."""
        self.unanswered -= not heard
        self.streams.pop(number, None)
        self.wholes.pop(number, None)

    def overtook(self, number: int) -> None:
        """Take note that a call was answered, whatever became of those before it."""
        for waiting in (self.streams, self.wholes):
            while waiting and (first := next(iter(waiting))) <= number:
                del waiting[first]

    def took(self, took_s: float, *, streamed: bool) -> None:
        """Take note of the time that an answer took to begin."""
        self.latency_s = _average(self.latency_s, took_s)
        self.awaited(took_s, streamed=streamed)

    def awaited(self, took_s: float, *, streamed: bool) -> None:
        """Take note of the time that was waited for an answer, whether it came or not."""
        if self.lately is not None:
            self.lately[not streamed].add(took_s, self.told_s)
        if streamed:
            self.awaited_first_s = _average(self.awaited_first_s, took_s)
        else:
            self.awaited_whole_s = _average(self.awaited_whole_s, took_s)


def patience_s(known_s: float | None, most_s: float) -> float:
    """Return how long a first token is waited for, where nearly all of the last took `known_s`."""
    if known_s is None:
        return most_s
    return min(most_s, max(LEAST_PATIENCE_S, ceil(PATIENCE * known_s / STEP_S) * STEP_S))


def _overdue_s(
    waiting: Mapping[int, float],
    known_s: float | None,
    now_s: float,
    overdue: tuple[float, float],
    most: int,
) -> list[float]:
    """Return for how long the first of those wait whose answer is overdue, at most so many."""
    if known_s is None:
        return []
    times, more_s = overdue
    limit_s = times * known_s + more_s
    ages_s: list[float] = []
    for begun_s in waiting.values():  # the first began first: none of the others waits longer
        if now_s - begun_s <= limit_s or len(ages_s) == most:
            break
        ages_s.append(now_s - begun_s)
    return ages_s


def _average(known_s: float | None, new_s: float) -> float:
    return new_s if known_s is None else known_s + WEIGHT * (new_s - known_s)
