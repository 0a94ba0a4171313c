"""
The books of this process, opened and kept: the ledger, and the store of what is left.

Which store it is, and where the ledger is, is read at start; a live edit of either is named in the
log and waits for the next start.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.clock import Clock
from proxy.ledger import Ledger
from proxy.log import Log
from proxy.policy import MobiusPolicy
from proxy.store import LedgerUnavailable
from proxy.store.memory import MemoryStore
from proxy.store.port import QuotaStore

DAY_S = 86_400
PURGE_EVERY_S = 3600.0


@dataclass(frozen=True, slots=True)
class Accounts:
    """Where use is counted and recorded."""

    ledger: Ledger
    store: QuotaStore


async def open_accounts(
    opened: AsyncExitStack, policy: MobiusPolicy, clock: Clock, log: Log
) -> Accounts:
    """
    Return the accounts, with what a killed process left behind settled; `opened` closes them.

    Raises LedgerUnavailable where the ledger cannot be used and the policy is not `open`.
    """
    ledger = await opened.enter_async_context(Ledger(Path(policy.ledger.path), clock))
    try:
        await ledger.replica_id()
        lost = await ledger.recover()
    except LedgerUnavailable as exc:
        if policy.quota.on_store_failure != "open":
            raise
        log.line("ledger_unavailable", reason=str(exc))
        lost = []
    if lost:
        log.line("recovered", attempts=len(lost), nano_usd=sum(row.nano_usd for row in lost))
    await _keep_short(opened, ledger, policy, clock, log)
    return Accounts(ledger, MemoryStore(clock, ledger))


async def check_ledger(policy: MobiusPolicy, clock: Clock) -> None:
    """Return when the ledger can be used. Raises LedgerUnavailable, which says what to do."""
    if policy.quota.on_store_failure != "open":
        async with Ledger(Path(policy.ledger.path), clock) as ledger:
            await ledger.replica_id()


async def _keep_short(
    opened: AsyncExitStack, ledger: Ledger, policy: MobiusPolicy, clock: Clock, log: Log
) -> None:
    """Delete what is older than `keep_days` now and every hour, until `opened` closes."""

    async def purge() -> None:
        while True:
            try:
                gone = await ledger.purge(clock.wall() - policy.ledger.keep_days * DAY_S)
            except LedgerUnavailable as exc:
                log.line("ledger_unavailable", reason=str(exc))
            else:
                if gone:
                    log.line("purged", rows=gone)
            await clock.sleep(PURGE_EVERY_S)

    task: asyncio.Task[Any] = asyncio.create_task(purge(), name="purge the ledger")

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    opened.push_async_callback(stop)
