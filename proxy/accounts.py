"""
The books of this process, opened and kept: the ledger, and the store of what is left.

Which store it is, and where the ledger is, is read at start; a live edit of either is named in the
log and waits for the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.clock import Clock
from proxy.ledger import Ledger, Recovered
from proxy.log import Log
from proxy.policy import MobiusPolicy, RedisSettings
from proxy.store import LedgerUnavailable
from proxy.store.memory import MemoryStore
from proxy.store.origins import KEEP_S
from proxy.store.port import QuotaStore
from proxy.store.redis import RedisStore
from proxy.store.redis_client import doubts, open_client
from proxy.store.redis_totals import RedisTotals

DAY_S = 86_400
PURGE_EVERY_S = 3600.0
MONTH_S = 32 * DAY_S  # a budget for a month learns from the totals what was used since its first


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where use is counted, recorded and read."""

    ledger: Ledger
    store: QuotaStore
    usage: Ledger | RedisTotals  # of this replica, or of all that share a Redis


@dataclass(frozen=True, slots=True)
class Opening:
    """What the accounts are opened with. `policy` is the one in force when it is called."""

    policy: Callable[[], MobiusPolicy]
    redis: RedisSettings | None
    clock: Clock
    log: Log


async def open_accounts(opened: AsyncExitStack, how: Opening) -> Accounts:
    """
    Return the accounts, with what a killed process left behind settled; `opened` closes them.

    Raises LedgerUnavailable where the ledger cannot be used and the policy is not `open`.
    """
    policy, log = how.policy(), how.log
    ledger = await opened.enter_async_context(Ledger(Path(policy.ledger.path), how.clock))
    try:
        await ledger.replica_id()
        left = await ledger.recover()
    except LedgerUnavailable as exc:
        if policy.quota.on_store_failure != "open":
            raise
        log.line("ledger_unavailable", level="error", reason=str(exc))
        left = Recovered()
    if left.rows:
        nano_usd = sum(row.nano_usd for row in left.rows)
        log.line("recovered", attempts=len(left.rows), nano_usd=nano_usd)
    await _keep_short(opened, ledger, how)
    if how.redis is None:
        return Accounts(ledger, MemoryStore(how.clock, ledger), ledger)
    usage = _tell_usage(opened, how, how.redis, Path(policy.ledger.path))
    return Accounts(ledger, await _open_redis(opened, how, how.redis, ledger, left), usage)


def _tell_usage(
    opened: AsyncExitStack, how: Opening, settings: RedisSettings, path: Path
) -> RedisTotals:
    def told(why: str | None) -> None:
        if why is None:
            how.log.line("usage_shared")
        else:
            how.log.line("usage_not_shared", level="error", reason=why)

    usage = RedisTotals(
        open_client(settings),
        how.clock,
        path,
        keep_days=lambda: how.policy().ledger.keep_days,
        told=told,
    )
    opened.push_async_callback(usage.aclose)
    usage.start()
    return usage


async def _open_redis(
    opened: AsyncExitStack,
    how: Opening,
    settings: RedisSettings,
    ledger: Ledger,
    left: Recovered,
) -> RedisStore:
    log = how.log
    tasks: set[asyncio.Task[None]] = set()

    async def look() -> None:
        for doubt in await doubts(client):
            log.line("store_misconfigured", level="error", reason=doubt)

    def told(why: str | None) -> None:
        if why is None:
            log.line("store_back")
            tasks.add(task := asyncio.create_task(look(), name="look at Redis' configuration"))
            task.add_done_callback(tasks.discard)
        else:
            on_failure = how.policy().quota.on_store_failure
            log.line("store_gone", level="error", reason=why, on_store_failure=on_failure)

    client = open_client(settings)
    store = RedisStore(
        client,
        how.clock,
        ledger,
        owner=ledger.owner,
        on_failure=lambda: how.policy().quota.on_store_failure,
        told=told,
    )
    opened.push_async_callback(store.aclose)
    await store.open(left.owners)
    if store.trouble is None:
        await look()
    return store


async def check_ledger(policy: MobiusPolicy, clock: Clock) -> None:
    """Return when the ledger can be used. Raises LedgerUnavailable, which says what to do."""
    if policy.quota.on_store_failure != "open":
        async with Ledger(Path(policy.ledger.path), clock) as ledger:
            await ledger.replica_id()


async def _keep_short(opened: AsyncExitStack, ledger: Ledger, how: Opening) -> None:
    """Delete what is older than `keep_days` now and every hour, until `opened` closes."""

    async def purge() -> None:
        while True:
            try:
                keep_s = how.policy().ledger.keep_days * DAY_S
                wall_s = how.clock.wall()
                gone = await ledger.purge(wall_s - keep_s, totals_before=wall_s - MONTH_S)
                await ledger.purge_origins(wall_s - KEEP_S)
            except LedgerUnavailable as exc:
                how.log.line("ledger_unavailable", level="error", reason=str(exc))
            else:
                if gone:
                    how.log.line("purged", rows=gone)
            await how.clock.sleep(PURGE_EVERY_S)

    task: asyncio.Task[Any] = asyncio.create_task(purge(), name="purge the ledger")

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    opened.push_async_callback(stop)
