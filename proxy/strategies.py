"""
The order of the targets of one group, by each strategy. Pure: chance and standings are given.

Every strategy returns all the targets that it is given, the one to be asked first at the front;
`routing.py` then puts those that rest, or have no room, behind the others.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from math import inf, log
from typing import NamedTuple

from proxy.standing import Standing
from proxy.types import Group, Strategy, Target

LEAST_WEIGHT = 1e-9  # of a target that is not to be asked while there are others
# First tokens that differ by less than this share, or these seconds, are alike.
ALIKE, ALIKE_S = 0.1, 0.02
GOLDEN = 0.6180339887498949  # whose multiples, modulo 1, are spread most evenly
MILLION_PER_PICO = 1e-6  # dollars for a million tokens, of pico-dollars for one


class Moment(NamedTuple):
    """What the strategies go by."""

    standing: Callable[[Target], Standing]
    chance: Callable[[], float]  # a random number in [0, 1)
    turn: int  # how many requests of the ring were planned before
    session: str | None = None

    def is_ready(self, target: Target) -> bool:
        return self.standing(target).is_ready


def in_order(group: Group, targets: Sequence[Target], moment: Moment) -> Sequence[Target]:
    """Return those of the group's targets that may answer, in the order of its strategy."""
    if len(targets) < 2:
        return targets
    ranks = {target.order for target in targets}
    if len(ranks) == 1:
        return _by_strategy(group.strategy, targets, moment)
    # LiteLLM's `order`: all of order 1 before any of order 2, whatever the strategy.
    ordered: list[Target] = []
    for rank in sorted(ranks):
        ordered += _by_strategy(group.strategy, [t for t in targets if t.order == rank], moment)
    return ordered


def _by_strategy(strategy: Strategy, targets: Sequence[Target], moment: Moment) -> Sequence[Target]:
    match strategy:
        case Strategy.HEALTH_BASED:
            # One whose rest is over keeps its place: behind the healthy it would never be probed.
            return targets
        case Strategy.COST_BASED:
            return _cheapest_first(targets, moment)
        case _ if moment.session is not None:
            return _least_first(targets, _scores(targets, moment.session))
        case _:
            return SPREADING[strategy](targets, moment)


def _least_first(
    targets: Sequence[Target], keys: Sequence[float] | Sequence[tuple[float, float]]
) -> list[Target]:
    return [targets[at] for at in sorted(range(len(targets)), key=keys.__getitem__)]


def _scores(targets: Sequence[Target], session: str) -> list[float]:
    """
    Return where a session wants to be, the least the most: a hash of it and of each place.

    It is the same in every replica, and when a target is added or gone only its own sessions move.
    What a shuffle would go by is a target's share of the sessions.
    """
    return [
        _score(target, weight, session)
        for target, weight in zip(targets, _weights(targets), strict=True)
    ]


def _score(target: Target, weight: float, session: str) -> float:
    text = f"{session}\0{target.identity}".encode(errors="surrogatepass")
    drawn = int.from_bytes(hashlib.blake2b(text, digest_size=6).digest()) + 0.5
    return -log(drawn / 2**48) / max(weight, LEAST_WEIGHT)


def _cheapest_first(targets: Sequence[Target], moment: Moment) -> list[Target]:
    """Order by price; a session stays with one of those that cost the same."""
    if moment.session is None:
        ties = [moment.chance() for _ in targets]
    else:
        ties = _scores(targets, moment.session)
    costs = [_cost(target) for target in targets]
    return _least_first(targets, list(zip(costs, ties, strict=True)))


def _cost(target: Target) -> float:
    """Return what a token of each kind costs, as LiteLLM adds them; the unknown comes last."""
    price = target.facts.price
    return inf if price is None else price.rates[0].prompt + price.rates[0].completion


def _most_room_first(targets: Sequence[Target], moment: Moment) -> list[Target]:
    """Order by what is left of their limits; nobody knows of any: all is."""
    shares = (moment.standing(target).room.share for target in targets)
    left = [(-1.0 if share is None else -share, moment.chance()) for share in shares]
    return _least_first(targets, left)


def _least_busy_first(targets: Sequence[Target], moment: Moment) -> list[Target]:
    """Order by how busy one more call would make each, for the weight that it has."""
    weights = (1.0 if t.weight is None else max(t.weight, LEAST_WEIGHT) for t in targets)
    busy = [
        ((moment.standing(target).in_flight + 1) / weight, moment.chance())
        for target, weight in zip(targets, weights, strict=True)
    ]
    return _least_first(targets, busy)


