"""Ten thousand requests to targets of known speed: each strategy does what its name says."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import count

import pytest

from proxy.errors import UpstreamFailure
from proxy.facts import ModelFacts, Price, Rates
from proxy.health import Health
from proxy.policy import MobiusPolicy
from proxy.retry import Kind
from proxy.routing import plan_ring
from proxy.types import Group, Strategy, Target
from tests.fakes import FakeClock, target

REQUESTS = 10_000
PER_S = 20.0
POLICY = MobiusPolicy()
SPEEDS_S = {"fast": 0.2, "middling": 0.6, "slow": 2.0}


class World:
    """Requests that come evenly, and targets that take their time; one may break or slow down."""

    def __init__(self, strategy: Strategy, targets: tuple[Target, ...]) -> None:
        self.clock = FakeClock()
        self.health = Health(self.clock)
        self.group = Group("m", targets, strategy)
        self.asked: list[str] = []
        self.most_at_once: Counter[str] = Counter()
        self.failing: set[str] = set()
        self.took_s = dict(SPEEDS_S)
        self._random = random.Random(7)  # noqa: S311  # nothing secret hangs on it
        self._ends: list[tuple[float, int, ExitStack]] = []
        self._under_way: Counter[str] = Counter()
        self._numbers = count()

    def run(self, requests: int = REQUESTS) -> Counter[str]:
        """Return how often each target was asked first."""
        start = len(self.asked)
        for _ in range(requests):
            self.clock.pass_(1 / PER_S)
            while self._ends and self._ends[0][0] <= self.clock.now():
                heapq.heappop(self._ends)[2].close()
            self._ask()
        return Counter(self.asked[start:])

    def _ask(self) -> None:
        plan = plan_ring(
            (self.group,),
            lambda each: self.health.standing(each, POLICY),
            self._random.random,
            turn=len(self.asked),
        )
        first = plan.targets[0]
        self.asked.append(first.label)
        if first.label in self.failing:
            with suppress(UpstreamFailure), self.health.watch(first, POLICY, streamed=True):
                raise UpstreamFailure("down", kind=Kind.TRANSIENT)
            return
        owed = ExitStack()
        watch = owed.enter_context(self.health.watch(first, POLICY, streamed=True))
        assert watch is not None
        took_s = self.took_s[first.label]
        owed.callback(self._leave, first.label)
        # Told when it ends: its first token is all that it says.
        owed.callback(watch.answered, streamed=True)
        self._under_way[first.label] += 1
        self.most_at_once[first.label] = max(
            self.most_at_once[first.label], self._under_way[first.label]
        )
        heapq.heappush(self._ends, (self.clock.now() + took_s, next(self._numbers), owed))

    def _leave(self, name: str) -> None:
        self._under_way[name] -= 1


def world(strategy: Strategy, **fields: object) -> World:
    return World(strategy, tuple(target(name, **fields) for name in SPEEDS_S))


@pytest.mark.parametrize("strategy", [Strategy.SIMPLE_SHUFFLE, Strategy.ROUND_ROBIN])
def test_a_shuffle_and_turns_ask_all_alike(strategy: Strategy) -> None:
    asked = world(strategy).run()
    assert all(abs(asked[name] - REQUESTS / 3) < REQUESTS * 0.02 for name in SPEEDS_S), asked


def test_turns_are_exact_and_follow_weights() -> None:
    asked = world(Strategy.ROUND_ROBIN).run(9_999)
    assert set(asked.values()) == {3_333}
    weighted = World(
        Strategy.ROUND_ROBIN,
        (target("fast", weight=5.0), target("middling", weight=3.0), target("slow", weight=2.0)),
    )
    asked = weighted.run()
    assert [round(asked[name] / REQUESTS, 2) for name in SPEEDS_S] == [0.5, 0.3, 0.2]


def test_health_based_asks_the_first_until_it_fails() -> None:
    subject = world(Strategy.HEALTH_BASED)
    assert subject.run(1_000) == {"fast": 1_000}
    subject.failing = {"fast"}
    asked = subject.run(1_000)
    assert asked["middling"] > 900
    assert asked["slow"] == 0


def test_latency_based_asks_the_fastest_most_and_follows_it() -> None:
    subject = world(Strategy.LATENCY_BASED)
    asked = subject.run()
    assert asked["fast"] > 0.55 * REQUESTS
    assert asked["fast"] > asked["middling"] > asked["slow"]
    subject.took_s["fast"] = 5.0  # it degrades
    asked = subject.run()
    assert asked["middling"] > 0.5 * REQUESTS
    assert asked["fast"] < 0.1 * REQUESTS
    subject.took_s["fast"] = 0.2  # and recovers
    subject.run()
    assert subject.run(2_000)["fast"] > 1_000


def test_latency_based_never_sends_a_crowd_to_one_that_nobody_knows() -> None:
    subject = world(Strategy.LATENCY_BASED)
    subject.took_s["slow"] = 60.0
    asked = subject.run(600)
    assert asked["slow"] <= 2


@pytest.mark.parametrize("strategy", list(Strategy))
def test_one_that_hangs_is_gone_round_before_anybody_has_given_it_up(strategy: Strategy) -> None:
    subject = world(strategy)
    subject.run(1_000)
    subject.took_s["fast"] = 1e6
    asked = subject.run(600)  # 30 seconds
    assert asked["fast"] < 0.1 * 600, asked


def test_latency_based_spreads_the_load_over_those_that_are_alike() -> None:
    subject = world(Strategy.LATENCY_BASED)
    subject.took_s = {"fast": 0.50, "middling": 0.52, "slow": 2.0}
    asked = subject.run()
    assert abs(asked["fast"] - asked["middling"]) < 0.1 * REQUESTS, asked
    assert asked["slow"] < 0.05 * REQUESTS


def test_latency_based_tries_a_slow_one_again_with_one_request() -> None:
    subject = world(Strategy.LATENCY_BASED)
    subject.took_s["slow"] = 20.0
    asked = subject.run()
    assert asked["slow"] > 1
    assert subject.most_at_once["slow"] == 1


def test_least_busy_keeps_as_many_under_way_at_each() -> None:
    subject = world(Strategy.LEAST_BUSY)
    asked = subject.run()
    assert max(subject.most_at_once.values()) - min(subject.most_at_once.values()) <= 1
    # As many at once means the more in all, the faster it is.
    assert asked["fast"] > 2 * asked["middling"] > 4 * asked["slow"]


def test_least_busy_keeps_as_many_more_under_way_as_the_weights_say() -> None:
    weights = {"fast": 1.0, "middling": 1.0, "slow": 4.0}
    subject = World(
        Strategy.LEAST_BUSY, tuple(target(name, weight=weights[name]) for name in SPEEDS_S)
    )
    subject.took_s = dict.fromkeys(SPEEDS_S, 3.0)
    subject.run()
    assert all(abs(subject.most_at_once[name] - 10 * weights[name]) <= 1 for name in weights)


def test_cost_based_asks_the_cheapest_and_the_unknown_last() -> None:
    def costing(name: str, cost: int | None) -> Target:
        price = None if cost is None else Price((Rates(cost, 3 * cost),))
        return target(name, facts=ModelFacts(price=price))

    subject = World(
        Strategy.COST_BASED, (costing("fast", None), costing("middling", 9), costing("slow", 4))
    )
    assert subject.run(1_000) == {"slow": 1_000}
    subject.failing = {"slow"}
    assert subject.run(1_000)["middling"] > 900


@pytest.mark.parametrize("strategy", [s for s in Strategy if s is not Strategy.USAGE_BASED])
def test_whatever_the_strategy_one_that_fails_is_seldom_asked(strategy: Strategy) -> None:
    subject = world(strategy)
    subject.run(300)
    subject.failing = {"fast"}
    asked = subject.run(3_000)
    assert asked["fast"] < 0.05 * 3_000, asked
