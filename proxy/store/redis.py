"""
Quota that several processes and replicas share on one Redis: exact, by the clock of Redis.

Every step is one script (`redis_quota.lua`), and each process keeps a mirror of its own part. If
Redis comes back empty, each says its part again, and what dead processes took comes from the
ledgers. While Redis is gone, `mobius.quota.on_store_failure` decides: `leased` lets in what fits
into a share that was set aside for it, at most a hundredth of a limit over all processes together;
`closed` lets nothing in that has a limit; `open` lets everything in and counts it afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from proxy.clock import Clock
from proxy.limits import NOTHING, Claim, Limit, Refusal, Scope, ScopeKind, Spent, Unit, Window
from proxy.store import LedgerUnavailable
from proxy.store.memory import MemoryStore
from proxy.store.port import NoHistory, SharedHistory, Standings, StoreUnavailable
from proxy.store.redis_answers import US, refusal_of, standings_of
from proxy.store.redis_link import Moment, Operation, RedisLink, Words
from proxy.store.redis_part import Part, Parts
from proxy.store.redis_past import Past, entries_of
from proxy.store.windows import Labels, labels_at

BEAT_S = 1.0  # between signs of life; an owner that gave none for 15 s is buried
LOOK_S = 0.25  # between looks whether an empty Redis has heard of everybody
MOST_SCOPES = 100_000
MOST_LEASES = 500  # that are renewed with one beat
LEAST_LEASED = 100  # of a smaller limit a hundredth is nothing
LEASED_FOR_S = 60.0  # after a limit was last asked for
# A dead owner's leases are kept for an hour, so a process that is only cut off ends using its own
# some time before.
LEASE_S = 3300.0

# What `take` of the script says first, and a limit that it never refuses for.
REFUSED, TAKEN, RECOVERING = 0, 1, 2
NO_LIMIT = -1
NOT_ALL_BACK = "Redis came back empty a moment ago, and not every process has told its part yet"

OnFailure: TypeAlias = Literal["leased", "closed", "open"]


@dataclass(frozen=True, slots=True)
class Held:
    """What one request or attempt has set aside, and for whom it counts in the end."""

    held: tuple[tuple[Part, int], ...]
    scopes: tuple[Scope, ...]
    local: MemoryStore | None = None  # that let it in while Redis was gone


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One request or attempt that asks for room."""

    id: str
    claims: Sequence[Claim]
    scopes: tuple[Scope, ...]
    answer: asyncio.Future[Standings | Refusal]


