"""What the limits of the file leave, as gauges. Where nobody can tell, there are none."""

from __future__ import annotations

import asyncio

from proxy.allowance import Allowances
from proxy.limits import Standing
from proxy.metrics import Metrics
from proxy.store import LedgerUnavailable
from proxy.store.port import QuotaStore, Standings, StoreUnavailable

PATIENCE_S = 0.5  # Prometheus gives a whole scrape ten seconds
# A limit that nobody has asked for yet is looked up in the ledger. Requests, which wait for the
# ledger too, are let in between; what has been learned stays known for the next scrape.
SLICE = 50


class Remaining:
    def __init__(
        self, store: QuotaStore, metrics: Metrics, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._patience_s = patience_s

    async def show(self, allowances: Allowances) -> None:
        """Have the gauges say what is left now; none stands when the store cannot or is slow."""
        self._metrics.remaining(await self._standings(allowances))

    async def _standings(self, allowances: Allowances) -> Standings:
        limits = allowances.configured()
        found: list[Standing] = []
        try:
            async with asyncio.timeout(self._patience_s):
                for first in range(0, len(limits), SLICE):
                    found += await self._store.standings(limits[first : first + SLICE])
        except (StoreUnavailable, LedgerUnavailable, TimeoutError):
            return ()
        return tuple(found)
