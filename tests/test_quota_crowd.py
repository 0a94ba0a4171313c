"""Many workers at once on one gateway's quota: nobody too many, nobody turned away for nothing.

What is allowed is counted beside the store, at the moment in which the store decides: between two
awaits nothing else runs, so both see the same.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from proxy.limits import Claim, Limit, Refusal, Scope, ScopeKind, Spent, Unit, Window
from proxy.store.memory import MemoryStore
from proxy.store.port import Standings
from tests.fakes import FakeClock
from tests.store.stores import FakeHistory, budget, parallel, rpd, rpm, tpd, tpm

WORKERS = 32
SEED = 20_263
KEYS = [Scope(ScopeKind.KEY, f"key-{number}") for number in range(4)]
TEAM = Scope(ScopeKind.TEAM, "product")
DAY_S = 86_400


def limits_of(key: Scope) -> tuple[list[Limit], list[Limit]]:
    admission = [rpm(40, key), rpd(900, key), parallel(5, key), rpm(120, TEAM), parallel(14, TEAM)]
    spending = [tpm(20_000, key), tpd(500_000, TEAM), budget(Window.DAY, 900_000, TEAM)]
    return admission, spending


@dataclass
class Ruled:
    """Counts by itself what each limit has given out, and judges every decision."""

    clock: FakeClock
    entries: dict[Limit, list[tuple[float, float, int]]] = field(default_factory=dict)
    open: Counter[Limit] = field(default_factory=Counter)
    over: int = 0
    wronged: int = 0
    decided: Counter[str] = field(default_factory=Counter)

    def used(self, limit: Limit) -> int:
        now_s, wall_s = self.clock.now(), self.clock.wall()
        day_s = wall_s - wall_s % DAY_S
        kept = [
            entry
            for entry in self.entries.get(limit, ())
            if (entry[0] > now_s - 60 if limit.window is Window.MINUTE else entry[1] >= day_s)
        ]
        self.entries[limit] = kept
        return self.open[limit] + sum(amount for _, _, amount in kept)

    def judge(self, claims: Sequence[Claim], answer: Standings | Refusal) -> bool:
        """Take note of a decision; say whether it let somebody in."""
        full = any(self.used(each.limit) + each.amount > each.limit.most for each in claims)
        refused = isinstance(answer, Refusal)
        self.over += full and not refused
        self.wronged += refused and not full
        self.decided["refused" if refused else "let in"] += 1
        if refused:
            return False
        for each in claims:
            if each.limit.unit is Unit.REQUESTS:
                self.add(each.limit, each.amount)
            else:
                self.open[each.limit] += each.amount
        return True

    def add(self, limit: Limit, amount: int) -> None:
        if amount:
            entry = (self.clock.now(), self.clock.wall(), amount)
            self.entries.setdefault(limit, []).append(entry)

    def settle(self, claims: Sequence[Claim], spent: Spent) -> None:
        for each in claims:
            self.open[each.limit] -= each.amount
            self.add(each.limit, spent.of(each.limit.unit))


class Crowd:
    def __init__(self, operations: int) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock, FakeHistory())
        self.ruled = Ruled(self.clock)
        self.left = operations
        self.most_usd = 0

    async def run(self) -> None:
        await asyncio.gather(*(self._work(number) for number in range(WORKERS)))

    async def _work(self, number: int) -> None:
        chance = random.Random(SEED + number)  # noqa: S311  # what happens is to happen again
        count = 0
        while self.left > 0:
            count += 1
            await asyncio.sleep(0)
            await self._request(f"{number}-{count}", chance)
            if chance.random() < 0.2:
                self.clock.pass_(chance.choice([0.1, 1.0, 7.0, 30.0, 600.0]))

    async def _request(self, id: str, chance: random.Random) -> None:
        admission, spending = limits_of(chance.choice(KEYS))
        self.left -= 1
        if not self.ruled.judge(
            [Claim(limit, 1) for limit in admission], await self.store.admit(id, admission)
        ):
            return
        for attempt in range(chance.randrange(1, 3)):
            await self._attempt(f"{id}.{attempt}", spending, chance)
        self.left -= 1
        await self.store.leave(id)
        for limit in admission:
            self.ruled.open[limit] -= limit.unit is Unit.PARALLEL

    async def _attempt(self, id: str, spending: list[Limit], chance: random.Random) -> None:
        tokens, nano_usd = chance.randrange(1, 3000), chance.randrange(1, 5000)
        claims = [
            Claim(limit, tokens if limit.unit is Unit.TOKENS else nano_usd) for limit in spending
        ]
        scopes = list({limit.scope: None for limit in spending})
        self.left -= 1
        if not self.ruled.judge(claims, await self.store.reserve(id, claims, scopes)):
            return
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        # Tokens may turn out to be more than was thought; money never does.
        spent = Spent(chance.randrange(2 * tokens), chance.randrange(nano_usd + 1))
        self.left -= 1
        for _ in range(chance.randrange(1, 3)):
            await self.store.settle(id, spent)
        self.ruled.settle(claims, spent)
        self.most_usd = max(self.most_usd, self.ruled.used(spending[-1]))


@pytest.mark.parametrize(
    "operations",
    [20_000, pytest.param(200_000, marks=[pytest.mark.proof, pytest.mark.timeout(900)])],
)
def test_a_crowd_is_let_in_exactly_as_far_as_the_limits_go(operations: int) -> None:
    crowd = Crowd(operations)
    asyncio.run(crowd.run())
    assert (crowd.ruled.over, crowd.ruled.wronged) == (0, 0)
    assert crowd.most_usd <= 900_000
    assert min(crowd.ruled.decided.values()) > operations / 20
    assert all(each == 0 for each in crowd.ruled.open.values())
