"""What each process at one ledger used: those that live speak for themselves, the others do not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from proxy.clock import SystemClock
from proxy.ledger import Ledger
from proxy.limits import Scope, ScopeKind, Unit
from proxy.store.port import SharedHistory
from tests.store.rows import T0, closed, opened

WEB, FAMILY = Scope(ScopeKind.KEY, "web"), Scope(ScopeKind.MODEL, "g*")
OTHER = Scope(ScopeKind.KEY, "other")
TOOK, RESERVED = 10, 500  # tokens of a closed row, and of an open one


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mobius.db"


def three(path: Path, script: Callable[[Ledger, str, str], Awaitable[None]]) -> None:
    """The script ran with a ledger, beside one that lives and after one that is gone.

    Each closed a row; the one that is gone has another one open, and so has the one that lives.
    """

    async def main() -> None:
        async with AsyncExitStack() as stack:
            gone = Ledger(path, SystemClock())
            async with gone:
                await _write(gone, "gone")
                await gone.open(opened("gone2", opened_at=T0 + 9), admitted=True)
            living = await stack.enter_async_context(Ledger(path, SystemClock()))
            await _write(living, "living")
            await living.open(opened("living2"), admitted=True)
            mine = await stack.enter_async_context(Ledger(path, SystemClock()))
            await _write(mine, "mine")
            await mine.open(opened("mine2"), admitted=True)
            await script(mine, gone.owner, living.owner)

    asyncio.run(main())


async def _write(ledger: Ledger, name: str) -> None:
    await ledger.open(opened(name), admitted=True)
    await ledger.close(closed(name))


@pytest.mark.parametrize("scope", [WEB, FAMILY], ids=["key", "pattern"])
def test_use_is_told_for_this_process_and_those_that_are_gone(path: Path, scope: Scope) -> None:
    async def script(mine: Ledger, gone: str, living: str) -> None:
        history: SharedHistory = mine
        tokens = await history.used_by_owner(scope, Unit.TOKENS, since=T0)
        assert tokens == {mine.owner: TOOK, gone: TOOK + RESERVED}
        money = await history.used_by_owner(scope, Unit.NANO_USD, since=0)
        assert money == {mine.owner: 50, gone: 50 + 9000}
        requests = await history.used_by_owner(scope, Unit.REQUESTS, since=T0)
        assert requests == {mine.owner: 2, gone: 2}
        assert living not in {*tokens, *money, *requests}
        assert await history.used_by_owner(OTHER, Unit.TOKENS, since=T0) == {}

    three(path, script)


def test_what_the_gone_had_reserved_counts_once_when_it_is_charged(path: Path) -> None:
    async def script(mine: Ledger, gone: str, living: str) -> None:
        before = await mine.used_by_owner(WEB, Unit.TOKENS, since=0)
        left = await mine.recover()
        assert (left.owners, [row.id for row in left.rows]) == ((gone,), ["gone2"])
        assert await mine.used_by_owner(WEB, Unit.TOKENS, since=0) == before
        assert await mine.used_by_owner(WEB, Unit.REQUESTS, since=0) == {mine.owner: 2, gone: 2}

    three(path, script)


def test_single_amounts_are_told_with_their_owners(path: Path) -> None:
    async def script(mine: Ledger, gone: str, living: str) -> None:
        found = await mine.recent_by_owner(WEB, Unit.TOKENS, since=T0)
        assert found == [(gone, T0 + 2.5, TOOK), (mine.owner, T0 + 2.5, TOOK)]
        requests = await mine.recent_by_owner(WEB, Unit.REQUESTS, since=T0)
        assert [owner for owner, _, _ in requests].count(gone) == 2
        assert living not in {owner for owner, _, _ in requests}

    three(path, script)


def test_who_ended_well_is_gone_and_leaves_nothing_to_recover(path: Path) -> None:
    async def main() -> None:
        before = Ledger(path, SystemClock())
        async with before:
            await _write(before, "a")
        async with Ledger(path, SystemClock()) as mine:
            assert before.owner != mine.owner
            assert (await mine.recover()).owners == ()
            assert await mine.used_by_owner(WEB, Unit.TOKENS, since=T0) == {before.owner: TOOK}

    asyncio.run(main())
