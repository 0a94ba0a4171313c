"""What the script's numbers mean: how limits stand, or which of them leaves no room. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.limits import Claim, Limit, Refusal, Standing, Window, worst
from proxy.store.counters import MINUTE_S
from proxy.store.memory import SOON_S
from proxy.store.windows import US, bounds

FACTS_OF_STANDING = 4  # used, settled, open, microseconds until what is settled has left
FACTS_OF_REFUSAL = 6  # place in the list, the same, microseconds until there is room


def standings_of(
    claims: Sequence[Claim], facts: Sequence[int], wall_s: float
) -> tuple[Standing, ...]:
    """Return how the limits of the claims stand at `wall_s`."""
    rows = _rows(facts, FACTS_OF_STANDING)
    return tuple(
        Standing(claim.limit, used, _empty_s(claim.limit, (settled, open_), empty_us, wall_s))
        for claim, (used, settled, open_, empty_us) in zip(claims, rows, strict=True)
    )


def refusal_of(claims: Sequence[Claim], facts: Sequence[int], wall_s: float) -> Refusal:
    """Return the refusal to tell of, of the claims that leave no room."""
    refusals = []
    for place, used, settled, open_, empty_us, free_us in _rows(facts, FACTS_OF_REFUSAL):
        claim = claims[place - 1]
        limit, amount = claim.limit, claim.amount
        wait_s: float | None = SOON_S  # only reservations stand in the way
        if amount > limit.most:
            wait_s = None
        elif used + amount - limit.most <= settled:
            wait_s = _frees_s(limit, free_us, wall_s)
        reset_s = _empty_s(limit, (settled, open_), empty_us, wall_s)
        refusals.append(Refusal(limit, used, amount, wait_s, reset_s))
    found = worst(refusals)
    if found is None:
        raise AssertionError("unreachable")
    return found


def _rows(facts: Sequence[int], width: int) -> list[Sequence[int]]:
    return [facts[start : start + width] for start in range(0, len(facts), width)]


def _empty_s(limit: Limit, used: tuple[int, int], empty_us: int, wall_s: float) -> float:
    settled, open_ = used
    match limit.window:
        case Window.MINUTE:
            return MINUTE_S if open_ else max(0.0, empty_us / US)
        case Window.DAY | Window.MONTH:
            return bounds(limit.window, wall_s)[1] - wall_s if settled + open_ else 0.0
        case Window.TOTAL | Window.NOW:
            return 0.0


def _frees_s(limit: Limit, free_us: int, wall_s: float) -> float | None:
    match limit.window:
        case Window.MINUTE:
            return max(0.0, free_us / US)
        case Window.DAY | Window.MONTH:
            return bounds(limit.window, wall_s)[1] - wall_s
        case Window.TOTAL:
            return None
        case Window.NOW:
            return SOON_S
