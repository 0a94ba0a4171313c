"""Gauges of what is left, and none where nobody can tell: a scrape neither fails nor hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from proxy.allowance import Allowances
from proxy.limits import Limit, Standing
from proxy.metrics import Metrics
from proxy.policy import BudgetUsd, Limits
from proxy.remaining import SLICE, Remaining
from proxy.store import LedgerUnavailable
from proxy.store.memory import MemoryStore
from proxy.store.port import Standings, StoreUnavailable
from tests.fakes import FakeClock, FakeLedger

pytestmark = pytest.mark.anyio

ALLOWANCES = Allowances(
    keys={"web": Limits(rpm=60, budget_usd=BudgetUsd(month=1.5))},
    teams={"product": Limits(tpd=1000)},
    users={"ann": Limits(rpm=5)},
    models={"claude-*": Limits(max_parallel=3)},
)
GAUGES = {
    ("key", "web", "rpm"): 60.0,
    ("key", "web", "budget_usd.month"): 1.5,
    ("team", "product", "tpd"): 1000.0,
    ("model", "claude-*", "max_parallel"): 3.0,
}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class FakeStore(MemoryStore):
    """Tells nothing while there is trouble: an error, or a wait without an end."""

    def __init__(self, trouble: Exception | asyncio.Event | None = None) -> None:
        self.ledger = FakeLedger()
        super().__init__(FakeClock(), self.ledger)
        self.trouble = trouble
        self.asked = 0

    async def standings(self, limits: Sequence[Limit]) -> Standings:
        self.asked += 1
        if isinstance(self.trouble, Exception):
            raise self.trouble
        if self.trouble is not None:
            await self.trouble.wait()
        return await super().standings(limits)


def gauges(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    return {
        (sample.labels["scope"], sample.labels["name"], sample.labels["limit"]): sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name == "mobius_quota_remaining"
    }


async def test_every_limit_that_names_somebody_has_a_gauge_and_no_end_user_has() -> None:
    metrics, store = Metrics(FakeClock()), FakeStore()
    await Remaining(store, metrics).show(ALLOWANCES)
    assert gauges(metrics) == GAUGES


async def test_what_was_used_before_is_not_left_and_money_is_in_dollars() -> None:
    metrics, store = Metrics(FakeClock()), FakeStore()
    store.ledger.past = 400
    await Remaining(store, metrics).show(ALLOWANCES)
    found = gauges(metrics)
    assert found["team", "product", "tpd"] == 600
    assert found["key", "web", "budget_usd.month"] == pytest.approx(1.5 - 400e-9, abs=1e-12)


async def test_there_is_none_for_a_limit_that_the_file_no_longer_has() -> None:
    metrics, store = Metrics(FakeClock()), FakeStore()
    remaining = Remaining(store, metrics)
    await remaining.show(ALLOWANCES)
    await remaining.show(Allowances(teams=ALLOWANCES.teams))
    assert gauges(metrics) == {("team", "product", "tpd"): 1000}
    await remaining.show(Allowances())
    assert gauges(metrics) == {}
    assert store.asked == 2


async def test_of_many_limits_a_few_are_asked_for_at_a_time() -> None:
    metrics, store = Metrics(FakeClock()), FakeStore()
    keys = {f"key-{number}": Limits(rpd=number) for number in range(2 * SLICE + 1)}
    await Remaining(store, metrics).show(Allowances(keys=keys))
    assert store.asked == 3
    assert gauges(metrics) == {("key", name, "rpd"): own.rpd for name, own in keys.items()}


@pytest.mark.parametrize(
    "trouble",
    [StoreUnavailable("no connection"), LedgerUnavailable("the disk is full"), asyncio.Event()],
    ids=lambda trouble: type(trouble).__name__,
)
async def test_a_store_that_cannot_tell_or_does_not_answer_leaves_no_gauge(
    trouble: Exception | asyncio.Event,
) -> None:
    metrics, store = Metrics(FakeClock()), FakeStore()
    remaining = Remaining(store, metrics, patience_s=0)
    metrics.remaining([Standing(limit, 0, 0.0) for limit in ALLOWANCES.configured()])
    assert gauges(metrics) == GAUGES
    store.trouble = trouble
    await remaining.show(ALLOWANCES)
    assert gauges(metrics) == {}
    store.trouble = None
    await Remaining(store, metrics).show(ALLOWANCES)
    assert gauges(metrics) == GAUGES
