"""What the script's numbers mean: how limits stand, or which of them leaves no room. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.limits import Claim, Limit, Refusal, Standing, Window, worst
from proxy.store.memory import SOON_S
from proxy.store.windows import US, bounds

FACTS_OF_STANDING = 3  # used, settled, microseconds until nothing is used
FACTS_OF_REFUSAL = 5  # place in the list, the same, microseconds until there is room


def standings_of(
    claims: Sequence[Claim], facts: Sequence[int], wall_s: float
) -> tuple[Standing, ...]:
    """Return how the limits of the claims stand at `wall_s`."""
    rows = _rows(facts, FACTS_OF_STANDING)
    return tuple(
        Standing(claim.limit, used, _empty_s(claim.limit, settled, empty_us, wall_s))
        for claim, (used, settled, empty_us) in zip(claims, rows, strict=True)
    )


def refusal_of(claims: Sequence[Claim], facts: Sequence[int], wall_s: float) -> Refusal:
    """Return the refusal to tell of, of the claims that leave no room."""
    refusals = []
    for place, used, settled, empty_us, free_us in _rows(facts, FACTS_OF_REFUSAL):
        claim = claims[place - 1]
        limit, amount = claim.limit, claim.amount
        wait_s: float | None = SOON_S  # only reservations stand in the way
        if amount > limit.most:
            wait_s = None
        elif used + amount - limit.most <= settled:
            wait_s = _frees_s(limit, free_us, wall_s)
        reset_s = _empty_s(limit, settled, empty_us, wall_s)
        refusals.append(Refusal(limit, used, amount, wait_s, reset_s))
    found = worst(refusals)
    if found is None:
        raise AssertionError("unreachable")
    return found


def _rows(facts: Sequence[int], width: int) -> list[Sequence[int]]:
    return [facts[start : start + width] for start in range(0, len(facts), width)]


def _empty_s(limit: Limit, settled: int, empty_us: int, wall_s: float) -> float:
    if limit.window is Window.MINUTE:
        return max(0.0, empty_us / US)
    return (_frees_s(limit, 0, wall_s) or 0.0) if settled else 0.0


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