class RedisStore:
    """
    Keeps limits for all who use the same Redis, from `open` to `aclose`.

    `history` is the ledger of this process; `on_failure` is asked at every failure, for a live edit
    may change it. `told` hears why Redis is gone, and None when it is back.
    """

    def __init__(
        self,
        client: Any,
        clock: Clock,
        history: SharedHistory,
        *,
        owner: str,
        on_failure: Callable[[], OnFailure],
        told: Callable[[str | None], None] = lambda why: None,
    ) -> None:
        self._clock = clock
        self._on_failure = on_failure
        self._told = told
        self._parts = Parts(MOST_SCOPES)
        self._held: dict[str, Held] = {}
        self._left: set[str] = set()  # ids whose asker went away before the answer came
        self._leased: set[Part] = set()  # that a lease is asked for, or held
        self._local = MemoryStore(clock, NoHistory())
        self._link = RedisLink(
            client, clock, owner=owner, resync=self._words, told=self._heard_of_link
        )
        self._past = Past(self._link, history)
        self._beats: asyncio.Task[None] | None = None

    async def open(self, dead: Iterable[str] = ()) -> None:
        """
        Connect, and have what these dead owners held charged or freed.

        Returns when the state can be used, or when it is known that it cannot be reached now.
        """
        await self._link.open()
        self._beats = asyncio.create_task(self._beat(), name="show Redis a sign of life")
        with suppress(StoreUnavailable):
            for owner in dead:
                await self._link.ask(("bury", owner))
            while await self._link.ask(("take", [])) == [RECOVERING]:
                await self._clock.sleep(LOOK_S)

    async def aclose(self) -> None:
        """Have Redis know that this process holds nothing any more."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        await self._link.aclose()

    @property
    def trouble(self) -> str | None:
        """Why the state cannot be reached now."""
        return None if self._link.up else self._link.trouble

    def wall(self) -> float:
        return self._link.wall()

    async def admit(self, id: str, limits: Sequence[Limit]) -> Standings | Refusal:
        return await self._take(id, [Claim(limit, 1) for limit in limits], ())

    async def leave(self, id: str) -> None:
        await self.settle(id, NOTHING)

    async def reserve(
        self, id: str, claims: Sequence[Claim], scopes: Sequence[Scope]
    ) -> Standings | Refusal:
        return await self._take(id, claims, tuple(scopes))

    async def settle(self, id: str, spent: Spent) -> None:
        held = self._held.pop(id, None)
        if held is None:
            return
        moment = self._now()
        for part, amount in held.held:
            part.open -= amount
        used: list[tuple[Part, int]] = []
        for part in (each for scope in held.scopes for each in self._parts.under(scope)):
            amount = spent.of(part.unit)
            if amount and part.counts:
                part.add(amount, moment.at_us, moment.labels)
                used.append((part, amount))
        if (held.held or used) and self._link.up:
            self._link.put(_settlement(held, used, moment.labels))
        if held.local is not None:
            await held.local.settle(id, spent)

    async def standings(self, limits: Sequence[Limit]) -> Standings:
        claims = [Claim(limit, 0) for limit in limits]
        parts = await self._ready(claims)
        asked = [(part.name, part.window, 0, NO_LIMIT) for part in parts]
        code, *facts = await self._link.ask(("take", asked))
        if code == RECOVERING:
            raise StoreUnavailable(NOT_ALL_BACK)
        return standings_of(claims, facts, self.wall())

    async def learn(self, limits: Sequence[Limit]) -> None:
        with suppress(StoreUnavailable, LedgerUnavailable):
            await self._ready([Claim(limit, 0) for limit in limits])

    async def _take(
        self, id: str, claims: Sequence[Claim], scopes: tuple[Scope, ...]
    ) -> Standings | Refusal:
        if id in self._held:
            return await self.standings([claim.limit for claim in claims])
        answer: asyncio.Future[Standings | Refusal] = asyncio.get_running_loop().create_future()
        take = Take(id, claims, scopes, answer)
        if not claims:
            self._hold(take, self._now())
            return ()
        try:
            return await self._ask(take, await self._ready(claims))
        except StoreUnavailable:
            match self._on_failure():
                case "leased":
                    return await self._take_lease(take)
                case "open":
                    self._hold(take, self._now())
                    return ()
                case "closed":
                    raise

    async def _ask(self, take: Take, parts: Sequence[Part]) -> Standings | Refusal:
        asked = [
            (part.name, part.window, claim.amount, claim.limit.most, int(_is_held(claim.limit)))
            for claim, part in zip(take.claims, parts, strict=True)
        ]
        self._link.put(
            Operation(
                ("take", asked),
                lambda result, moment: self._answered(take, result, moment),
                lambda: self._not_answered(take),
            )
        )
        try:
            return await take.answer
        except asyncio.CancelledError:
            if take.answer.cancelled():
                self._left.add(take.id)
            raise

    def _answered(self, take: Take, result: Sequence[int], moment: Moment) -> None:
        code, *facts = result
        if code == TAKEN:
            self._hold(take, moment)
        if take.id in self._left:  # nobody waits for it any more
            self._left.discard(take.id)
            self._let_go(take.id)
        if take.answer.done():
            return
        wall_s = moment.at_us / US
        match code:
            case _ if code == TAKEN:
                take.answer.set_result(standings_of(take.claims, facts, wall_s))
            case _ if code == REFUSED:
                take.answer.set_result(refusal_of(take.claims, facts, wall_s))
            case _:
                take.answer.set_exception(StoreUnavailable(NOT_ALL_BACK))

    def _not_answered(self, take: Take) -> None:
        self._left.discard(take.id)
        if not take.answer.done():
            take.answer.set_exception(StoreUnavailable(self._link.trouble))

    def _hold(self, take: Take, moment: Moment, local: MemoryStore | None = None) -> None:
        """Mirror what was taken."""
        held = []
        for claim in take.claims:
            part = self._parts.find(claim.limit)
            if _is_held(claim.limit):
                part.open += claim.amount
                held.append((part, claim.amount))
            elif part.counts:
                part.add(claim.amount, moment.at_us, moment.labels)
        self._held[take.id] = Held(tuple(held), take.scopes, local)

    def _let_go(self, id: str) -> None:
        """Give back what was taken for somebody who has left."""
        held = self._held.pop(id, None)
        if held is None or not held.held:
            return
        for part, amount in held.held:
            part.open -= amount
        if self._link.up:
            self._link.put(_settlement(held, [], self._now().labels))

    async def _take_lease(self, take: Take) -> Standings | Refusal:
        """Let in what fits into the leases. Raises StoreUnavailable for what does not."""
        in_force = self._clock.now() - self._link.heard_s < LEASE_S
        local = self._local
        own = [replace(each, limit=self._cut(each.limit, in_force)) for each in take.claims]
        answer = await local.reserve(take.id, own, take.scopes)
        if isinstance(answer, Refusal):
            if answer.limit.scope.kind is ScopeKind.TARGET:
                return answer
            raise StoreUnavailable(self._link.trouble)
        self._hold(take, self._now(), local)
        return ()

    def _cut(self, limit: Limit, in_force: bool) -> Limit:
        # A deployment's own limit protects no money: what it refuses, its provider would refuse.
        if limit.scope.kind is ScopeKind.TARGET:
            return limit
        return replace(limit, most=self._parts.find(limit).lease if in_force else 0)

    def _now(self) -> Moment:
        wall_s = self.wall()
        return Moment(int(wall_s * US), labels_at(wall_s))

    async def _ready(self, claims: Sequence[Claim]) -> list[Part]:
        """Return the parts of the claims, once Redis has what the ledger knows of their past."""
        parts = [self._parts.find(claim.limit) for claim in claims]
        for claim, part in zip(claims, parts, strict=True):
            part.most, part.touched_s = claim.limit.most, self._clock.now()
            if claim.limit.most >= LEAST_LEASED and claim.limit.scope.kind is not ScopeKind.TARGET:
                self._leased.add(part)
        await self._past.tell(parts)
        return parts

    def _words(self, labels: Labels) -> Iterable[Words]:
        """Return all that Redis should know of this process."""
        now_us = int(self.wall() * US)
        for part in self._parts.all():
            if part.window is Window.MINUTE:
                part.forget(now_us)
                yield entries_of(self._link.owner, part)
            yield part.words(labels)

    def _heard_of_link(self, why: str | None) -> None:
        if why is not None:
            self._local = MemoryStore(self._clock, NoHistory())
        self._told(why)

    async def _beat(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                self._renew()
                await self._link.ask(("beat",))
            await self._clock.sleep(BEAT_S)

    def _renew(self) -> None:
        """Ask for a lease of every limit that was asked for lately, and give back the others."""
        since_s = self._clock.now() - LEASED_FOR_S
        leased = self._on_failure() == "leased"
        for part in tuple(self._leased)[:MOST_LEASES]:
            wanted = leased and part.touched_s > since_s
            if not wanted and not part.lease:
                self._leased.discard(part)
                continue
            words = ("lease", part.name, part.window, part.most if wanted else 0)
            self._link.put(Operation(words, part.grant))


def _is_held(limit: Limit) -> bool:
    """Say whether it is given back one day; a request that is made counts whatever comes of it."""
    return limit.unit is not Unit.REQUESTS


def _settlement(held: Held, used: Sequence[tuple[Part, int]], labels: Labels) -> Operation:
    """Return the operation that tells what the mirror knows already."""

    def done(_: object, moment: Moment) -> None:
        for part, amount in used:
            if moment.labels.of(part.window) != labels.of(part.window):
                # Midnight came between: it counts for the day of Redis, not for the one before.
                part.add(amount, moment.at_us, moment.labels)

    releases = [(part.name, amount) for part, amount in held.held]
    spent = [(part.name, part.window, amount) for part, amount in used]
    return Operation(("settle", releases, spent), done, mirrored=True)
