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
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, TypeAlias

from proxy.clock import Clock
from proxy.limits import NOTHING, Claim, Limit, Refusal, Scope, ScopeKind, Spent, Window
from proxy.store import LedgerUnavailable
from proxy.store.port import SharedHistory, Standings, StoreUnavailable
from proxy.store.redis_answers import refusal_of, standings_of
from proxy.store.redis_lease import Lent, lend
from proxy.store.redis_link import SPANS, Moment, Operation, RedisLink, Spans, Words
from proxy.store.redis_part import Part, Parts
from proxy.store.redis_past import Past, entries_of
from proxy.store.redis_take import (
    NOTHING_HELD,
    Held,
    Take,
    adoption,
    is_held,
    look,
    note,
    settlement,
)
from proxy.store.windows import US, Labels, labels_at

LOOK_S = 0.25  # between looks whether an empty Redis has heard of everybody
MOST_SCOPES = 100_000
MOST_LEASES = 500  # that are renewed with one beat
LEAST_LEASED = 100  # of a smaller limit a hundredth is nothing
LEASED_FOR_S = 60.0  # after a limit was last asked for
# A process that is only cut off ends using its leases some time before Redis forgets them.
IN_FORCE = 0.9
SLICE = 50  # counters whose past is told together, between which others may use the ledger

# What `take` of the script says first.
REFUSED, TAKEN, RECOVERING = 0, 1, 2
NOT_ALL_BACK = "Redis came back empty a moment ago, and not every process has told its part yet"

