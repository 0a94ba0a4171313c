"""
What quota asks of the state that requests share. Two keep it: `memory.py` and `redis.py`.

Every method is one atomic step, and none waits for a reservation of somebody else: what does not
fit is refused at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, TypeAlias

from proxy.limits import Claim, Limit, Refusal, Scope, Spent, Standing, Unit

Standings: TypeAlias = tuple[Standing, ...]


class StoreUnavailable(Exception):
    """The state cannot be reached, so that nobody knows what is left."""


class History(Protocol):
    """
    What was used before the store began to count: the ledger, as far as a store knows it.

    Plain methods that ask at once: the answer holds all that was recorded before the call, and
    nothing that was recorded after it, however late it is awaited.
    """

    def used(self, scope: Scope, unit: Unit, *, since: float) -> Awaitable[int]:
        """
        Return what closed attempts took (REQUESTS: how many requests were admitted) since then.

        `since` is in seconds since 1970, at the start of an hour; 0 is for ever. Awaiting raises
        StoreUnavailable when the ledger cannot be read.
        """
        ...

    def recent(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Sequence[tuple[float, int]]]:
        """Return the same, entry by entry: when (seconds since 1970) and how much."""
        ...


class NoHistory:
    """Nothing was used before."""

    async def used(self, scope: Scope, unit: Unit, *, since: float) -> int:
        return 0

    async def recent(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Sequence[tuple[float, int]]:
        return ()


class SharedHistory(Protocol):
    """
    The ledger of one replica, as far as a shared store knows it: what each process used.

    The processes are this one and those that are gone; others that are alive speak for themselves.
    The methods ask at once, as those of `History` do.
    """

    def replica_id(self) -> Awaitable[str]:
        """Return the name of the ledger, which outlives its processes."""
        ...

    def used_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Mapping[str, int]]: ...

    def recent_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Sequence[tuple[str, float, int]]]: ...


class QuotaStore(Protocol):
    """Limits of requests, tokens, money and parallel requests, kept exactly."""

    async def admit(self, id: str, limits: Sequence[Limit]) -> Standings | Refusal:
        """
        Count one request under all `limits`, which are of REQUESTS or PARALLEL, or under none.

        The same id again counts nothing. Raises StoreUnavailable.
        """
        ...

    async def leave(self, id: str) -> None:
        """Free what the request `id` holds of PARALLEL. Unknown ids are no error."""
        ...

    async def reserve(
        self, id: str, claims: Sequence[Claim], scopes: Sequence[Scope]
    ) -> Standings | Refusal:
        """
        Set `claims`, of TOKENS, NANO_USD, REQUESTS or PARALLEL, aside for attempt `id`, or none.

        What is settled later counts for all `scopes`. The same id again reserves nothing more.
        Raises StoreUnavailable.
        """
        ...

    def adopt(self, id: str, claims: Sequence[Claim]) -> None:
        """
        Have `id`, let in or reserved before, hold these too, whether or not there is room.

        What it holds already it holds once. A request holds PARALLEL, an attempt TOKENS and
        NANO_USD as well; never raises.
        """
        ...

    def forget(self, limits: Sequence[Limit]) -> None:
        """Have the past of these limits of REQUESTS learned anew, should they come back."""
        ...

    async def settle(self, id: str, spent: Spent) -> None:
        """
        Replace what was reserved by what was spent, in full, even where that is more.

        Unknown ids, settled ones among them, change nothing. Never raises: what cannot be told now
        is told later.
        """
        ...

    async def learn(self, limits: Sequence[Limit]) -> None:
        """
        Have the past of these limits known before somebody asks for them, as far as it can be.

        Never raises.
        """
        ...

    def wall(self) -> float:
        """Seconds since 1970, on the clock that the calendar windows go by."""
        ...

    async def standings(self, limits: Sequence[Limit]) -> Standings:
        """Return how `limits` stand. Raises StoreUnavailable."""
        ...
