"""What one request or attempt takes of the shared state, in the words of its script. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from proxy.limits import Claim, Limit, Refusal, Scope, Unit
from proxy.store.port import Standings
from proxy.store.redis_lease import Lent
from proxy.store.redis_link import Moment, Operation, Words
from proxy.store.redis_part import Part
from proxy.store.windows import Labels

NO_LIMIT = -1  # `take` never refuses for this one


@dataclass(frozen=True, slots=True)
class Held:
    """What one request or attempt has set aside, and for whom it counts in the end."""

    held: tuple[tuple[Part, int], ...]
    scopes: tuple[Scope, ...]
    lent: tuple[Lent, ...] = ()  # what of it was let in on leases


NOTHING_HELD = Held((), ())


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One request or attempt that asks for room."""

    id: str
    claims: Sequence[Claim]
    scopes: tuple[Scope, ...]
    parts: Sequence[Part]  # of the claims
    answer: asyncio.Future[Standings | Refusal]

    def words(self) -> Words:
        """Return the operation that takes it, if there is room."""
        return (
            "take",
            [
                (part.name, part.window, claim.amount, claim.limit.most, int(is_held(claim.limit)))
                for claim, part in zip(self.claims, self.parts, strict=True)
            ],
        )


def is_held(limit: Limit) -> bool:
    """Say whether it is given back one day; a request that is made counts whatever comes of it."""
    return limit.unit is not Unit.REQUESTS


def look(parts: Iterable[Part]) -> Words:
    """Return the operation that takes nothing and says how these stand."""
    return ("take", [(part.name, part.window, 0, NO_LIMIT) for part in parts])


def note(take: Take, labels: Labels) -> Operation:
    """Return the operation that tells what was taken without asking, and is mirrored already."""
    noted, used = [], []
    for claim, part in zip(take.claims, take.parts, strict=True):
        held = is_held(claim.limit)
        if held or part.counts:
            noted.append((part.name, part.window, claim.amount, int(held)))
        if not held and part.counts:
            used.append((part, claim.amount))
    return Operation(("note", noted), _counted_again(used, labels), mirrored=True)


def adoption(held: Iterable[tuple[Part, int]]) -> Operation:
    """Return the operation that tells what is held from now on, and is mirrored already."""
    noted = [(part.name, part.window, amount, 1) for part, amount in held]
    return Operation(("note", noted), mirrored=True)


def settlement(held: Held, used: Sequence[tuple[Part, int]], labels: Labels) -> Operation:
    """Return the operation that tells what was spent, and is mirrored already."""
    releases = [(part.name, amount) for part, amount in held.held]
    spent = [(part.name, part.window, amount) for part, amount in used]
    return Operation(("settle", releases, spent), _counted_again(used, labels), mirrored=True)


def _counted_again(
    used: Sequence[tuple[Part, int]], labels: Labels
) -> Callable[[object, Moment], None]:
    """Return what has the mirror count in the day of Redis, where midnight came in between."""

    def done(_: object, moment: Moment) -> None:
        for part, amount in used:
            if part.is_before(moment.labels, labels):
                part.add(amount, moment.at_us, moment.labels)

    return done