def _by_turns(targets: Sequence[Target], moment: Moment) -> list[Target]:
    """
    Order by whose turn it is, among those that can be asked: the others' turns go to nobody else.

    With weights a target has its share of the turns, spread as evenly as the golden ratio does.
    """
    turn = moment.turn
    open_ = [target for target in targets if moment.is_ready(target)]
    others = [target for target in targets if target not in open_]
    weights = [1.0 if target.weight is None else target.weight for target in open_]
    if len(set(weights)) > 1 and sum(weights) > 0:
        sums = list(accumulate(weights))
        at = bisect_right(sums, (turn * GOLDEN) % 1.0 * sums[-1])
    else:
        at = turn % len(open_) if open_ else 0
    return [*open_[at:], *open_[:at], *others]


def _best_of_two_first(targets: Sequence[Target], moment: Moment) -> list[Target]:
    """
    Draw two at a time and take the one whose first token is expected sooner, by more than a little.

    The fastest of all would get every request, until it is the slowest; so it would of two that are
    alike. One that nobody has an idea of is tried by one request at a time.
    """
    left, drawn = list(targets), list[Target]()
    while len(left) > 1:
        first = left.pop(int(moment.chance() * len(left)))
        at = int(moment.chance() * len(left))
        if _is_sooner(moment.standing(left[at]), moment.standing(first)):
            first, left[at] = left[at], first
        drawn.append(first)
    return drawn + left


def _is_sooner(one: Standing, other: Standing) -> bool:
    one_s, other_s = _awaited_s(one), _awaited_s(other)
    return one_s < other_s * (1 - ALIKE) and one_s < other_s - ALIKE_S


def _awaited_s(now: Standing) -> float:
    if now.expected_s is None:
        return inf if now.in_flight else 0.0
    return now.expected_s


def _shuffled(targets: Sequence[Target], moment: Moment) -> list[Target]:
    """Draw without replacement, by `weight`, else by `rpm`, else by `tpm`, else evenly."""
    left, weights = list(targets), _weights(targets)
    drawn: list[Target] = []
    while left:
        sums = list(accumulate(weights))
        # Nothing but zero weights leaves the order as written.
        index = (
            min(bisect_right(sums, moment.chance() * sums[-1]), len(left) - 1) if sums[-1] else 0
        )
        drawn.append(left.pop(index))
        weights.pop(index)
    return drawn


def _weights(targets: Sequence[Target]) -> list[float]:
    for field in ("weight", "rpm", "tpm"):
        values = [getattr(target, field) for target in targets]
        if any(value is not None for value in values):
            return [float(value or 0) for value in values]
    return [1.0] * len(targets)


# The strategies without one favourite for all; the others send every request to the same target
# as long as it is healthy.
SPREADING: Mapping[Strategy, Callable[[Sequence[Target], Moment], Sequence[Target]]] = {
    Strategy.SIMPLE_SHUFFLE: _shuffled,
    Strategy.ROUND_ROBIN: _by_turns,
    Strategy.LATENCY_BASED: _best_of_two_first,
    Strategy.LEAST_BUSY: _least_busy_first,
    Strategy.USAGE_BASED: _most_room_first,
}


def fact_of(strategy: Strategy, target: Target, now: Standing) -> str:
    """Return, for a person, what the strategy knows of a target; nothing where it needs nothing."""
    match strategy:
        case Strategy.SIMPLE_SHUFFLE | Strategy.ROUND_ROBIN:
            return "" if target.weight is None else f"weight {target.weight:g}"
        case Strategy.LATENCY_BASED:
            expected_s = now.expected_s
            return "nobody knows how fast" if expected_s is None else f"awaited {expected_s:.2f} s"
        case Strategy.LEAST_BUSY:
            return f"{now.in_flight} under way"
        case Strategy.COST_BASED:
            return _price_words(target)
        case Strategy.HEALTH_BASED | Strategy.USAGE_BASED:
            return ""  # all there is to say is said of every target


def _price_words(target: Target) -> str:
    price = target.facts.price
    if price is None:
        return "price unknown"
    rates = price.rates[0]
    prompt, completion = (each * MILLION_PER_PICO for each in (rates.prompt, rates.completion))
    return f"${prompt:g} and ${completion:g} for a million tokens"
