"""The durable record: what was acknowledged is in the file, once, and its sums are right."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.ledger import Ledger, Recovered
from proxy.limits import Scope, ScopeKind, Unit
from proxy.store import (
    Attempt,
    GroupBy,
    LedgerUnavailable,
    RowInvalid,
    UsageQuery,
    UsageRow,
)
from proxy.store.port import History
from proxy.types import Usage
from tests.fakes import FakeClock
from tests.harness.waiting import wait_until
from tests.store.rows import HOUR_S, T0, closed, closed_ids, open_ids, opened, select, sums

WEB = Scope(ScopeKind.KEY, "web")
WHO = {"key": "web", "team": "product", "user": "ann", "model": "gpt"}


def with_ledger(path: Path, script: Callable[[Ledger], Awaitable[None]]) -> None:
    async def main() -> None:
        async with Ledger(path, SystemClock()) as ledger:
            await script(ledger)

    asyncio.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "mobius.db"  # its folder is made with it


def test_an_open_row_is_in_the_file_when_open_returns(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened(), admitted=True)
        assert open_ids(path) == ["a1"]
        assert select(path, "SELECT sum(admitted), sum(attempts) FROM totals") == [(1, 0)]
        await ledger.open(opened("a2"), admitted=False)
        assert select(path, "SELECT sum(admitted) FROM totals") == [(1,)]

    with_ledger(path, script)


def test_a_closed_row_is_in_the_file_when_close_returns(path: Path) -> None:
    first = opened(tags=("agent=planner", "b=2"))

    async def script(ledger: Ledger) -> None:
        await ledger.open(first, admitted=True)
        await ledger.close(closed())
        assert (open_ids(path), closed_ids(path)) == ([], ["a1"])
        assert [row async for row in ledger.rows(0)] == [Attempt(first, closed())]

    with_ledger(path, script)


def test_closing_twice_or_what_is_not_open_changes_nothing(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.close(closed("never"))
        await ledger.open(opened(), admitted=True)
        await asyncio.gather(ledger.close(closed()), ledger.close(closed(closed_at=T0 + 9)))
        await ledger.close(closed(nano_usd=1))
        assert await ledger.used(WEB, Unit.NANO_USD, since=0) == 50
        assert [row.closed async for row in ledger.rows(0)] == [closed()]

    with_ledger(path, script)


def test_opening_what_is_open_or_reserves_what_cannot_be_is_refused_alone(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened(), admitted=True)
        twice = ledger.open(opened(), admitted=True)
        other = ledger.open(opened("a2"), admitted=True)
        refused, taken = await asyncio.gather(twice, other, return_exceptions=True)
        assert isinstance(refused, RowInvalid)
        assert taken is None
        assert await ledger.used(WEB, Unit.REQUESTS, since=0) == 2
        for amount in (-1, 2**70):
            with pytest.raises(RowInvalid):
                await ledger.open(opened("a3", nano_usd=amount), admitted=True)
        assert open_ids(path) == ["a1", "a2"]

    with_ledger(path, script)


@pytest.mark.parametrize("amount", [-5, 2**62, 2**80])
def test_an_absurd_use_is_recorded_as_what_was_reserved(path: Path, amount: int) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened(), admitted=True)
        await ledger.close(closed(usage=Usage(prompt_tokens=amount)))
        (row,) = [row.closed async for row in ledger.rows(0)]
        assert row == closed(usage=Usage(100, 400, estimated=True), nano_usd=9000)

    with_ledger(path, script)


def test_use_is_summed_by_key_team_user_and_model_since_an_hour(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        later = T0 + HOUR_S
        await ledger.open(opened(), admitted=True)
        await ledger.close(closed())
        await ledger.open(opened("a2", user="bob", opened_at=later + 1), admitted=True)
        await ledger.close(closed("a2", nano_usd=None, closed_at=later + 2))
        await ledger.open(opened("a3", key="cli"), admitted=True)
        ledger.admit(**WHO, at=later + 5)
        for kind, name, requests, tokens, money in [
            ("key", "web", (3, 2), (20, 10), (50, 0)),
            ("team", "product", (4, 2), (20, 10), (50, 0)),
            ("user", "ann", (3, 1), (10, 0), (50, 0)),
            ("model", "gpt", (4, 2), (20, 10), (50, 0)),
            ("model", "web", (0, 0), (0, 0), (0, 0)),
        ]:
            scope = Scope(ScopeKind(kind), name)
            for unit, amounts in zip(
                (Unit.REQUESTS, Unit.TOKENS, Unit.NANO_USD), (requests, tokens, money), strict=True
            ):
                found = [await ledger.used(scope, unit, since=since) for since in (0, later)]
                assert tuple(found) == amounts, (scope, unit)

    with_ledger(path, script)


def test_what_is_asked_sees_what_was_asked_to_write_before_and_nothing_else(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        history: History = ledger
        before = [asyncio.ensure_future(ledger.open(opened(f"b{n}"), admitted=True)) for n in "ab"]
        await asyncio.sleep(0)  # they have asked, and nothing is written yet
        asked = history.used(WEB, Unit.REQUESTS, since=0)
        ledger.admit(**WHO, at=T0)
        assert await asked == 2
        await asyncio.gather(*before)
        assert await history.used(WEB, Unit.REQUESTS, since=0) == 3

    with_ledger(path, script)


def test_single_amounts_are_listed_by_their_moments(path: Path) -> None:
    rows = [("a", 1, 10.0), ("b", 2, 35.0), ("c", 1, 30.0), ("d", 1, 40.0), ("e", 2, 45.0)]

    async def script(ledger: Ledger) -> None:
        for row_id, attempt, at in rows:
            row = opened(row_id, attempt=attempt, opened_at=T0 + at)
            await ledger.open(row, admitted=attempt == 1)
        await ledger.open(opened("other", key="cli", opened_at=T0 + 50), admitted=True)
        await ledger.close(closed("c", closed_at=T0 + 60.0))
        await ledger.close(closed("b", closed_at=T0 + 50.0, nano_usd=None))
        await ledger.close(closed("a", closed_at=T0 + 70.0, usage=Usage(1, 1)))
        recent = {unit: await ledger.recent(WEB, unit, since=T0 + 30.0) for unit in list(Unit)[:3]}
        assert recent == {
            Unit.REQUESTS: [(T0 + 30.0, 1), (T0 + 40.0, 1)],
            Unit.TOKENS: [(T0 + 50.0, 10), (T0 + 60.0, 10), (T0 + 70.0, 2)],
            Unit.NANO_USD: [(T0 + 50.0, 0), (T0 + 60.0, 50), (T0 + 70.0, 50)],
        }
        assert await ledger.recent(WEB, Unit.TOKENS, since=T0 + 60.5) == [(T0 + 70.0, 2)]

    with_ledger(path, script)


async def fill(ledger: Ledger) -> None:
    day = 24 * HOUR_S
    rows: list[tuple[str, dict[str, Any], float]] = [
        ("a", {"tags": ("x=1", "y=2")}, T0),
        ("b", {"tags": ("y=2",), "provider": "azure", "attempt": 2}, T0 + HOUR_S),
        ("c", {"key": "cli"}, T0 + 2 * day),
    ]
    for row_id, changes, at in rows:
        await ledger.open(opened(row_id, opened_at=at, **changes), admitted=row_id != "b")
        usage = Usage(7, 3, estimated=row_id == "b")
        price = None if row_id == "c" else 50
        ended = closed(row_id, closed_at=at, usage=usage, nano_usd=price, answered=row_id != "a")
        await ledger.close(ended)


@pytest.mark.parametrize(
    ("groups", "attempts"),
    [
        ("", {(): 3}),
        ("key", {("cli",): 1, ("web",): 2}),
        ("team", {("product",): 3}),
        ("user", {("ann",): 3}),
        ("model", {("gpt",): 3}),
        ("target", {("",): 0, ("gpt/openai/gpt-4o",): 3}),
        ("provider", {("",): 0, ("azure",): 1, ("openai",): 2}),
        ("tag", {("",): 1, ("x=1",): 1, ("y=2",): 2}),
        ("day", {("2027-01-15",): 2, ("2027-01-17",): 1}),
        (
            "key,hour",
            {
                ("cli", "2027-01-17T08:00Z"): 1,
                ("web", "2027-01-15T08:00Z"): 1,
                ("web", "2027-01-15T09:00Z"): 1,
            },
        ),
    ],
)
def test_totals_are_told_apart_by_what_is_asked(
    path: Path, groups: str, attempts: dict[tuple[str, ...], int]
) -> None:
    async def script(ledger: Ledger) -> None:
        await fill(ledger)
        query = UsageQuery(tuple(GroupBy(name) for name in groups.split(",") if name))
        found = await ledger.totals(query)
        assert {row.group: row.attempts for row in found} == attempts
        assert [row.group for row in found] == list(attempts)

    with_ledger(path, script)


def test_a_tag_can_be_told_apart_by_key(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await fill(ledger)
        found = await ledger.totals(UsageQuery((GroupBy.TAG, GroupBy.KEY)))
        assert sum(row.attempts for row in found) == 4  # one of the three has two tags
        assert {group for group, _ in (row.group for row in found)} == {"", "x=1", "y=2"}

    with_ledger(path, script)


def test_totals_hold_every_count_of_the_hours_that_are_asked(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        assert await ledger.totals(UsageQuery()) == []
        await fill(ledger)
        used = Usage(21, 9, estimated=True)
        assert await ledger.totals(UsageQuery()) == [UsageRow((), 2, 2, 3, used, 100, 1, 1)]
        late = UsageQuery(since=T0 + HOUR_S + 5, until=T0 + 48 * HOUR_S)
        used = Usage(7, 3, estimated=True)
        assert await ledger.totals(late) == [UsageRow((), 0, 1, 1, used, 50, 1, 0)]

    with_ledger(path, script)


def test_an_export_yields_every_row_once_in_order_over_many_pages(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        ids = [f"{n:04}" for n in range(2500)]
        await asyncio.gather(*(ledger.open(opened(row_id), admitted=True) for row_id in ids))
        # Whole groups were closed at the same moment, across the ends of pages.
        at = {row_id: T0 + int(row_id) // 700 for row_id in ids}
        ends = [closed(row_id, closed_at=at[row_id]) for row_id in reversed(ids)]
        await asyncio.gather(*(ledger.close(row) for row in ends))
        assert [row.closed.id async for row in ledger.rows(0)] == ids
        part = [row.closed.id async for row in ledger.rows(T0 + 1, T0 + 3)]
        assert part == ids[700:2100]

    with_ledger(path, script)


def test_a_cancelled_open_leaves_no_row_and_its_close_does_no_harm(path: Path) -> None:
    async def attempt(ledger: Ledger, row_id: str) -> None:
        try:
            await ledger.open(opened(row_id), admitted=True)
        finally:
            await ledger.close(closed(row_id, outcome="cancelled", answered=False))

    async def script(ledger: Ledger) -> None:
        for turns in range(6):  # before it has asked, while it waits, and after it was told
            tasks = [asyncio.create_task(attempt(ledger, f"{turns}-{n}")) for n in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        asked = await ledger.used(WEB, Unit.REQUESTS, since=0)
        assert open_ids(path) == []
        assert asked >= len(closed_ids(path))

    with_ledger(path, script)


def test_a_cancelled_open_whose_caller_forgets_it_leaves_no_row(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        task = asyncio.create_task(ledger.open(opened(), admitted=True))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await ledger.used(WEB, Unit.REQUESTS, since=0)  # all that was asked before is written
        assert (open_ids(path), closed_ids(path)) == ([], [])
        await ledger.open(opened(), admitted=False)  # the id is free

    with_ledger(path, script)


def test_a_cancelled_close_is_written_all_the_same(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened(), admitted=True)
        task = asyncio.create_task(ledger.close(closed()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await ledger.used(WEB, Unit.TOKENS, since=0)
        assert closed_ids(path) == ["a1"]

    with_ledger(path, script)


def test_closing_the_ledger_writes_what_was_asked_and_empties_the_write_ahead_log(
    path: Path,
) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened(), admitted=True)
        done = asyncio.ensure_future(ledger.close(closed()))
        await asyncio.sleep(0)
        ledger.admit(**WHO, at=T0)
        await ledger.aclose()
        await done
        with pytest.raises(LedgerUnavailable, match="closed"):
            await ledger.open(opened("a2"), admitted=True)
        await ledger.close(closed("a2"))
        ledger.admit(**WHO, at=T0)

    with_ledger(path, script)
    assert [file.name for file in path.parent.iterdir()] == ["mobius.db"]
    assert closed_ids(path) == ["a1"]
    assert select(path, "SELECT sum(admitted) FROM totals") == [(2,)]


def test_closing_empties_the_write_ahead_log_also_where_another_has_the_file_open(
    path: Path,
) -> None:
    async def main() -> None:
        async with Ledger(path, SystemClock()) as ledger:
            other = sqlite3.connect(path)
            other.execute("SELECT * FROM attempts").fetchall()
            await ledger.open(opened(), admitted=True)
        assert path.with_name("mobius.db-wal").stat().st_size == 0
        other.close()

    asyncio.run(main())


def test_a_ledger_that_nobody_closes_ends_with_its_last_reference(path: Path) -> None:
    async def main() -> None:
        ledger = await Ledger(path, SystemClock()).__aenter__()
        await ledger.open(opened(), admitted=True)
        task = asyncio.ensure_future(ledger.close(closed()))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    gc.collect()
    assert closed_ids(path) == ["a1"]
    wait_until(lambda: [file.name for file in path.parent.iterdir()] == ["mobius.db"])


def test_rows_that_are_open_at_the_end_are_charged_in_full_by_the_next_process(path: Path) -> None:
    clock = FakeClock()

    async def main() -> None:
        async with Ledger(path, clock) as first:
            await first.open(opened(tags=("x=1",)), admitted=True)
            await first.open(opened("a2"), admitted=False)
            async with Ledger(path, clock) as second:
                await second.open(opened("mine"), admitted=True)
                assert await second.recover() == Recovered()  # the first is alive
                assert len(open_ids(path)) == 3
        async with Ledger(path, clock) as third:
            lost = await third.recover()
            found = {row.id: row for row in lost.rows}
            assert found["a1"] == opened("a1", tags=("x=1",))
            assert sorted(found) == ["a1", "a2", "mine"]
            assert await third.recover() == Recovered()
            ends = [row.closed async for row in third.rows(0)]
            reserved = Usage(100, 400, estimated=True)
            assert ends == [
                closed(
                    row_id,
                    usage=reserved,
                    nano_usd=9000,
                    outcome="lost",
                    answered=False,
                    closed_at=clock.wall_s,
                )
                for row_id in ("a1", "a2", "mine")
            ]
            assert await third.used(WEB, Unit.TOKENS, since=0) == 1500

    asyncio.run(main())
    assert list(path.parent.glob("*.lock")) == []


def test_purging_keeps_younger_hours_and_what_was_used_ever(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        for n in range(1203):  # more than one slice
            await ledger.open(opened(f"old{n}", target=f"t{n}"), admitted=True)
            await ledger.close(closed(f"old{n}"))
        await ledger.open(opened("young"), admitted=True)
        await ledger.close(closed("young", closed_at=T0 + HOUR_S))
        await ledger.open(opened("open"), admitted=False)
        whole = sums(path, "1")
        units = (Unit.REQUESTS, Unit.TOKENS, Unit.NANO_USD)
        ever = [await ledger.used(WEB, unit, since=0) for unit in units]
        assert ever == [1204, 12040, 60200]

        assert await ledger.purge(T0 + 10) == 0  # its hour is not over
        assert await ledger.purge(T0 + HOUR_S + 10) == 1203 + 1204  # rows, and their totals
        assert (open_ids(path), closed_ids(path)) == (["open"], ["young"])
        assert [await ledger.used(WEB, unit, since=0) for unit in units] == ever
        assert [await ledger.used(WEB, unit, since=T0) for unit in units] == [0, 10, 50]
        assert sums(path, "1") == whole
        carried = select(path, "SELECT * FROM totals WHERE hour = 0")
        assert [row[:10] for row in carried] == [
            (0, *WHO.values(), "", "", "[]", ledger.owner, 1204)
        ]
        by_day = await ledger.totals(UsageQuery((GroupBy.DAY,)))
        assert [row.group for row in by_day] == [("",), ("2027-01-15",)]

        await ledger.open(opened("old"), admitted=True)
        await ledger.close(closed("old"))
        assert await ledger.purge(T0 + HOUR_S) == 3
        assert await ledger.used(WEB, Unit.TOKENS, since=0) == 12050

    with_ledger(path, script)


def test_what_was_counted_just_before_a_purge_is_purged_with_the_rest(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        ledger.admit(key="web", team="product", user="ann", model="gpt", at=T0)
        assert await ledger.purge(T0 + HOUR_S) == 1

    with_ledger(path, script)


def test_others_write_between_the_slices_of_a_purge(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        rows = [f"old{n}" for n in range(2000)]
        await asyncio.gather(*(ledger.open(opened(row_id), admitted=False) for row_id in rows))
        await asyncio.gather(*(ledger.close(closed(row_id)) for row_id in rows))
        purge = asyncio.create_task(ledger.purge(T0 + HOUR_S))
        await asyncio.sleep(0)
        await ledger.open(opened("new"), admitted=False)
        assert not purge.done()
        assert closed_ids(path)  # it waited for one slice at most
        assert await purge == 2001

    with_ledger(path, script)


def test_the_name_of_a_file_stays_and_two_files_have_two(tmp_path: Path) -> None:
    async def name(path: Path) -> str:
        async with Ledger(path, SystemClock()) as ledger:
            return await ledger.replica_id()

    first, again, other = (asyncio.run(name(tmp_path / db)) for db in ("a.db", "a.db", "b.db"))
    assert first == again != other
    assert len(first) == 16


def test_a_reader_in_the_middle_of_a_long_look_keeps_nobody_from_writing(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened(), admitted=True)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM open_attempts").fetchall()
        await ledger.close(closed())
        assert reader.execute("SELECT count(*) FROM attempts").fetchone() == (0,)
        reader.close()
        assert closed_ids(path) == ["a1"]

    with_ledger(path, script)


def test_a_pattern_is_all_the_models_that_fit_it_together(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        models = ("claude-x", "claude-y", "gpt", "a-claude-z", "b[1m]?x", "b1yx")
        for number, model in enumerate(models):
            await ledger.open(opened(f"a{number}", model=model), admitted=True)
            await ledger.close(closed(f"a{number}"))
        expected = {"claude-*": 2, "*": 6, "*claude*": 3, "claude-x": 1, "c*t": 0, "b[1m]?*": 1}
        for name, rows in expected.items():
            scope = Scope(ScopeKind.MODEL, name)
            assert await ledger.used(scope, Unit.TOKENS, since=0) == 10 * rows
            assert await ledger.used(scope, Unit.REQUESTS, since=T0) == rows
            assert len(await ledger.recent(scope, Unit.TOKENS, since=T0)) == rows
            assert len(await ledger.recent(scope, Unit.REQUESTS, since=T0)) == rows

    with_ledger(path, script)


def test_a_star_in_any_other_name_is_a_letter(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        await ledger.open(opened("a1", user="ann"), admitted=True)
        await ledger.close(closed("a1"))
        for name, requests in (("ann", 1), ("a*", 0)):
            scope = Scope(ScopeKind.USER, name)
            assert await ledger.used(scope, Unit.REQUESTS, since=0) == requests

    with_ledger(path, script)


def test_requests_that_make_no_attempt_are_counted_together_and_are_in_the_next_report(
    path: Path,
) -> None:
    async def script(ledger: Ledger) -> None:
        for _ in range(5):
            ledger.admit(**WHO, at=T0)
        ledger.admit(**{**WHO, "model": "other"}, at=T0)
        (row,) = (await ledger.report(UsageQuery())).rows
        assert row.admitted == 6

    with_ledger(path, script)


def test_requests_that_make_no_attempt_are_counted_though_nobody_asks(path: Path) -> None:
    async def script(ledger: Ledger) -> None:
        ledger.admit(**WHO, at=T0)

    with_ledger(path, script)

    async def look(ledger: Ledger) -> None:
        assert await ledger.used(WEB, Unit.REQUESTS, since=0) == 1

    with_ledger(path, look)
