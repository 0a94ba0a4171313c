"""The books, opened and kept: what a killed process left is settled before anybody is let in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.accounts import DAY_S, Accounts, Opening, check_ledger, open_accounts
from proxy.clock import Clock
from proxy.ledger import Ledger
from proxy.limits import Limit, Scope, ScopeKind, Unit, Window
from proxy.log import Log
from proxy.policy import MobiusPolicy
from proxy.store import LedgerUnavailable
from tests.fakes import FakeClock
from tests.store.rows import closed, closed_ids, open_ids, opened

WEB = Scope(ScopeKind.KEY, "web")
TPD = Limit(WEB, Unit.TOKENS, Window.DAY, 10_000, "tpd")


class PatientClock(FakeClock):
    """Sleeps end when a test says so: what runs beside it runs once."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await asyncio.Event().wait()


def policy(path: Path, **quota: Any) -> MobiusPolicy:
    return MobiusPolicy.model_validate(
        {"ledger": {"path": str(path), "keep_days": 2}, "quota": quota}
    )


class Place:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.clock = PatientClock()
        self.log = Log(lambda raw: self.lines.append(orjson.loads(raw)), self.clock)

    def line(self, event: str) -> dict[str, Any] | None:
        return next((line for line in self.lines if line["event"] == event), None)

    def run(self, policy: MobiusPolicy, script: Callable[[Accounts], Awaitable[None]]) -> None:
        async def main() -> None:
            async with AsyncExitStack() as stack:
                how = Opening(lambda: policy, None, self.clock, self.log)
                await script(await open_accounts(stack, how))

        asyncio.run(main())


async def nothing(accounts: Accounts) -> None:
    """Opened and closed."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mobius.db"


def leave_open(path: Path, clock: Clock, *ids: str) -> None:
    """Rows stand open in the file, of a process that is gone."""

    async def main() -> None:
        ledger = Ledger(path, clock)
        async with ledger:
            for each in ids:
                await ledger.open(opened(each, opened_at=clock.wall()), admitted=True)

    asyncio.run(main())


def test_what_a_killed_process_left_open_is_charged_before_anybody_is_let_in(path: Path) -> None:
    place = Place()
    leave_open(path, place.clock, "a1", "a2")

    async def script(accounts: Accounts) -> None:
        assert (open_ids(path), closed_ids(path)) == ([], ["a1", "a2"])
        (standing,) = await accounts.store.standings([TPD])
        assert standing.used == 2 * 500

    place.run(policy(path), script)
    line = place.line("recovered")
    assert line is not None
    assert (line["attempts"], line["nano_usd"]) == (2, 18_000)


def test_nothing_is_said_where_nothing_was_left(path: Path) -> None:
    place = Place()
    place.run(policy(path), nothing)
    assert place.lines == []


def test_what_is_older_than_it_is_kept_is_purged(path: Path) -> None:
    place = Place()

    async def fill() -> None:
        async with Ledger(path, place.clock) as ledger:
            for name, age_days in (("old", 3), ("new", 1)):
                at = place.clock.wall() - age_days * DAY_S
                await ledger.open(opened(name, opened_at=at), admitted=True)
                await ledger.close(closed(name, closed_at=at))

    asyncio.run(fill())

    async def script(accounts: Accounts) -> None:
        await place.clock.asleep.wait()
        assert closed_ids(path) == ["new"]

    place.run(policy(path), script)
    assert place.line("purged") is not None


def test_a_months_budget_knows_of_days_whose_rows_are_purged(path: Path) -> None:
    place = Place()
    month = Limit(WEB, Unit.NANO_USD, Window.MONTH, 10**12, "budget_usd.month")

    async def fill() -> None:
        async with Ledger(path, place.clock) as ledger:
            at = place.clock.wall() - 3 * DAY_S
            await ledger.open(opened("old", opened_at=at), admitted=True)
            await ledger.close(closed("old", closed_at=at, nano_usd=700))

    asyncio.run(fill())

    async def script(accounts: Accounts) -> None:
        await place.clock.asleep.wait()
        assert closed_ids(path) == []
        (standing,) = await accounts.store.standings([month])
        assert standing.used == 700

    place.run(policy(path), script)


@pytest.mark.parametrize("on_store_failure", ["leased", "closed"])
def test_a_ledger_that_cannot_be_used_keeps_the_server_from_starting(
    tmp_path: Path, on_store_failure: str
) -> None:
    (tmp_path / "file").write_text("no folder")
    wanted = policy(tmp_path / "file" / "mobius.db", on_store_failure=on_store_failure)
    place = Place()
    with pytest.raises(LedgerUnavailable, match=r"mobius\.ledger\.path"):
        place.run(wanted, nothing)
    with pytest.raises(LedgerUnavailable, match=r"mobius\.ledger\.path"):
        asyncio.run(check_ledger(wanted, place.clock))


def test_an_open_policy_starts_without_a_ledger_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    wanted = policy(tmp_path / "file" / "mobius.db", on_store_failure="open")
    place = Place()
    place.run(wanted, nothing)
    assert place.line("ledger_unavailable") is not None
    asyncio.run(check_ledger(wanted, place.clock))


def test_a_ledger_that_can_be_used_is_found_to_be(path: Path) -> None:
    asyncio.run(check_ledger(policy(path), FakeClock()))
    assert path.exists()
