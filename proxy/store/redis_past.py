"""
What was used before: told to Redis from this replica's ledger, once for each counter and epoch.

A process tells what it settled itself before a limit came with a live edit, and what processes
took that are gone. Those that are alive speak for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from proxy.limits import ScopeKind, Window
from proxy.store.port import SharedHistory
from proxy.store.redis_link import Operation, RedisLink, Words
from proxy.store.redis_part import Part
from proxy.store.windows import US, Labels, bounds, labels_at

MINUTE_S = 60.0


class Past:
    def __init__(self, link: RedisLink, history: SharedHistory) -> None:
        self._link = link
        self._history = history
        self._buried: set[str] = set()  # in the epoch
        self._buried_in = ""

    async def tell(self, parts: Sequence[Part]) -> None:
        """
        Return once what the ledger knows of these counters is in Redis or on its way there.

        While Redis is gone nothing is told. Raises LedgerUnavailable and StoreUnavailable.
        """
        # Meanwhile Redis may come back empty once more.
        while loading := [part.loading or self._load(part) for part in parts if self._lacks(part)]:
            # Shielded: others wait for the same past, and this caller may be leaving.
            every = asyncio.gather(*loading, return_exceptions=True)
            for outcome in await asyncio.shield(every):
                if isinstance(outcome, BaseException):
                    raise outcome

    def _lacks(self, part: Part) -> bool:
        return part.epoch != self._link.epoch and self._link.up

    def _load(self, part: Part) -> asyncio.Task[None]:
        task = asyncio.create_task(self._work(part))
        part.loading = task

        def loaded(done: asyncio.Task[None]) -> None:
            part.loading = None
            if not part.known and (done.cancelled() or done.exception()):
                part.unlearn()

        task.add_done_callback(loaded)
        return task

    def _work(self, part: Part) -> Coroutine[Any, Any, None]:
        """Ask the ledger, now: what is settled from here on is added beside its answer."""
        epoch, wall_s = self._link.epoch, self._link.wall()
        scope, unit = part.scope, part.unit
        if part.window is Window.NOW or scope.kind is ScopeKind.TARGET:
            # Deployments are limited by the minute only, and the ledger has other names for them.
            return self._nothing(part, epoch)
        if part.window is Window.MINUTE:
            recent = self._history.recent_by_owner(scope, unit, since=wall_s - MINUTE_S)
            return self._minute(part, recent, epoch)
        since, _ = bounds(part.window, wall_s)
        used = self._history.used_by_owner(scope, unit, since=since)
        return self._calendar(part, used, epoch, labels_at(wall_s))

    async def _nothing(self, part: Part, epoch: str) -> None:
        part.known, part.epoch = True, epoch

    async def _calendar(
        self, part: Part, asked: Awaitable[Mapping[str, int]], epoch: str, labels: Labels
    ) -> None:
        used = dict(await asked)
        own = used.pop(self._link.owner, 0)
        part.turn(labels)
        label = labels.of(part.window)
        if not part.known:
            part.known = True
            if own and part.label == label:  # else midnight has come meanwhile
                part.settled += own
                self._link.tell(Operation(part.words(labels), mirrored=True))
        if part.window is Window.TOTAL and used:
            await self._fold(part, used, label)
        else:
            for owner, amount in used.items():
                self._bury(owner)
                words = ("inherit", owner, part.name, part.window, label, amount)
                self._put(words, lambda: _lack(part))
        part.epoch = epoch

    async def _fold(self, part: Part, used: Mapping[str, int], label: str) -> None:
        """Tell what all of them settled as one: what never ends would grow with every start."""
        replica = await self._history.replica_id()
        for owner in used:
            self._bury(owner)
        amount = sum(used.values())
        words = ("fold", replica, part.name, part.window, label, amount, list(used))
        self._put(words, lambda: _lack(part))

    async def _minute(
        self, part: Part, asked: Awaitable[Sequence[tuple[str, float, int]]], epoch: str
    ) -> None:
        by_owner: dict[str, list[tuple[int, int]]] = {}
        for owner, at_s, amount in await asked:
            by_owner.setdefault(owner, []).append((int(at_s * US), amount))
        own = by_owner.pop(self._link.owner, [])
        if not part.known:
            part.known = True
            if own:
                part.remember(own)
                self._link.tell(Operation(entries_of(self._link.owner, part), mirrored=True))
        for owner, entries in by_owner.items():
            self._bury(owner)
            self._put(("entries", owner, part.name, entries), lambda: _lack(part))
        part.epoch = epoch

    def _bury(self, owner: str) -> None:
        """Have Redis hold nothing more for a dead owner, before it is told what that settled."""
        if self._buried_in != self._link.epoch:
            self._buried_in, self._buried = self._link.epoch, set()
        if owner not in self._buried:
            self._buried.add(owner)
            self._put(("bury", owner), lambda: self._buried.discard(owner))

    def _put(self, words: Words, failed: Callable[[], None]) -> None:
        self._link.put(Operation(words, failed=failed))


def entries_of(owner: str, part: Part) -> Words:
    """Return the operation that has Redis know exactly these entries of the last minute."""
    return ("entries", owner, part.name, list(part.entries))


def _lack(part: Part) -> None:
    """Have the past of the part told again: nobody knows whether Redis has heard it."""
    part.epoch = ""