OnFailure: TypeAlias = Literal["leased", "closed", "open"]


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
        spans: Spans = SPANS,
    ) -> None:
        self._clock = clock
        self._on_failure = on_failure
        self._spans = spans
        self._parts = Parts()
        self._held: dict[str, Held] = {}
        self._left: set[str] = set()  # ids whose asker went away before the answer came
        # That a lease is asked for, or held; the longest not renewed first.
        self._leased: dict[Part, None] = {}
        self._link = RedisLink(
            client,
            clock,
            owner=owner,
            resync=self._words,
            told=told,
            synced=self._recall,
            spans=spans,
        )
        self._past = Past(self._link, history)
        self._beats: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[None] | None = None

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
        tasks = [task for task in (self._beats, self._recalling) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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

    def adopt(self, id: str, claims: Sequence[Claim]) -> None:
        before = self._held.get(id, NOTHING_HELD)
        known = {part for part, _ in before.held}
        parts = zip(self._parts_of(claims), claims, strict=True)
        more = [(part, claim.amount) for part, claim in parts if part not in known]
        for part, amount in more:
            part.open += amount
        if more:
            self._held[id] = replace(before, held=(*before.held, *more))
            self._link.tell(adoption(more))

    def forget(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            part = self._parts.find(limit)
            if part.loading is None:
                part.unlearn()

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
        for lent in held.lent:
            lent.settle(spent, self._clock.now(), self.wall())
        if held.held or used:
            self._link.tell(settlement(held, used, moment.labels))

    async def standings(self, limits: Sequence[Limit]) -> Standings:
        claims = [Claim(limit, 0) for limit in limits]
        parts = self._parts_of(claims)
        await self._past.tell(parts)
        code, *facts = await self._link.ask(look(parts))
        if code == RECOVERING:
            raise StoreUnavailable(NOT_ALL_BACK)
        return standings_of(claims, facts, self.wall())

    async def learn(self, limits: Sequence[Limit]) -> None:
        with suppress(StoreUnavailable, LedgerUnavailable):
            await self._past.tell(self._parts_of([Claim(limit, 0) for limit in limits]))

    async def _take(
        self, id: str, claims: Sequence[Claim], scopes: tuple[Scope, ...]
    ) -> Standings | Refusal:
        if id in self._held:
            return await self.standings([claim.limit for claim in claims])
        answer: asyncio.Future[Standings | Refusal] = asyncio.get_running_loop().create_future()
        take = Take(id, claims, scopes, self._parts_of(claims), answer)
        if not claims:
            self._hold(take, self._now())
            return ()
        try:
            self._touch(take)
            await self._past.tell(take.parts)
            return await self._ask(take)
        except StoreUnavailable:
            match self._on_failure():
                case "leased":
                    return self._take_lease(take)
                case "open":
                    self._hold_alone(take)
                    return ()
                case "closed":
                    raise

    async def _ask(self, take: Take) -> Standings | Refusal:
        self._link.put(
            Operation(
                take.words(),
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

    def _hold(self, take: Take, moment: Moment, lent: tuple[Lent, ...] = ()) -> None:
        """Mirror what was taken."""
        held = []
        for claim, part in zip(take.claims, take.parts, strict=True):
            if is_held(claim.limit):
                part.open += claim.amount
                held.append((part, claim.amount))
            elif part.counts:
                part.add(claim.amount, moment.at_us, moment.labels)
        self._held[take.id] = Held(tuple(held), take.scopes, lent)

    def _hold_alone(self, take: Take, lent: tuple[Lent, ...] = ()) -> None:
        """Take without having asked Redis, which hears of it now or when it is back."""
        moment = self._now()
        self._hold(take, moment, lent)
        if take.claims:
            self._link.tell(note(take, moment.labels))

    def _let_go(self, id: str) -> None:
        """Give back what was taken for somebody who has left."""
        held = self._held.pop(id, None)
        if held is None or not held.held:
            return
        for part, amount in held.held:
            part.open -= amount
        self._link.tell(settlement(held, [], self._now().labels))

    def _take_lease(self, take: Take) -> Standings | Refusal:
        """Let in what fits into the leases. Raises StoreUnavailable for what does not."""
        now_s = self._clock.now()
        in_force = now_s - self._link.heard_s < IN_FORCE * self._spans.lease_s
        lent = lend(take.claims, take.parts, in_force=in_force, now_s=now_s, wall_s=self.wall())
        if lent is None:
            raise StoreUnavailable(self.trouble or NOT_ALL_BACK)
        if isinstance(lent, Refusal):
            return lent
        self._hold_alone(take, lent)
        return ()

    def _now(self) -> Moment:
        wall_s = self.wall()
        return Moment(int(wall_s * US), labels_at(wall_s))

    def _parts_of(self, claims: Sequence[Claim]) -> list[Part]:
        return [self._parts.find(claim.limit) for claim in claims]

    def _touch(self, take: Take) -> None:
        """Have leases of these limits asked for."""
        for claim, part in zip(take.claims, take.parts, strict=True):
            part.most, part.touched_s = claim.limit.most, self._clock.now()
            if claim.limit.most >= LEAST_LEASED and claim.limit.scope.kind is not ScopeKind.TARGET:
                self._leased.setdefault(part)

    def _words(self, labels: Labels) -> Iterable[Words]:
        """Return all that Redis should know of this process."""
        now_us = int(self.wall() * US)
        for part in self._parts.all():
            if part.window is Window.MINUTE:
                part.forget(now_us)
                yield entries_of(self._link.owner, part)
            yield part.words(labels)

    def _recall(self) -> None:
        """Begin to tell a Redis that has lost everything of all that the ledger knows."""
        lacking = [part for part in self._parts.all() if part.epoch != self._link.epoch]
        if lacking and (self._recalling is None or self._recalling.done()):
            self._recalling = asyncio.create_task(self._recalled(), name="tell Redis of the past")

    async def _recalled(self) -> None:
        # Whoever asks for one of them tries again, and is told what the trouble is.
        with suppress(StoreUnavailable, LedgerUnavailable):
            while self._link.up:
                parts = (part for part in self._parts.all() if part.epoch != self._link.epoch)
                some = list(islice(parts, SLICE))
                if not some:
                    return
                await self._past.tell(some)

    async def _beat(self) -> None:
        while True:
            with suppress(StoreUnavailable):
                self._renew()
                await self._link.ask(("beat",))
            self._parts.forget_users(MOST_SCOPES, int(self.wall() * US))
            await self._clock.sleep(self._spans.beat_s)

    def _renew(self) -> None:
        """Ask for a lease of every limit that was asked for lately, and give back the others."""
        since_s = self._clock.now() - LEASED_FOR_S
        leased = self._on_failure() == "leased"
        for part in list(islice(self._leased, MOST_LEASES)):
            del self._leased[part]
            wanted = leased and part.touched_s > since_s
            if not wanted and not part.lease:
                continue
            self._leased[part] = None
            if not wanted:
                part.lease = 0  # before Redis may give it to another
            words = ("lease", part.name, part.window, part.most if wanted else 0, part.lease)
            self._link.put(Operation(words, part.grant))
