"""Which targets to ask, in which order, and why. Pure: the same inputs give the same plan."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from proxy.errors import UpstreamFailure
from proxy.types import Group, Ring, Strategy, Target


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one target at the moment of planning."""

    admits: bool = True  # its breaker would let a call through
    cooling_s: float = 0.0  # seconds until its cooldown ends
    open_for_s: float = 0.0  # seconds until its breaker lets a call through
    closed: bool = True
    failure: UpstreamFailure | None = None  # the last one, for the answer when nobody is left
    latency_s: float | None = None

    @property
    def healthy(self) -> bool:
        return self.closed and self.cooling_s <= 0

    @property
    def away_s(self) -> float:
        """Seconds until it may be asked; 0 when it may be now."""
        return max(self.cooling_s, 0.0 if self.admits else self.open_for_s)

    def word(self) -> str:
        if self.cooling_s > 0:
            return f"cooling for {self.cooling_s:.1f} s"
        if not self.admits:
            return f"open for {self.open_for_s:.1f} s"
        return "healthy" if self.closed else "half open: one probe"


@dataclass(frozen=True, slots=True)
class Step:
    """One target of a plan and the reason for its place."""

    target: Target
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The targets to ask, best first, and those left out, each with the reason."""

    steps: tuple[Step, ...]
    left_out: tuple[Step, ...] = ()
    home: str = ""  # the provider that the request was written for: the ring's first

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(step.target for step in self.steps)


def plan_ring(
    ring: Ring | Sequence[Group],
    standing: Callable[[Target], Standing],
    chance: Callable[[], float],
    *,
    skip: frozenset[str] = frozenset(),
) -> Plan:
    """
    Order the targets of `ring`: group by group, each in its strategy's order, cooling ones last.

    Unconfigured targets are left out, as are those whose identity is in `skip` and the second
    mention of the same identity. `chance` returns a random number in [0, 1).
    """
    groups = ring.groups if isinstance(ring, Ring) else ring
    steps: list[Step] = []
    later: list[tuple[float, Step]] = []
    left_out: list[Step] = []
    seen = set(skip)
    for target in _in_order(groups, standing, chance):
        if target.missing is not None:
            left_out.append(Step(target, f"unconfigured: {target.missing} is not set"))
        elif target.identity in seen:
            left_out.append(Step(target, "the same place stands earlier in the ring"))
        else:
            seen.add(target.identity)
            now = standing(target)
            step = Step(target, now.word())
            if now.cooling_s > 0 or not now.admits:
                later.append((now.away_s, step))
            else:
                steps.append(step)
    later.sort(key=lambda pair: pair[0])
    ordered = (*steps, *(step for _, step in later))
    return Plan(ordered, tuple(left_out), _home(groups))


def _home(groups: Sequence[Group]) -> str:
    return next((target.provider for group in groups for target in group.targets), "")


def _in_order(
    groups: Iterable[Group],
    standing: Callable[[Target], Standing],
    chance: Callable[[], float],
) -> Iterator[Target]:
    for group in groups:
        # LiteLLM's `order`: all of order 1 before any of order 2, whatever the strategy.
        ranked = sorted(group.targets, key=lambda target: target.order)
        for _, rank in groupby(ranked, key=lambda target: target.order):
            yield from _by_strategy(group.strategy, tuple(rank), standing, chance)


def _by_strategy(
    strategy: Strategy,
    targets: tuple[Target, ...],
    standing: Callable[[Target], Standing],
    chance: Callable[[], float],
) -> Sequence[Target]:
    match strategy:
        case Strategy.HEALTH_BASED:
            # One whose rest is over keeps its place: behind the healthy it would never be probed.
            return sorted(targets, key=lambda target: standing(target).away_s > 0)
        case Strategy.SIMPLE_SHUFFLE:
            return _shuffled(targets, chance)


def _shuffled(targets: tuple[Target, ...], chance: Callable[[], float]) -> list[Target]:
    """Draw without replacement, by `weight`, else by `rpm`, else by `tpm`, else evenly."""
    left, weights = list(targets), _weights(targets)
    drawn: list[Target] = []
    while left:
        sums = list(accumulate(weights))
        # Nothing but zero weights leaves the order as written.
        index = min(bisect_right(sums, chance() * sums[-1]), len(left) - 1) if sums[-1] else 0
        drawn.append(left.pop(index))
        weights.pop(index)
    return drawn


def _weights(targets: tuple[Target, ...]) -> list[float]:
    for field in ("weight", "rpm", "tpm"):
        values = [getattr(target, field) for target in targets]
        if any(value is not None for value in values):
            return [float(value or 0) for value in values]
    return [1.0] * len(targets)
