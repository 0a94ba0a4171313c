"""Which targets to ask, in which order, and why. Pure: the same inputs give the same plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from operator import attrgetter, itemgetter
from typing import NamedTuple

from proxy.standing import Standing
from proxy.strategies import Moment, fact_of, in_order
from proxy.types import Group, Ring, Strategy, Target


class Step(NamedTuple):
    """One target of a plan, and the reason for its place."""

    target: Target
    why: str = ""  # of one that is left out
    unable: bool = False  # left out because it surely could not answer this request
    standing: Standing | None = None
    strategy: Strategy | None = None  # None: there is nobody to choose from

    @property
    def reason(self) -> str:
        """Return it in words; no request waits for them to be found."""
        if self.standing is None:
            return self.why
        fact = fact_of(self.strategy, self.target, self.standing) if self.strategy else ""
        return ", ".join(each for each in (self.standing.word(), fact) if each)


class Plan(NamedTuple):
    """The targets to ask, best first, and those left out, each with the reason."""

    steps: tuple[Step, ...]
    left_out: tuple[Step, ...] = ()
    home: str = ""  # the provider that the request was written for: the ring's first
    passed_over: bool = False  # one that is put aside would have stood before the first

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(map(attrgetter("target"), self.steps))


class Turn(IntEnum):
    """Who is asked before whom, whatever the strategies say."""

    READY = 0
    ASIDE = 1
    RESTING = 2


def plan_ring(
    ring: Ring | Sequence[Group],
    standing: Callable[[Target], Standing],
    chance: Callable[[], float],
    *,
    skip: frozenset[str] = frozenset(),
    turn: int = 0,
    session: str | None = None,
    unable: Callable[[Target], str | None] = lambda target: None,
) -> Plan:
    """
    Order the targets of `ring`: group by group, each in its strategy's order; then those that hang
    or that their provider has no room for, then those that rest, the soonest back first.

    Left out are unconfigured targets, those that are `unable` to answer, those whose identity is in
    `skip`, and the second mention of the same identity. The standing of each of the others is
    asked for once, so that the plan is of one moment. `chance` returns a random number in [0, 1),
    `turn` is how many requests of the ring were planned before this one. Requests of one `session`
    have the same order within a group, as far as its strategy has no favourite for all.
    """
    groups = ring.groups if isinstance(ring, Ring) else ring
    standing = _once(standing)
    moment = Moment(standing, chance, turn, session)
    found: list[tuple[tuple[Turn, float], Step]] = []
    left_out: list[Step] = []
    seen = set(skip)
    for group in groups:
        able = _able(group.targets, seen, unable, left_out)
        strategy = group.strategy if len(group.targets) > 1 else None
        for target in in_order(group, able, moment):
            # The same place may stand in a group twice, and have two chances to be drawn.
            if target.identity in seen:
                left_out.append(_again(target))
                continue
            seen.add(target.identity)
            now = standing(target)
            found.append((_turn(now), Step(target, standing=now, strategy=strategy)))
    ordered = sorted(found, key=itemgetter(0))
    passed_over = bool(ordered) and ordered[0] is not found[0] and ordered[0][0][0] < Turn.RESTING
    steps = tuple(map(itemgetter(1), ordered))
    return Plan(steps, tuple(left_out), _home(groups), passed_over)


def _able(
    targets: Iterable[Target],
    seen: set[str],
    unable: Callable[[Target], str | None],
    left_out: list[Step],
) -> list[Target]:
    """Return those that a strategy may choose from; the others are noted, with the reason."""
    able: list[Target] = []
    for target in targets:
        if target.missing is not None:
            left_out.append(Step(target, f"unconfigured: {target.missing} is not set"))
        elif target.identity in seen:
            left_out.append(_again(target))
        elif (why := unable(target)) is not None:
            left_out.append(Step(target, why, unable=True))
        else:
            able.append(target)
    return able


def _again(target: Target) -> Step:
    return Step(target, "the same place stands earlier in the ring")


def _turn(now: Standing) -> tuple[Turn, float]:
    if now.cooling_s > 0 or not now.admits:
        return (Turn.RESTING, now.away_s)
    aside_s = now.aside_s
    return (Turn.ASIDE, aside_s) if aside_s > 0 else (Turn.READY, 0.0)


def _once(standing: Callable[[Target], Standing]) -> Callable[[Target], Standing]:
    """Return the same, which asks once for each place and remembers."""
    known: dict[str, Standing] = {}

    def remembered(target: Target) -> Standing:
        now = known.get(target.identity)
        if now is None:
            now = known[target.identity] = standing(target)
        return now

    return remembered


def _home(groups: Sequence[Group]) -> str:
    for group in groups:
        if group.targets:
            return group.targets[0].provider
    return ""
