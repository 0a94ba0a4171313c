"""Which targets to ask, in which order, and why. Pure: the same inputs give the same plan."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, groupby
from math import inf, log

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Group, Ring, Strategy, Target

# What a failure was, for a person; a kind that is not here is its own word.
WORDS: dict[Kind, str] = {
    Kind.CREDENTIAL: "refused our key",
    Kind.EXHAUSTED: "our account is empty",
    Kind.MISSING: "the model is not there",
    Kind.RATE_LIMITED: "rate limited",
    Kind.TRANSIENT: "an error of its own",
    Kind.SILENT: "no answer in time",
    Kind.BROKEN: "a broken answer",
}


LEAST_WEIGHT = 1e-9  # of a target that is not to be asked while there are others
GOLDEN = 0.6180339887498949  # whose multiples, modulo 1, are spread most evenly


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of the room that a target has under its limits for one request."""

    share: float | None = None  # the least that is left of any limit, 0 to 1; None: not known
    aside_s: float = 0.0  # seconds for which its provider says that there is none
    aside_why: str = ""


ROOM_UNKNOWN = Room()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of one target at the moment of planning."""

    admits: bool = True  # its breaker would let a call through
    cooling_s: float = 0.0  # seconds until its cooldown ends
    open_for_s: float = 0.0  # seconds until its breaker lets a call through
    closed: bool = True
    failure: UpstreamFailure | None = None  # the last one, for the answer when nobody is left
    latency_s: float | None = None
    expected_s: float | None = None  # its next first token, by what it took lately; None: no idea
    in_flight: int = 0  # calls of this process
    cause: str = ""  # why its breaker lets nobody through
    room: Room = ROOM_UNKNOWN

    @property
    def healthy(self) -> bool:
        return self.closed and self.cooling_s <= 0

    @property
    def away_s(self) -> float:
        """Seconds until it may be asked; 0 when it may be now."""
        return max(self.cooling_s, 0.0 if self.admits else self.open_for_s)

    def word(self) -> str:
        """Return for how long it rests or is passed over, and why; or that it is not."""
        if self.away_s > 0 or not self.admits:
            why = self._why()
            return f"resting {_seconds(self.away_s)}" + (f": {why}" if why else "")
        if self.room.aside_s > 0:
            return f"asked last for {_seconds(self.room.aside_s)}: {self.room.aside_why}"
        word, share = "healthy" if self.closed else "half open: one probe", self.room.share
        return word if share is None else f"{word}, {share:.0%} of its limits left"

    def _why(self) -> str:
        last = _said(self.failure)
        if self.cooling_s >= self.away_s:
            return last
        return ", last ".join(each for each in (self.cause, last) if each)


def _seconds(span_s: float) -> str:
    return f"{span_s:.0f} s" if span_s >= 10 else f"{span_s:.1f} s"


def _said(failure: UpstreamFailure | None) -> str:
    if failure is None:
        return ""
    word = WORDS.get(failure.kind, failure.kind.value)
    return f"{word} ({failure.provider_status})" if failure.provider_status else word


@dataclass(frozen=True, slots=True)
class Step:
    """One target of a plan and the reason for its place."""

    target: Target
    reason: str
    unable: bool = False  # left out because it surely could not answer this request


@dataclass(frozen=True, slots=True)
class Plan:
    """The targets to ask, best first, and those left out, each with the reason."""

    steps: tuple[Step, ...]
    left_out: tuple[Step, ...] = ()
    home: str = ""  # the provider that the request was written for: the ring's first
    passed_over: bool = False  # one that rests, or has no room, would have stood before the first

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(step.target for step in self.steps)


def plan_ring(
    ring: Ring | Sequence[Group],
    standing: Callable[[Target], Standing],
    chance: Callable[[], float],
    *,
    skip: frozenset[str] = frozenset(),
    turn: Callable[[str], int] = lambda group: 0,
    session: str | None = None,
    unable: Callable[[Target], str | None] = lambda target: None,
) -> Plan:
    """
    Order the targets of `ring`: group by group, each in its strategy's order; then those that
    their provider has no room for, then those that rest, each time the soonest back first.

    Left out are unconfigured targets, those that are `unable` to answer, those whose identity is in
    `skip`, and the second mention of the same identity. The standing of each of the others is
    asked for once, so that the plan is of one moment. `chance` returns a random number in [0, 1),
    `turn` how many requests of a group were planned before this one. Requests of one `session`
    have the same order within a group, unless its strategy has one favourite for all.
    """
    groups = ring.groups if isinstance(ring, Ring) else ring
    standing = _once(standing)
    found: list[tuple[tuple[_Turn, float], Step]] = []
    left_out: list[Step] = []
    seen = set(skip)
    for target in _in_order(groups, _Moment(standing, chance, turn, session)):
        if target.missing is not None:
            left_out.append(Step(target, f"unconfigured: {target.missing} is not set"))
        elif target.identity in seen:
            left_out.append(Step(target, "the same place stands earlier in the ring"))
        elif (why := unable(target)) is not None:
            left_out.append(Step(target, why, unable=True))
        else:
            seen.add(target.identity)
            now = standing(target)
            found.append((_turn(now), Step(target, now.word())))
    ordered = sorted(found, key=lambda pair: pair[0])
    passed_over = bool(ordered) and ordered[0] is not found[0] and ordered[0][0][0] < _Turn.RESTING
    steps = tuple(step for _, step in ordered)
    return Plan(steps, tuple(left_out), _home(groups), passed_over)


class _Turn(IntEnum):
    """Who is asked before whom, whatever the strategies say."""

    READY = 0
    ASIDE = 1
    RESTING = 2


def _turn(now: Standing) -> tuple[_Turn, float]:
    if now.cooling_s > 0 or not now.admits:
        return (_Turn.RESTING, now.away_s)
    aside_s = now.room.aside_s
    return (_Turn.ASIDE, aside_s) if aside_s > 0 else (_Turn.READY, 0.0)


def _once(standing: Callable[[Target], Standing]) -> Callable[[Target], Standing]:
    """Return the same, which asks once for each place and remembers."""
    known: dict[str, Standing] = {}

    def remembered(target: Target) -> Standing:
        if target.identity not in known:
            known[target.identity] = standing(target)
        return known[target.identity]

    return remembered


def _home(groups: Sequence[Group]) -> str:
    return next((target.provider for group in groups for target in group.targets), "")


@dataclass(frozen=True, slots=True)
class _Moment:
    """What the strategies go by."""

    standing: Callable[[Target], Standing]
    chance: Callable[[], float]
    turn: Callable[[str], int]
    session: str | None

    def least(self, targets: Sequence[Target], of: Callable[[Target], float]) -> list[Target]:
        """Return the targets with the least first; chance decides among equals."""
        # Nobody asks for the standing of a target that is left out anyway.
        keys = [(of(t) if t.missing is None else inf, self.chance()) for t in targets]
        return [targets[at] for at in sorted(range(len(targets)), key=keys.__getitem__)]


def _in_order(groups: Iterable[Group], moment: _Moment) -> Iterator[Target]:
    for group in groups:
        if len(group.targets) == 1:
            yield group.targets[0]
            continue
        # LiteLLM's `order`: all of order 1 before any of order 2, whatever the strategy.
        ranked = sorted(group.targets, key=lambda target: target.order)
        for _, rank in groupby(ranked, key=lambda target: target.order):
            yield from _by_strategy(group, tuple(rank), moment)


def _by_strategy(group: Group, targets: tuple[Target, ...], moment: _Moment) -> Sequence[Target]:
    if moment.session is not None and group.strategy not in FAVOURING:
        return _by_session(targets, moment.session)
    match group.strategy:
        case Strategy.HEALTH_BASED:
            # One whose rest is over keeps its place: behind the healthy it would never be probed.
            return targets
        case Strategy.SIMPLE_SHUFFLE:
            return _shuffled(targets, moment.chance)
        case Strategy.ROUND_ROBIN:
            return _by_turns(targets, moment, moment.turn(group.name))
        case Strategy.LATENCY_BASED:
            return _best_of_two_first(targets, moment)
        case _:
            measure = LEAST_FIRST[group.strategy]
            return moment.least(targets, lambda target: measure(target, moment.standing))


def _by_session(targets: tuple[Target, ...], session: str) -> list[Target]:
    """
    Order as a hash of the session and each place says: the same in every replica, and when a target
    is added or gone only its own sessions move. A weight is a share of the sessions.
    """

    def score(target: Target) -> float:
        text = f"{session}\0{target.identity}".encode(errors="surrogatepass")
        drawn = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) + 0.5
        weight = 1.0 if target.weight is None else max(target.weight, LEAST_WEIGHT)
        return -log(drawn / 2**48) / weight

    return sorted(targets, key=score)


def _used(target: Target, standing: Callable[[Target], Standing]) -> float:
    share = standing(target).room.share
    return -1.0 if share is None else -share


def _busy(target: Target, standing: Callable[[Target], Standing]) -> float:
    return standing(target).in_flight


def _cost(target: Target, standing: Callable[[Target], Standing]) -> float:
    """Return what a token of each kind costs, as LiteLLM adds them; the unknown comes last."""
    price = target.facts.price
    return inf if price is None else price.rates[0].prompt + price.rates[0].completion


# These send every request to the same target as long as it is healthy.
FAVOURING = frozenset({Strategy.HEALTH_BASED, Strategy.COST_BASED})
LEAST_FIRST: Mapping[Strategy, Callable[[Target, Callable[[Target], Standing]], float]] = {
    Strategy.LEAST_BUSY: _busy,
    Strategy.COST_BASED: _cost,
    Strategy.USAGE_BASED: _used,
}


def _by_turns(targets: tuple[Target, ...], moment: _Moment, turn: int) -> list[Target]:
    """
    Order by whose turn it is, among those that can be asked: the others' turns go to nobody else.

    With weights a target has its share of the turns, spread as evenly as the golden ratio does.
    """
    open_ = [
        t for t in targets if t.missing is None and _turn(moment.standing(t))[0] is _Turn.READY
    ]
    others = [target for target in targets if target not in open_]
    weights = [1.0 if target.weight is None else target.weight for target in open_]
    if len(set(weights)) > 1 and sum(weights) > 0:
        sums = list(accumulate(weights))
        at = bisect_right(sums, (turn * GOLDEN) % 1.0 * sums[-1])
    else:
        at = turn % len(open_) if open_ else 0
    return [*open_[at:], *open_[:at], *others]


def _is_ready(target: Target, standing: Callable[[Target], Standing]) -> bool:
    return target.missing is None and _turn(standing(target))[0] is _Turn.READY


def _best_of_two_first(targets: tuple[Target, ...], moment: _Moment) -> list[Target]:
    """
    Draw two at a time and take the one whose first token is expected sooner.

    The fastest of all would get every request, until it is the slowest. One that nobody has an
    idea of is tried by one request at a time.
    """
    left, drawn = list(targets), list[Target]()
    while left:
        first = left.pop(int(moment.chance() * len(left)))
        if left:
            at = int(moment.chance() * len(left))
            if _awaited_s(left[at], moment) < _awaited_s(first, moment):
                first, left[at] = left[at], first
        drawn.append(first)
    return drawn


def _awaited_s(target: Target, moment: _Moment) -> float:
    if target.missing is not None:
        return inf
    now = moment.standing(target)
    if now.expected_s is None:
        return inf if now.in_flight else 0.0
    return now.expected_s


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
