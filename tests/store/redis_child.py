"""
A replica that makes operations: `python -m tests.store.redis_child URL SEED COUNT HOW FILE`.

Every step that its Redis answered is a line of the file: when it was carried out by the clock of
Redis, its place in the batch, the step and the answer. What the store said to its callers is
printed at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any, cast

from proxy.clock import SystemClock
from proxy.limits import Claim, Limit, Refusal, Scope, ScopeKind, Spent, Unit, Window
from proxy.policy import RedisSettings
from proxy.store.redis import OnFailure, RedisStore
from proxy.store.redis_client import open_client
from proxy.store.redis_link import Spans
from tests.store.redis_stand import FakeSharedHistory
from tests.store.stores import limit

PROCESSES, WORKERS = 4, 32
KEYS = 7  # one for each kind of limit
MOST_TOKENS = 400


def limits_of(scope: Scope, tight: int, scale: int) -> tuple[list[Limit], list[Limit]]:
    """The limits of a request and those of an attempt; one of them is far tighter than the rest."""
    mosts = [m * scale for m in (700, 1_500, 1, 60_000, 300_000, 200_000_000, 400_000_000)]
    mosts[2] = 9
    wide = [most if place == tight else most * 20 for place, most in enumerate(mosts)]
    kinds = [
        *((Unit.REQUESTS, Window.MINUTE), (Unit.REQUESTS, Window.DAY), (Unit.PARALLEL, Window.NOW)),
        *((Unit.TOKENS, Window.MINUTE), (Unit.TOKENS, Window.DAY)),
        *((Unit.NANO_USD, Window.DAY), (Unit.NANO_USD, Window.TOTAL)),
    ]
    limits = [limit(*kind, most, scope) for kind, most in zip(kinds, wide, strict=True)]
    return limits[:3], limits[3:]


TEAM = Scope(ScopeKind.TEAM, "product")


class Spy:
    """The client, and a file of all that it was answered."""

    def __init__(self, client: Any, path: Path) -> None:
        self._client = client
        self._file = path.open("w")

    async def evalsha(self, *words: Any) -> Any:
        reply = await self._client.evalsha(*words)
        self._note(words, reply)
        return reply

    async def eval(self, *words: Any) -> Any:
        reply = await self._client.eval(*words)
        self._note(words, reply)
        return reply

    def _note(self, words: tuple[Any, ...], reply: Any) -> None:
        if reply[0] == b"OK":
            steps = json.loads(words[9])
            for place, (step, result) in enumerate(zip(steps, reply[5:], strict=True)):
                if step[0] in {"take", "settle", "lease", "retire"}:
                    self._file.write(json.dumps([reply[2], place, step, result]) + "\n")

    async def aclose(self) -> None:
        self._file.close()
        await self._client.aclose()


class Worker:
    def __init__(
        self, store: RedisStore, name: str, count: int, chance: random.Random, said: Counter[str]
    ) -> None:
        self._store = store
        self._name = name
        self._chance = chance
        self._scale = max(1, count * PROCESSES // 20_000)
        self._team = limits_of(TEAM, KEYS, self._scale)
        self.said = said

    async def request(self, number: int) -> None:
        key = self._chance.randrange(KEYS)
        scope = Scope(ScopeKind.KEY, f"k{key}")
        own = limits_of(scope, key, self._scale)
        id = f"{self._name}.{number}"
        if not self._count(await self._store.admit(id, [*own[0], *self._team[0]])):
            return
        try:
            for attempt in range(self._chance.choice([1, 1, 1, 2])):
                await self._attempt(f"{id}.{attempt}", [*own[1], *self._team[1]], scope)
        finally:
            await self._store.leave(id)

    async def _attempt(self, id: str, limits: list[Limit], scope: Scope) -> None:
        tokens = self._chance.randrange(1, MOST_TOKENS)
        nano = tokens * 1000
        claims = [Claim(each, tokens if each.unit is Unit.TOKENS else nano) for each in limits]
        asked = self._store.reserve(id, claims, [scope, TEAM])
        if not self._count(await asked):
            return
        await asyncio.sleep(self._chance.random() / 50)
        # An estimate of tokens may be too low, the bound of money never is.
        took = self._chance.choice([0, tokens // 2, tokens, tokens + 20])
        await self._store.settle(id, Spent(took, min(nano, took * 1000)))

    def _count(self, answer: object) -> bool:
        refused = isinstance(answer, Refusal)
        self.said["refused" if refused else "let in"] += 1
        return not refused


async def main(url: str, seed: int, count: int, how: str, path: Path) -> None:
    client = Spy(open_client(RedisSettings(url=url)), path)
    on_failure = cast("OnFailure", how)
    store = RedisStore(
        client,
        SystemClock(),
        FakeSharedHistory(),
        owner=f"child{seed}",
        on_failure=lambda: on_failure,
        spans=Spans(batch_s=1.4),  # a busy machine is no Redis that is gone
    )
    await store.open()
    said: Counter[str] = Counter()
    numbers = iter(range(count))

    async def work(place: int) -> None:
        chance = random.Random(seed * 1000 + place)  # noqa: S311  # which operations
        worker = Worker(store, f"{seed}.{place}", count, chance, said)
        for number in numbers:
            if said.total() >= count:
                return
            await worker.request(number)

    await asyncio.gather(*(work(place) for place in range(WORKERS)))
    await store.aclose()
    print(json.dumps(said))  # noqa: T201  # for the test that has started this


if __name__ == "__main__":
    asyncio.run(
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
    )
