"""
What one process may let in by itself while Redis is gone.

Of a caller's limits it spends the share that Redis has set aside for it. A deployment's limits
protect no money, for what they refuse its provider would refuse: each process keeps them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.limits import Claim, Refusal, ScopeKind, Spent, Unit, Window
from proxy.store.counters import Counter, counter_for
from proxy.store.memory import SOON_S
from proxy.store.redis_part import MINUTE_US, Part
from proxy.store.windows import US


@dataclass(frozen=True, slots=True)
class Lent:
    """What one request or attempt has taken of a lease."""

    counter: Counter
    unit: Unit
    amount: int

    def settle(self, spent: Spent, now_s: float, wall_s: float) -> None:
        """Replace it by what was spent; a request that was let in stays one."""
        if self.unit is not Unit.REQUESTS:
            self.counter.open -= self.amount
            self.counter.turn(now_s, wall_s)
            self.counter.add(spent.of(self.unit), now_s)


def lend(
    claims: Sequence[Claim], parts: Sequence[Part], *, in_force: bool, now_s: float, wall_s: float
) -> tuple[Lent, ...] | Refusal | None:
    """
    Let in what fits, or nothing of it: a deployment's refusal, or None for who has no lease left.

    `in_force`: Redis still keeps the leases. `now_s` is monotonic, `wall_s` since 1970.
    """
    taken: list[Lent] = []
    refusal: Refusal | None = None
    for claim, part in zip(claims, parts, strict=True):
        if claim.limit.scope.kind is ScopeKind.TARGET:
            refusal = refusal or _of_target(claim, part, int(wall_s * US))
            continue
        if part.lent is None:
            part.lent = counter_for(part.window)
        part.lent.turn(now_s, wall_s)
        if not in_force or part.lent.used + claim.amount > part.lease:
            return None
        taken.append(Lent(part.lent, claim.limit.unit, claim.amount))
    if refusal is not None:
        return refusal
    for each in taken:
        if each.unit is Unit.REQUESTS:
            each.counter.add(each.amount, now_s)
        else:
            each.counter.open += each.amount
    return tuple(taken)


def _of_target(claim: Claim, part: Part, now_us: int) -> Refusal | None:
    used, limit = part.used_lately(now_us), claim.limit
    over = used + claim.amount - limit.most
    if over <= 0:
        return None
    waits = [(at_us + MINUTE_US - now_us) / US for at_us, _ in part.entries]
    reset_s = waits[-1] if waits and limit.window is Window.MINUTE else 0.0
    wait_s: float | None = SOON_S  # only reservations stand in the way
    if claim.amount > limit.most:
        wait_s = None
    elif over <= used - part.open:
        wait_s = _frees_s(part, over, waits)
    return Refusal(limit, used, claim.amount, wait_s, reset_s)


def _frees_s(part: Part, amount: int, waits: Sequence[float]) -> float:
    freed = 0
    for (_, entry), wait_s in zip(part.entries, waits, strict=True):
        freed += entry
        if freed >= amount:
            return wait_s
    raise AssertionError("unreachable")
