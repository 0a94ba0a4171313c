"""
What was used before: told to Redis from this replica's ledger, once for each counter and epoch.

A process tells what it settled itself before a limit came with a live edit, and what processes
took that are gone. Those that are alive speak for themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from proxy.limits import ScopeKind, Window
from proxy.store.port import SharedHistory
from proxy.store.redis_link import Operation, RedisLink, Words
from proxy.store.redis_part import Part
from proxy.store.windows import Labels, bounds, labels_at

US = 1_000_000
MINUTE_S = 60.0


class Past:
    def __init__(self, link: RedisLink, history: SharedHistory) -> None:
        self._link = link
        self._history = history

    async def tell(self, parts: Iterable[Part]) -> None:
        """
        Return once what the ledger knows of these counters is in Redis or on its way there.

        While Redis is gone nothing is told. Raises LedgerUnavailable and StoreUnavailable.
        """
        loading = [
            part.loading or self._load(part)
            for part in parts
            if part.epoch != self._link.epoch and self._link.up
        ]
        if loading:
            # Shielded: others wait for the same past, and this caller may be leaving.
            every = asyncio.gather(*loading, return_exceptions=True)
            for outcome in await asyncio.shield(every):
                if isinstance(outcome, BaseException):
                    raise outcome

    def _load(self, part: Part) -> asyncio.Task[None]:
        task = asyncio.create_task(self._work(part))
        part.loading = task

        def loaded(_: object) -> None:
            part.loading = None

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
                self._link.put(Operation(part.words(labels), mirrored=True))
        for owner, amount in used.items():
            words = ("inherit", owner, part.name, part.window, label, amount)
            self._link.put(Operation(words))
        part.epoch = epoch

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
                self._link.put(Operation(entries_of(self._link.owner, part), mirrored=True))
        for owner, entries in by_owner.items():
            self._link.put(Operation(("entries", owner, part.name, entries)))
        part.epoch = epoch


def entries_of(owner: str, part: Part) -> Words:
    """Return the operation that has Redis know exactly these entries of the last minute."""
    return ("entries", owner, part.name, list(part.entries))
