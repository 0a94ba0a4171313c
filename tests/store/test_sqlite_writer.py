"""What happens to rows while their file cannot be written, and afterwards."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.ledger import Ledger, Recovered
from proxy.limits import Scope, ScopeKind, Unit
from proxy.store import GroupBy, LedgerUnavailable, UsageQuery
from proxy.store.sqlite_schema import connect
from proxy.store.sqlite_writer import Connect
from tests.store.rows import T0, closed, closed_ids, open_ids, opened, select, sums, sums_of_rows

WEB = Scope(ScopeKind.KEY, "web")
WHO = {"key": "web", "team": "product", "user": "ann", "model": "gpt"}
RETRY_S = 0.005
PATIENCE_S = 0.02
TIMES = {"retry_s": RETRY_S, "patience_s": PATIENCE_S}


class Disk:
    """Has room for so many pages of each file, and counts how often it was turned to."""

    def __init__(self) -> None:
        self.most_pages = 1_000_000
        self.opened = 0
        self._connections: list[sqlite3.Connection] = []

    def connect(self, path: Path, patience_s: float) -> sqlite3.Connection:
        self.opened += 1
        connection = connect(path, patience_s)
        connection.execute(f"PRAGMA max_page_count = {self.most_pages}")
        self._connections.append(connection)
        return connection

    def fill(self) -> None:
        """There is room for nothing from now on."""
        self.most_pages = 1
        self._connections[-1].execute("PRAGMA max_page_count = 1")


def run(path: Path, script: Callable[[Ledger], Awaitable[None]], disk: Disk | None = None) -> None:
    async def main() -> None:
        use = disk.connect if disk else connect
        async with Ledger(path, SystemClock(), connect=use, **TIMES) as ledger:
            await script(ledger)

    asyncio.run(main())


async def until(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not predicate():  # noqa: ASYNC110  # it is another thread's doing
            await asyncio.sleep(RETRY_S)


async def opens(ledger: Ledger, row_id: str) -> bool:
    try:
        await ledger.open(opened(row_id), admitted=True)
    except LedgerUnavailable:
        return False
    return True


async def fill_up(ledger: Ledger) -> list[str]:
    """Open rows until there is no room; return those that are open."""
    rows: list[str] = []
    while await opens(ledger, f"{len(rows):04}"):
        rows.append(f"{len(rows):04}")
    return rows


def test_a_full_disk_refuses_to_open_and_keeps_what_is_closed_until_there_is_room(
    tmp_path: Path,
) -> None:
    path, disk = tmp_path / "m.db", Disk()

    async def script(ledger: Ledger) -> None:
        disk.fill()
        rows = await fill_up(ledger)
        with pytest.raises(LedgerUnavailable, match=r"m\.db .* full.*make room"):
            await ledger.open(opened("more"), admitted=True)
        for row_id in rows:
            await ledger.close(closed(row_id))
            await ledger.close(closed(row_id, nano_usd=1))
        ledger.admit(**WHO, at=T0)
        ledger.admit(**WHO, at=T0)
        # A try that had nothing to write may have found room for it.
        await until(lambda: "make room" in str(ledger.trouble))
        assert closed_ids(path) == []
        disk.most_pages = 1_000_000
        await until(lambda: ledger.trouble is None)
        assert (open_ids(path), closed_ids(path)) == ([], rows)
        assert await ledger.used(WEB, Unit.REQUESTS, since=0) == len(rows) + 2
        assert await ledger.used(WEB, Unit.NANO_USD, since=0) == 50 * len(rows)
        assert await opens(ledger, "again")
        assert ledger._writer._kept == {}

    run(path, script, disk)


def test_reports_are_answered_while_the_disk_is_full(tmp_path: Path) -> None:
    disk = Disk()

    async def script(ledger: Ledger) -> None:
        await ledger.open(opened("first"), admitted=True)
        await ledger.close(closed("first"))
        disk.fill()
        await fill_up(ledger)
        (row,) = await ledger.totals(UsageQuery((GroupBy.KEY,)))
        assert row.nano_usd == 50
        assert [row.closed.id async for row in ledger.rows(0)] == ["first"]

    run(tmp_path / "m.db", script, disk)


def test_what_is_kept_is_written_at_the_end(tmp_path: Path) -> None:
    path, disk = tmp_path / "m.db", Disk()
    rows: list[str] = []

    async def main() -> None:
        long = {"retry_s": 1000.0, "patience_s": PATIENCE_S}
        async with Ledger(path, SystemClock(), connect=disk.connect, **long) as ledger:
            disk.fill()
            rows.extend(await fill_up(ledger))
            turned_to = disk.opened
            await asyncio.gather(*(ledger.close(closed(row_id)) for row_id in rows))
            assert not await opens(ledger, "more")
            await until(lambda: len(ledger._writer._kept) == len(rows))
            assert disk.opened == turned_to  # nobody asks the disk before it is time
            disk.most_pages = 1_000_000

    asyncio.run(main())
    assert closed_ids(path) == rows
    assert rows


def test_closing_what_could_not_be_opened_is_not_kept(tmp_path: Path) -> None:
    path, disk = tmp_path / "m.db", Disk()

    async def main() -> None:
        async with Ledger(path, SystemClock(), connect=disk.connect, retry_s=1000.0) as ledger:
            disk.fill()
            first = (await fill_up(ledger))[0]
            for n in range(100):
                assert not await opens(ledger, f"refused{n}")
                await ledger.close(closed(f"refused{n}"))
            await ledger.close(closed(first))
            await until(lambda: first in ledger._writer._kept)
            assert list(ledger._writer._kept) == [first]

    asyncio.run(main())


@pytest.mark.parametrize("place", ["file/m.db", "folder"])
def test_a_place_that_cannot_be_written_is_named_and_tried_again(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "folder").mkdir()

    async def script(ledger: Ledger) -> None:
        with pytest.raises(LedgerUnavailable, match=rf"{place} .*mount a volume.*ledger\.path"):
            await ledger.open(opened(), admitted=True)
        with pytest.raises(LedgerUnavailable, match="mount a volume"):
            await ledger.used(WEB, Unit.TOKENS, since=0)
        with pytest.raises(LedgerUnavailable, match=r"mobius\.ledger\.path"):
            await ledger.totals(UsageQuery())
        (tmp_path / "file").unlink()
        (tmp_path / "folder").rmdir()
        await until(lambda: ledger.trouble is None)
        assert await opens(ledger, "a2")

    run(tmp_path / place, script)


def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    path.write_bytes(b"my only copy of a novel, " * 100)

    async def script(ledger: Ledger) -> None:
        with pytest.raises(LedgerUnavailable, match="no database; move it away"):
            await ledger.open(opened(), admitted=True)
        path.rename(tmp_path / "novel")
        await until(lambda: ledger.trouble is None)
        assert await opens(ledger, "a2")

    run(path, script)
    assert (tmp_path / "novel").read_bytes().startswith(b"my only copy")


def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with closing(connect(path, 1.0)) as connection:
        connection.execute("PRAGMA user_version = 99")

    async def script(ledger: Ledger) -> None:
        with pytest.raises(LedgerUnavailable, match="newer Mobius"):
            await ledger.open(opened(), admitted=True)

    run(path, script)


def test_a_file_that_is_removed_is_made_again_with_what_is_open(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "m.db"

    async def main() -> None:
        clock = Ticking()
        async with Ledger(path, clock) as ledger:
            await ledger.open(opened("before"), admitted=True)
            await ledger.close(closed("before"))
            await ledger.open(opened("during"), admitted=True)
            shutil.rmtree(path.parent)
            clock.ahead_s = 2.0
            await ledger.open(opened("after"), admitted=True)
            assert open_ids(path) == ["after", "during"]
            await ledger.close(closed("during"))
            await ledger.close(closed("during"))
            assert closed_ids(path) == ["during"]
            async with Ledger(path, clock) as other:
                assert await other.recover() == Recovered()  # its lock is held again, too

    asyncio.run(main())


class Ticking(SystemClock):
    ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s


def test_a_file_that_is_locked_for_long_is_unavailable_until_it_is_not(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def script(ledger: Ledger) -> None:
        await ledger.open(opened("first"), admitted=True)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailable, match="end that program"):
                await ledger.open(opened("refused"), admitted=True)
            await ledger.close(closed("first"))
        # The file may be usable again before the end of the row is handed over.
        await until(lambda: (open_ids(path), closed_ids(path)) == ([], ["first"]))
        assert ledger.trouble is None

    run(path, script)


def test_a_file_that_is_locked_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def main() -> None:
        async with Ledger(path, SystemClock(), patience_s=10.0) as ledger:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                waiting = asyncio.ensure_future(ledger.open(opened(), admitted=True))
                await asyncio.sleep(0)
                other.execute("ROLLBACK")
            await waiting

    asyncio.run(main())
    assert open_ids(path) == ["a1"]


def test_a_file_that_can_only_be_read_is_noticed_before_the_first_row(tmp_path: Path) -> None:
    def read_only(path: Path, patience_s: float) -> sqlite3.Connection:
        connection = connect(path, patience_s)
        connection.execute("PRAGMA query_only = 1")
        return connection

    async def main() -> None:
        async with Ledger(tmp_path / "m.db", SystemClock(), connect=read_only) as ledger:
            assert "mount a volume" in str(ledger.trouble)

    asyncio.run(main())


def counting(commits: list[str]) -> Connect:
    """Return what opens a file whose commits are noted there."""

    def traced(path: Path, patience_s: float) -> sqlite3.Connection:
        connection = connect(path, patience_s)
        connection.set_trace_callback(
            lambda statement: commits.append(statement) if statement == "COMMIT" else None
        )
        return connection

    return traced


def test_what_waits_together_is_committed_together(tmp_path: Path) -> None:
    commits: list[str] = []

    async def main() -> None:
        async with Ledger(tmp_path / "m.db", SystemClock(), connect=counting(commits)) as ledger:
            with closing(sqlite3.connect(tmp_path / "m.db", isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                commits.clear()
                asked = [ledger.open(opened(f"{n}"), admitted=True) for n in range(1200)]
                waiting = asyncio.gather(*asked)
                await asyncio.sleep(0)
                other.execute("ROLLBACK")
            await waiting
            assert 3 <= len(commits) <= 4

    asyncio.run(main())


def test_where_several_came_together_what_comes_a_turn_later_is_waited_for(tmp_path: Path) -> None:
    commits: list[str] = []

    async def main() -> None:
        async with Ledger(tmp_path / "m.db", SystemClock(), connect=counting(commits)) as ledger:
            await asyncio.gather(*(ledger.open(opened(each), admitted=True) for each in "ab"))
            commits.clear()
            early = asyncio.ensure_future(ledger.open(opened("c"), admitted=True))
            await asyncio.sleep(0)
            late = asyncio.ensure_future(ledger.open(opened("d"), admitted=True))
            await asyncio.gather(early, late)
            assert len(commits) == 1

    asyncio.run(main())


class Doubtful(sqlite3.Connection):
    """Fails at commits, after they are done or instead."""

    done, fails = True, False

    def execute(self, statement: str, parameters: Any = (), /) -> sqlite3.Cursor:
        fails = Doubtful.fails and statement == "COMMIT"
        if not fails:
            return super().execute(statement, parameters)
        Doubtful.fails = False
        if Doubtful.done:
            super().execute(statement)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error


@pytest.mark.parametrize("done", [True, False])
def test_a_commit_that_may_have_been_one_is_neither_repeated_nor_lost(
    tmp_path: Path, done: bool
) -> None:
    path = tmp_path / "m.db"

    def doubtful(path: Path, patience_s: float) -> sqlite3.Connection:
        connect(path, patience_s).close()
        return sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Doubtful
        )

    async def main() -> None:
        Doubtful.done, Doubtful.fails = done, False
        async with Ledger(path, SystemClock(), connect=doubtful, **TIMES) as ledger:
            await ledger.open(opened("first"), admitted=True)
            Doubtful.fails = True
            assert not await opens(ledger, "refused")
            await until(lambda: ledger.trouble is None)
            assert open_ids(path) == ["first"]
            Doubtful.fails = True
            await ledger.close(closed("first"))
            await until(lambda: ledger.trouble is None and not open_ids(path))
            assert closed_ids(path) == ["first"]
            assert sums(path) == sums_of_rows(path)

    asyncio.run(main())


def test_one_wrong_row_costs_the_others_of_its_batch_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.db"

    async def script(ledger: Ledger) -> None:
        rows = [opened("good"), opened("wrong", user="\ud800"), opened("also-good")]
        asked = [ledger.open(row, admitted=True) for row in rows]
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [isinstance(result, ValueError) for result in results] == [False, True, False]
        assert open_ids(path) == ["also-good", "good"]
        assert select(path, "SELECT sum(admitted) FROM totals") == [(2,)]
        with pytest.raises(KeyError):
            await ledger.used(Scope(ScopeKind.TARGET, "t"), Unit.TOKENS, since=0)
        assert ledger.trouble is None

    run(path, script)


def test_a_close_is_answered_at_once_while_the_file_cannot_be_used(tmp_path: Path) -> None:
    """A thread that is stuck with the disk would otherwise hold up every answer."""
    disk, reached, free = Disk(), threading.Event(), threading.Event()

    def slow(path: Path, patience_s: float) -> sqlite3.Connection:
        if disk.most_pages == 1:
            reached.set()
            free.wait(10)
        return disk.connect(path, patience_s)

    async def main() -> None:
        async with Ledger(tmp_path / "m.db", SystemClock(), connect=slow, **TIMES) as ledger:
            disk.fill()
            rows = await fill_up(ledger)
            await until(reached.is_set)
            try:
                async with asyncio.timeout(5):
                    assert not await opens(ledger, "refused")
                    await ledger.close(closed(rows[0]))
            finally:
                disk.most_pages = 1_000_000
                free.set()
        assert closed_ids(tmp_path / "m.db") == [rows[0]]

    asyncio.run(main())
