"""Stores on a real Redis: each is a replica, with a ledger that is a list and short spans."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import redis.asyncio

from proxy.clock import Clock, SystemClock
from proxy.limits import Scope, Unit, Window
from proxy.policy import RedisSettings
from proxy.store.port import SharedHistory
from proxy.store.redis import OnFailure, RedisStore
from proxy.store.redis_client import open_client
from proxy.store.redis_link import PREFIX, Spans
from proxy.store.windows import US, labels_at

T = TypeVar("T")
# A batch may take its time: a machine that does a lot beside is no Redis that is gone.
SHORT = Spans(recovery_s=0.3, owner_s=1.0, lease_s=3600.0, beat_s=0.1, batch_s=0.4)
PAUSE_S = 0.02


@dataclass
class FakeSharedHistory:
    """What a replica's ledger would say: owner, moment since 1970 and amount, by scope and unit."""

    entries: dict[tuple[Scope, Unit], list[tuple[str, float, int]]] = field(default_factory=dict)
    asked: list[tuple[Scope, Unit, float]] = field(default_factory=list)
    error: Exception | None = None
    name: str = "books"  # of the ledger

    def replica_id(self) -> Awaitable[str]:
        return self._later(self.name)

    def note(self, scope: Scope, unit: Unit, owner: str, at: float, amount: int) -> None:
        self.entries.setdefault((scope, unit), []).append((owner, at, amount))

    def used_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Mapping[str, int]]:
        used: Counter[str] = Counter()
        for owner, _, amount in self._answer(scope, unit, since):
            used[owner] += amount
        return self._later(dict(used))

    def recent_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Sequence[tuple[str, float, int]]]:
        return self._later(self._answer(scope, unit, since))

    def _answer(self, scope: Scope, unit: Unit, since: float) -> list[tuple[str, float, int]]:
        self.asked.append((scope, unit, since))
        return [each for each in self.entries.get((scope, unit), ()) if each[1] >= since]

    async def _later(self, answer: T) -> T:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return answer


class SteppedClock(SystemClock):
    """The clock of a machine that somebody sets."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead_s


@dataclass
class Replica:
    """One store on the Redis, with what it was told and what it learns from."""

    store: RedisStore
    client: Any
    history: SharedHistory
    owner: str
    told: list[str | None]
    on_failure: list[OnFailure]

    def fails(self, how: OnFailure) -> None:
        self.on_failure[:] = [how]

    async def cut(self) -> None:
        """It is as if it was killed: nothing is said to Redis any more."""
        for task in (self.store._beats, self.store._link._task):
            assert task is not None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self.client.aclose()


@asynccontextmanager
async def replica(
    url: str,
    owner: str | None = None,
    *,
    clock: Clock | None = None,
    history: SharedHistory | None = None,
    on_failure: OnFailure = "closed",
    spans: Spans = SHORT,
    dead: Sequence[str] = (),
) -> AsyncIterator[Replica]:
    client = open_client(RedisSettings(url=url))
    history = history or FakeSharedHistory()
    how: list[OnFailure] = [on_failure]
    told: list[str | None] = []
    owner = owner or os.urandom(4).hex()
    store = RedisStore(
        client,
        clock or SystemClock(),
        history,
        owner=owner,
        on_failure=lambda: how[0],
        told=told.append,
        spans=spans,
    )
    await store.open(dead)
    try:
        yield Replica(store, client, history, owner, told, how)
    finally:
        await store.aclose()


async def counters(url: str) -> dict[str, int]:
    """What Redis holds: what is open, leased and settled, by the name of the counter."""
    client = redis.asyncio.Redis.from_url(url, decode_responses=True)
    found: dict[str, int] = {}
    try:
        async for key in client.scan_iter(f"{PREFIX}*".replace("{", "\\{")):
            name = key.removeprefix(PREFIX)
            if name.startswith("h:"):
                of = await client.hgetall(key)
                found[f"open {name[2:]}"] = int(of.get("open", 0))
                found[f"lease {name[2:]}"] = int(of.get("lease", 0))
            elif name.startswith("s:"):
                found[name] = int(await client.hget(key, "sum") or 0)
            elif name.startswith("n:"):
                found[name] = int(await client.get(key) or 0)
    finally:
        await client.aclose()
    return {name: value for name, value in found.items() if value}


async def until(true: Callable[[], Awaitable[object]], timeout_s: float = 10.0) -> None:
    """It is true; AssertionError when it never was."""
    async with asyncio.timeout(timeout_s):
        while not await true():  # noqa: ASYNC110  # another process's doing
            await asyncio.sleep(PAUSE_S)


def mirrored(*replicas: Replica) -> dict[str, int]:
    """What these replicas hold by their own account, as `counters` names it."""
    found: Counter[str] = Counter()
    for each in replicas:
        labels = labels_at(each.store.wall())
        for part in each.store._parts.all():
            found[f"open {part.name}"] += part.open
            found[f"lease {part.name}"] += part.lease
            if part.window is Window.MINUTE:
                part.forget(int(each.store.wall() * US))
                found[f"n:{part.name}"] += sum(amount for _, amount in part.entries)
            elif label := labels.of(part.window):
                found[f"s:{part.name}:{label}"] += part.settled
    return {name: value for name, value in found.items() if value}


async def agree(url: str, *replicas: Replica) -> None:
    """Redis and the mirrors say the same, once what is on its way has arrived."""

    async def same() -> bool:
        return await counters(url) == mirrored(*replicas)

    try:
        await until(same, 3.0)
    except TimeoutError:
        assert await counters(url) == mirrored(*replicas)
