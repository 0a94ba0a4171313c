"""
What quota and the ledger cost a request: their own CPU, all threads of it, and nothing else.

The same requests are made without quota in every round, and what that costs is taken off.
One request is admitted, one attempt reserved and recorded, settled and closed. Its key has limits
of requests and tokens a minute and a monthly budget, and its team has a budget, too. With Redis
that is a real server on this machine, whose own CPU is not counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.redis_server import redis_server
from proxy import heap
from proxy.accounts import Opening, open_accounts
from proxy.allowance import Allowances
from proxy.clock import SystemClock
from proxy.facts import ModelFacts, Price, Rates
from proxy.headroom import Headroom
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.policy import BudgetUsd, LedgerPolicy, Limits, MobiusPolicy, RedisSettings
from proxy.quota import Quota
from proxy.replies import Completion
from proxy.snapshot import Snapshot
from proxy.types import Call, Caller, Surface, Tally, Target

CONCURRENCY = (1, 16)
STORES = ("embedded", "redis")
WARM_UP = 200
CALLER = Caller("web", team="product")
MONTHLY = BudgetUsd(month=10**6)
LIMITS = Allowances(
    keys={"web": Limits(rpm=10**9, tpm=10**9, budget_usd=MONTHLY)},
    teams={"product": Limits(budget_usd=MONTHLY)},
)
TARGET = Target(
    label="bench-model/openai/bench-model",
    group="bench-model",
    provider="openai",
    model="bench-model",
    identity="bench",
    credential="bench",
    facts=ModelFacts(Price((Rates(prompt=2_500_000, completion=10_000_000),)), 128_000, 16_384),
)
BODY = {"model": "bench-model", "messages": [{"role": "user", "content": "Hello"}]}
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}


@dataclass(frozen=True, slots=True)
class QuotaSample:
    """One round of one store. `cpu_ms` is what it adds to a request."""

    round: int
    store: str
    concurrency: int
    requests: int
    cpu_ms: float


async def measure_quota(rounds: int, seconds: float, folder: Path) -> list[QuotaSample]:
    """Return the samples of all rounds, the stores one right after the other in each."""
    samples: list[QuotaSample] = []
    async with AsyncExitStack() as opened:
        url = opened.enter_context(redis_server(folder))
        stores = {"embedded": await opened.enter_async_context(_quota(folder / "one.db", None))}
        if url is not None:
            settings = RedisSettings(url=url)
            stores["redis"] = await opened.enter_async_context(_quota(folder / "two.db", settings))
        for quota in stores.values():
            await _spend(quota, 1, requests=WARM_UP)
        heap.keep()  # as a server does
        for number in range(1, rounds + 1):
            for concurrency in CONCURRENCY:
                count, cpu_s = await _spend(None, concurrency, seconds=seconds / 4)
                nothing_ms = cpu_s / count * 1000
                for name in sorted(stores, reverse=bool(number % 2)):
                    count, cpu_s = await _spend(stores[name], concurrency, seconds=seconds)
                    cpu_ms = cpu_s / count * 1000 - nothing_ms
                    samples.append(QuotaSample(number, name, concurrency, count, cpu_ms))
    return samples


@asynccontextmanager
async def _quota(path: Path, redis: RedisSettings | None) -> AsyncIterator[Quota]:
    clock = SystemClock()
    policy = MobiusPolicy(ledger=LedgerPolicy(path=str(path)))
    log = Log(lambda line: None, clock)
    async with AsyncExitStack() as opened:
        accounts = await open_accounts(opened, Opening(lambda: policy, redis, clock, log))
        yield Quota(accounts.store, accounts.ledger, Metrics(clock), Headroom(clock))


async def _spend(
    quota: Quota | None, concurrency: int, *, seconds: float = 60.0, requests: int = 10**9
) -> tuple[int, float]:
    """Return how many requests there were, and the CPU seconds of all of them."""
    snapshot = Snapshot(allowances=LIMITS)
    end_s, count = time.monotonic() + seconds, 0

    async def work() -> None:
        nonlocal count
        while count < requests and time.monotonic() < end_s:
            count += 1
            await _request(quota, snapshot)

    before_s = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return count, time.process_time() - before_s


async def _request(quota: Quota | None, snapshot: Snapshot) -> None:
    call = Call("bench-model", stream=False, body=BODY, size_bytes=73)
    tally = Tally("bench", Surface.CHAT, "bench-model", stream=False, started_s=0.0, caller="web")
    answer = Completion(b"", ANSWER)
    if quota is None:
        await asyncio.sleep(0)
        return
    async with (
        quota.admit(call, CALLER, snapshot, tally) as admission,
        quota.reserve(admission, TARGET) as reservation,
    ):
        reservation.watch(answer)


def stores_of(samples: Sequence[QuotaSample]) -> list[tuple[str, int]]:
    """Return what was measured, in the order of the table."""
    found = {(sample.store, sample.concurrency) for sample in samples}
    return sorted(found, key=lambda each: (STORES.index(each[0]), each[1]))
