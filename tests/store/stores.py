"""The stores that keep the contract of `proxy/store/port.py`, and what each is tested with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import pytest

from proxy.limits import Claim, Limit, Refusal, Scope, ScopeKind, Unit, Window
from proxy.store import LedgerUnavailable
from proxy.store.memory import MemoryStore
from proxy.store.port import QuotaStore, Standings
from tests.fakes import FakeClock
from tests.harness import redis_server
from tests.store.redis_stand import SHORT, replica

T = TypeVar("T")

WEB = Scope(ScopeKind.KEY, "web")
TEAM = Scope(ScopeKind.TEAM, "product")
USER = Scope(ScopeKind.USER, "ann")
TARGET = Scope(ScopeKind.TARGET, "identity of a")
WORDS = {
    (Unit.REQUESTS, Window.MINUTE): "rpm",
    (Unit.REQUESTS, Window.DAY): "rpd",
    (Unit.TOKENS, Window.MINUTE): "tpm",
    (Unit.TOKENS, Window.DAY): "tpd",
    (Unit.PARALLEL, Window.NOW): "max_parallel",
    (Unit.NANO_USD, Window.DAY): "budget_usd.day",
    (Unit.NANO_USD, Window.MONTH): "budget_usd.month",
    (Unit.NANO_USD, Window.TOTAL): "budget_usd.total",
}


@dataclass
class FakeHistory:
    """What a ledger would say: entries by scope and unit, as moments since 1970 and amounts."""

    entries: dict[tuple[Scope, Unit], list[tuple[float, int]]] = field(default_factory=dict)
    asked: list[tuple[Scope, Unit, float]] = field(default_factory=list)
    trouble: bool = False
    gate: asyncio.Event | None = None  # answers wait for it

    def note(self, scope: Scope, unit: Unit, at: float, amount: int) -> None:
        self.entries.setdefault((scope, unit), []).append((at, amount))

    def used(self, scope: Scope, unit: Unit, *, since: float) -> Awaitable[int]:
        answer = self._answer(scope, unit, since)
        return self._later(sum(amount for _, amount in answer))

    def recent(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Sequence[tuple[float, int]]]:
        return self._later(self._answer(scope, unit, since))

    def _answer(self, scope: Scope, unit: Unit, since: float) -> list[tuple[float, int]]:
        self.asked.append((scope, unit, since))
        return [each for each in self.entries.get((scope, unit), ()) if each[0] >= since]

    async def _later(self, answer: T) -> T:
        if self.gate is not None:
            await self.gate.wait()
        if self.trouble:
            raise LedgerUnavailable("the disk is full")
        return answer


class OfOneWhoIsGone(FakeHistory):
    """A replica's ledger in which all was used by one process, which has ended."""

    def replica_id(self) -> Awaitable[str]:
        return self._later("books")

    def used_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Mapping[str, int]]:
        answer = self._answer(scope, unit, since)
        return self._later({"gone": sum(amount for _, amount in answer)} if answer else {})

    def recent_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Sequence[tuple[str, float, int]]]:
        answer = self._answer(scope, unit, since)
        return self._later([("gone", at, amount) for at, amount in answer])


@dataclass(frozen=True)
class Stand:
    """A store that is open, the ledger that it learns from, and its clock where that is a fake."""

    store: QuotaStore
    history: FakeHistory
    clock: FakeClock | None = None

    def pass_(self, seconds: float) -> None:
        assert self.clock is not None, "time cannot be made to pass here"
        self.clock.pass_(seconds)


Opening: TypeAlias = Callable[[], AbstractAsyncContextManager[Stand]]
Script: TypeAlias = Callable[[Stand], Awaitable[None]]


@asynccontextmanager
async def memory() -> AsyncIterator[Stand]:
    clock, history = FakeClock(), FakeHistory()
    yield Stand(MemoryStore(clock, history), history, clock)


@asynccontextmanager
async def redis() -> AsyncIterator[Stand]:
    """A store on a Redis of its own, which has nothing to recover from."""
    with redis_server() as server:
        history = OfOneWhoIsGone()
        spans = replace(SHORT, recovery_s=0.0)
        async with replica(server.url, history=history, spans=spans) as one:
            yield Stand(one.store, history)


ON_REDIS = pytest.param(redis, marks=pytest.mark.redis)
STORES: dict[str, Any] = {"memory": memory, "redis": ON_REDIS}
TIMED: dict[str, Opening] = {"memory": memory}  # those whose time a test can make pass
LEARNING: dict[str, Any] = {"memory": memory, "redis": ON_REDIS}  # that ask the ledger for the past


def run(opening: Opening, script: Script) -> None:
    """The script has come to its end, with a store of its own."""

    async def main() -> None:
        async with opening() as stand:
            await script(stand)

    asyncio.run(main())


def limit(unit: Unit, window: Window, most: int, scope: Scope = WEB) -> Limit:
    return Limit(scope, unit, window, most, WORDS[unit, window])


def rpm(most: int, scope: Scope = WEB) -> Limit:
    return limit(Unit.REQUESTS, Window.MINUTE, most, scope)


def rpd(most: int, scope: Scope = WEB) -> Limit:
    return limit(Unit.REQUESTS, Window.DAY, most, scope)


def tpm(most: int, scope: Scope = WEB) -> Limit:
    return limit(Unit.TOKENS, Window.MINUTE, most, scope)


def tpd(most: int, scope: Scope = WEB) -> Limit:
    return limit(Unit.TOKENS, Window.DAY, most, scope)


def parallel(most: int, scope: Scope = WEB) -> Limit:
    return limit(Unit.PARALLEL, Window.NOW, most, scope)


def budget(window: Window, most: int, scope: Scope = WEB) -> Limit:
    return limit(Unit.NANO_USD, window, most, scope)


def claims(amount: int, *limits: Limit) -> list[Claim]:
    return [Claim(each, amount) for each in limits]


def refused(answer: Standings | Refusal) -> Refusal:
    assert isinstance(answer, Refusal), f"it was let in: {answer}"
    return answer


def let_in(answer: Standings | Refusal) -> Standings:
    assert not isinstance(answer, Refusal), f"it was refused: {answer}"
    return answer
