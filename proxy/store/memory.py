"""
Quota in one process: exact, and as durable as the ledger that it learns the past from.

A counter is made when its limit is first asked for, and begins with what the ledger knows of its
window: a restart, a reload and a new end user are the same thing. Between two awaits nothing else
runs, so each step below is atomic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from proxy.clock import Clock
from proxy.limits import (
    NANO_USD,
    REQUESTS,
    TOKENS,
    Claim,
    Limit,
    Refusal,
    Scope,
    ScopeKind,
    Spent,
    Standing,
    Unit,
    Window,
    worst,
)
from proxy.store.counters import MINUTE_S, Calendar, Counter, Sliding, counter_for
from proxy.store.port import History, Standings

# When only reservations stand in the way: nobody knows when one is settled, but one soon is.
SOON_S = 1.0
# End users are endless. Of those that came first only the ledger knows, until they come back.
MOST_SCOPES = 100_000

# Limits, what is asked of each, and its counter, in its window of now and with its past.
Asked: TypeAlias = list[tuple[Limit, int, Counter]]
Counters: TypeAlias = dict[tuple[Unit, Window], Counter]  # of one scope


class Reserved(NamedTuple):
    """What one attempt has set aside, and for whom it counts in the end."""

    held: list[tuple[Counter, int]]
    scopes: Sequence[Scope]


class MemoryStore:
    """Keeps the limits of one process. `history` is where a new counter learns its past."""

    def __init__(self, clock: Clock, history: History) -> None:
        self._clock = clock
        self._history = history
        self._counters: dict[Scope, Counters] = {}
        self._slots: dict[str, list[tuple[Counter, int]]] = {}  # of parallel requests
        self._reserved: dict[str, Reserved] = {}

    async def admit(self, id: str, limits: Sequence[Limit]) -> Standings | Refusal:
        asked, now_s, wall_s = await self._ready([(limit, 1) for limit in limits])
        if id not in self._slots:
            refusal = _refusal(asked, now_s, wall_s)
            if refusal is not None:
                return refusal
            self._slots[id] = _take(asked, now_s)
        return _standings(asked, now_s, wall_s)

    async def leave(self, id: str) -> None:
        for counter, amount in self._slots.pop(id, ()):
            counter.open -= amount

    async def reserve(
        self, id: str, claims: Sequence[Claim], scopes: Sequence[Scope]
    ) -> Standings | Refusal:
        if not claims:
            self._reserved.setdefault(id, Reserved([], scopes))
            return ()
        asked, now_s, wall_s = await self._ready(claims)
        if id not in self._reserved:
            refusal = _refusal(asked, now_s, wall_s)
            if refusal is not None:
                return refusal
            self._reserved[id] = Reserved(_take(asked, now_s), scopes)
        return _standings(asked, now_s, wall_s)

    def adopt(self, id: str, claims: Sequence[Claim]) -> None:
        for limit, amount in claims:
            if id in self._reserved:
                held = self._reserved[id].held
            elif limit.unit is Unit.PARALLEL:
                held = self._slots.setdefault(id, [])
            else:
                continue
            counter = self._counter(limit)
            if all(each is not counter for each, _ in held):
                counter.open += amount
                held.append((counter, amount))

    def forget(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            if limit.scope in self._counters:
                self._counters[limit.scope].pop((limit.unit, limit.window), None)

    async def settle(self, id: str, spent: Spent) -> None:
        reserved = self._reserved.pop(id, None)
        if reserved is None:
            return
        for counter, amount in reserved.held:
            counter.open -= amount
        now_s, wall_s = self._clock.now(), self._clock.wall()
        for scope in reserved.scopes:
            if (of_scope := self._counters.get(scope)) is not None:
                _count(of_scope, spent, now_s, wall_s)

    async def learn(self, limits: Sequence[Limit]) -> None:
        """Do nothing: one process knows what it is asked for when it is asked."""

    def wall(self) -> float:
        return self._clock.wall()

    async def standings(self, limits: Sequence[Limit]) -> Standings:
        return _standings(*await self._ready([(limit, 0) for limit in limits]))

    async def _ready(self, claims: Iterable[tuple[Limit, int]]) -> tuple[Asked, float, float]:
        """Return what is asked, ready to be answered; and when that is, on both clocks."""
        while True:
            now_s, wall_s = self._clock.now(), self._clock.wall()
            asked: Asked = []
            loading: list[asyncio.Task[None]] = []
            for limit, amount in claims:
                counter = self._counter(limit)
                counter.turn(now_s, wall_s)
                if not counter.known:
                    loading.append(counter.loading or self._load(limit, counter, wall_s))
                asked.append((limit, amount, counter))
            if not loading:
                return asked, now_s, wall_s
            # Shielded: others wait for the same past, and this caller may be leaving.
            every = asyncio.gather(*loading, return_exceptions=True)
            for outcome in await asyncio.shield(every):
                if isinstance(outcome, BaseException):
                    raise outcome

    def _counter(self, limit: Limit) -> Counter:
        of_scope = self._counters.get(limit.scope) or self._scope(limit.scope)
        counter = of_scope.get((limit.unit, limit.window))
        if counter is None:
            counter = of_scope[limit.unit, limit.window] = counter_for(limit.window)
            # Deployments are limited by the minute only, and the ledger knows them by other names.
            counter.known = limit.window is Window.NOW or limit.scope.kind is ScopeKind.TARGET
        return counter

    def _scope(self, scope: Scope) -> Counters:
        """Return the counters of a scope that has none yet."""
        of_scope = self._counters[scope] = {}
        if len(self._counters) > MOST_SCOPES:
            self._forget_some()
        return of_scope

    def _forget_some(self) -> None:
        """Drop the oldest tenth of the end users, but nobody who holds a reservation."""
        users = [scope for scope in self._counters if scope.kind is ScopeKind.USER]
        for scope in users[: MOST_SCOPES // 10]:
            if not any(c.open or c.loading for c in self._counters[scope].values()):
                del self._counters[scope]

    def _load(self, limit: Limit, counter: Counter, wall_s: float) -> asyncio.Task[None]:
        # The ledger is asked now and not when the task first runs: what is settled from here on is
        # added beside its answer, and must not be in it.
        scope, unit = limit.scope, limit.unit
        counter.begin()
        match counter:
            case Sliding():
                recent = self._history.recent(scope, unit, since=wall_s - MINUTE_S)
                work = _remember(counter, recent, self._clock.now(), wall_s)
            case Calendar():
                used = self._history.used(scope, unit, since=counter.since)
                work = _begin_with(counter, used, counter.since)
            case _:
                raise AssertionError("unreachable")
        counter.loading = asyncio.ensure_future(work)
        return counter.loading


def _count(of_scope: Counters, spent: Spent, now_s: float, wall_s: float) -> None:
    """Count what was spent; also under a limit that came with a reload after it had begun."""
    for (unit, _), counter in of_scope.items():
        if unit is TOKENS:
            amount = spent.tokens
        elif unit is NANO_USD:
            amount = spent.nano_usd
        else:
            continue
        if amount:
            counter.turn(now_s, wall_s)
            # What is not known yet will be read from the ledger, with this in it.
            if counter.known or counter.loading is not None:
                counter.add(amount, now_s)


def _take(asked: Asked, now_s: float) -> list[tuple[Counter, int]]:
    """Count what is asked for; return what of it is given back one day."""
    held: list[tuple[Counter, int]] = []
    for limit, amount, counter in asked:
        if limit.unit is REQUESTS:
            counter.add(amount, now_s)  # it is made, whatever comes of it
        else:
            counter.open += amount
            held.append((counter, amount))
    return held


def _standings(asked: Asked, now_s: float, wall_s: float) -> Standings:
    return tuple(
        [
            Standing(limit, counter.settled + counter.open, counter.empty_in_s(now_s, wall_s))
            for limit, _, counter in asked
        ]
    )


def _refusal(asked: Asked, now_s: float, wall_s: float) -> Refusal | None:
    refusals = [
        _refused(limit, amount, counter, now_s, wall_s)
        for limit, amount, counter in asked
        if counter.settled + counter.open + amount > limit.most
    ]
    return worst(refusals) if refusals else None


def _refused(limit: Limit, amount: int, counter: Counter, now_s: float, wall_s: float) -> Refusal:
    over = counter.used + amount - limit.most
    wait_s: float | None = SOON_S  # only reservations stand in the way
    if amount > limit.most:
        wait_s = None
    elif over <= counter.settled:
        wait_s = counter.frees_in_s(over, now_s, wall_s)
    return Refusal(limit, counter.used, amount, wait_s, counter.empty_in_s(now_s, wall_s))


async def _begin_with(counter: Calendar, used: Awaitable[int], since: float) -> None:
    try:
        amount = await used
        if counter.since == since:  # else the window has turned meanwhile, and is asked about anew
            counter.settled += amount
            counter.known = True
    finally:
        counter.loading = None


async def _remember(
    counter: Sliding, recent: Awaitable[Sequence[tuple[float, int]]], now_s: float, wall_s: float
) -> None:
    """Take what happened before both clocks said this."""
    try:
        entries = await recent
        counter.remember(((at - wall_s + now_s, amount) for at, amount in entries), now_s)
        counter.known = True
    finally:
        counter.loading = None
