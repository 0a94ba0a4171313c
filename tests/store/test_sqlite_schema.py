"""The file's version, and what is said when the file cannot be used."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from proxy.store import LedgerUnavailable
from proxy.store.sqlite_schema import COUNTS, MIGRATIONS, connect, migrate, unavailable
from proxy.types import Usage
from tests.store.rows import select

ONE = ("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)")
TWO = ("ALTER TABLE a ADD COLUMN y", "UPDATE a SET y = x + 1")


def test_a_new_file_has_the_newest_version_and_survives_a_killed_process(tmp_path: Path) -> None:
    with closing(connect(tmp_path / "m.db", 1.0)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)


def test_an_older_file_is_brought_forward_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, path, (ONE,))
        migrate(connection, path, (ONE, TWO))
        migrate(connection, path, (ONE, TWO))
    assert select(path, "SELECT * FROM a") == [(1, 2)]
    assert select(path, "PRAGMA user_version") == [(2,)]


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, path, (ONE,))
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, path, (ONE, (*TWO, "nonsense")))
        assert not connection.in_transaction
    assert select(path, "SELECT * FROM a") == [(1,)]
    assert select(path, "PRAGMA user_version") == [(1,)]


def test_a_file_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with closing(connect(path, 1.0)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerUnavailable, match=r"m\.db is of version 99.*newer Mobius"):
        connect(path, 1.0)
    assert select(path, "PRAGMA user_version") == [(99,)]


def test_processes_that_make_the_file_together_make_it_once(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    start = threading.Barrier(8)
    made: list[object] = []

    def make() -> None:
        start.wait()
        try:
            connect(path, 10.0).close()
            made.append(None)
        except Exception as exc:
            made.append(exc)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [None] * 8
    assert select(path, "SELECT count(*) FROM meta") == [(1,)]


def of_sqlite(code: int) -> sqlite3.Error:
    error = sqlite3.OperationalError("it said so")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (of_sqlite(sqlite3.SQLITE_FULL), "make room, or set mobius.ledger.path"),
        (of_sqlite(sqlite3.SQLITE_READONLY_DBMOVED), "mount a volume"),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN_ISDIR), "mount a volume"),
        (of_sqlite(sqlite3.SQLITE_IOERR_WRITE), "look at the disk"),
        (of_sqlite(sqlite3.SQLITE_CORRUPT_INDEX), "move it away"),
        (of_sqlite(sqlite3.SQLITE_NOTADB), "no database"),
        (of_sqlite(sqlite3.SQLITE_BUSY_SNAPSHOT), "end that program"),
        (of_sqlite(sqlite3.SQLITE_LOCKED), "end that program"),
        (of_sqlite(sqlite3.SQLITE_ERROR), "cannot be used"),
        (sqlite3.ProgrammingError("no code"), "cannot be used"),
        (PermissionError("denied"), "mount a volume"),
    ],
)
def test_the_message_says_where_and_what_to_do(error: sqlite3.Error | OSError, cure: str) -> None:
    message = str(unavailable(Path("/data/m.db"), error))
    assert message.startswith(f"the ledger /data/m.db is not available ({error}): ")
    assert cure in message


def test_the_kinds_of_tokens_are_columns_in_the_order_of_usage() -> None:
    assert COUNTS[3:12] == Usage._fields
