"""Usage-based routing over half a simulated hour: a real store in memory, and nobody sleeps."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque

from proxy.headroom import Headroom
from proxy.leeway import Need
from proxy.limits import Claim, Limit, Refusal, Scope, ScopeKind, Spent, Unit, Window
from proxy.routing import plan_ring
from proxy.standing import Standing
from proxy.store.memory import MemoryStore
from proxy.types import Group, Strategy, Target
from tests.fakes import FakeClock, FakeLedger, target

REQUESTS = 10_000
TAKES_S = 2.0  # from an attempt's reservation to its settlement
# Tokens are what limits the last; for 100 of them a request the others have plenty.
TARGETS = (
    target("small", rpm=60, tpm=1_000_000),
    target("large", rpm=240, tpm=1_000_000),
    target("tokens", rpm=100_000, tpm=12_000),
)
TOKENS = 100
CAN_TAKE = {"small": 60, "large": 240, "tokens": 120}  # requests a minute


class World:
    """A group of targets, each with the window it really had, kept here by a second hand."""

    def __init__(self, strategy: Strategy) -> None:
        self.clock = FakeClock()
        self.headroom = Headroom(self.clock)
        self.store = MemoryStore(self.clock, FakeLedger())
        self.group = Group("m", TARGETS, strategy)
        self.chance = random.Random(7).random  # noqa: S311 - a seed, so that the run is the same
        self.asked: Counter[str] = Counter()
        self.refused = 0  # a target was asked for room that it did not have
        self.most: Counter[str] = Counter()  # in any one minute
        self._minutes: dict[str, deque[float]] = {each.label: deque() for each in TARGETS}
        self._open: deque[tuple[float, str, Target]] = deque()

    async def run(self, per_minute: float) -> None:
        """Ask so often, evenly, until all requests were made."""
        for number in range(REQUESTS):
            self.clock.pass_(60.0 / per_minute)
            await self._settle()
            await self._ask(str(number))

    async def _ask(self, id: str) -> None:
        for which in plan_ring([self.group], self._standing, self.chance).targets:
            scope = Scope(ScopeKind.TARGET, which.identity)
            rpm = Limit(scope, Unit.REQUESTS, Window.MINUTE, which.rpm or 0, "rpm")
            tpm = Limit(scope, Unit.TOKENS, Window.MINUTE, which.tpm or 0, "tpm")
            # Twice of what it takes in the end is set aside, as for an answer of unknown length.
            claims = [Claim(rpm, 1), Claim(tpm, 2 * TOKENS)]
            answer = await self.store.reserve(id, claims, [scope])
            if isinstance(answer, Refusal):
                self.refused += 1
                self.headroom.heard([answer.standing()])
                continue
            self.headroom.heard(answer)
            self._note(which)
            self._open.append((self.clock.now() + TAKES_S, id, which))
            return

    async def _settle(self) -> None:
        while self._open and self._open[0][0] <= self.clock.now():
            _, id, which = self._open.popleft()
            await self.store.settle(id, Spent(tokens=TOKENS))
            self.headroom.settled(which, freed_tokens=TOKENS)

    def _standing(self, which: Target) -> Standing:
        return Standing(room=self.headroom.room(which, lambda target: Need(), cap_s=60.0))

    def _note(self, which: Target) -> None:
        self.asked[which.label] += 1
        minute = self._minutes[which.label]
        minute.append(self.clock.now())
        while minute[0] <= self.clock.now() - 60.0:
            minute.popleft()
        self.most[which.label] = max(self.most[which.label], len(minute))


def simulated(per_minute: float, strategy: Strategy = Strategy.USAGE_BASED) -> World:
    world = World(strategy)
    asyncio.run(world.run(per_minute))
    return world


def test_as_long_as_there_is_room_nobody_is_asked_beyond_its_limit() -> None:
    world = simulated(0.95 * sum(CAN_TAKE.values()))
    assert world.asked.total() == REQUESTS
    assert world.refused == 0
    assert all(world.most[label] <= most for label, most in CAN_TAKE.items())


def test_each_gets_a_share_in_proportion_to_its_limits() -> None:
    world = simulated(0.6 * sum(CAN_TAKE.values()))
    for label, most in CAN_TAKE.items():
        expected = REQUESTS * most / sum(CAN_TAKE.values())
        assert abs(world.asked[label] - expected) < 0.05 * expected, world.asked


def test_a_shuffle_would_not_have_kept_to_them() -> None:
    assert simulated(0.95 * sum(CAN_TAKE.values()), Strategy.SIMPLE_SHUFFLE).refused > 100


def test_beyond_their_limits_all_of_what_there_is_room_for_is_answered() -> None:
    world = simulated(2.0 * sum(CAN_TAKE.values()))
    minutes = REQUESTS / (2.0 * sum(CAN_TAKE.values()))
    assert all(world.most[label] <= most for label, most in CAN_TAKE.items())
    assert world.asked.total() > 0.95 * minutes * sum(CAN_TAKE.values())
