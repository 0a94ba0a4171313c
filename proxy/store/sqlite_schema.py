"""
The tables of the ledger's file, how they came to be, and what is said when it cannot be used.

`open_attempts` holds what is under way and `attempts` what is finished, in the order in which it
was: a row is written twice, at the end of a table each time, and no index has to follow it.
`totals` are the sums by hour and process that limits and reports ask for. Hour 0 holds what was
purged. `origins` says who made which response.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from proxy.store import LedgerUnavailable

COUNTS = (
    "admitted",
    "requests",
    "attempts",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "reasoning_tokens",
    "audio_prompt_tokens",
    "audio_completion_tokens",
    "estimated",
    "unpriced",
    "nano_usd",
)
WHO = ("key", "team", "user", "model")  # whose use limits count together
GROUP = ("hour", *WHO, "target", "provider", "tags", "owner")

_OPENED = """
    id TEXT NOT NULL, request_id TEXT NOT NULL, attempt INTEGER NOT NULL,
    key TEXT NOT NULL, team TEXT NOT NULL, user TEXT NOT NULL,
    model TEXT NOT NULL, target TEXT NOT NULL, provider TEXT NOT NULL, surface TEXT NOT NULL,
    opened_at REAL NOT NULL, reserved_prompt_tokens INTEGER NOT NULL,
    reserved_completion_tokens INTEGER NOT NULL, reserved_nano_usd INTEGER NOT NULL,
    tags TEXT NOT NULL, owner TEXT NOT NULL
"""

# One entry a version, each a list of statements. An entry that was released is never edited.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('replica_id', lower(hex(randomblob(8))))",
        f"CREATE TABLE open_attempts ({_OPENED}, PRIMARY KEY (id)) WITHOUT ROWID",
        f"""CREATE TABLE attempts ({_OPENED},
            closed_at REAL NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
            cache_write_1h_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
            audio_prompt_tokens INTEGER NOT NULL, audio_completion_tokens INTEGER NOT NULL,
            estimated INTEGER NOT NULL, nano_usd INTEGER, outcome TEXT NOT NULL,
            answered INTEGER NOT NULL, PRIMARY KEY (closed_at, id)) WITHOUT ROWID""",
        """CREATE TABLE totals (
            hour INTEGER NOT NULL, key TEXT NOT NULL, team TEXT NOT NULL, user TEXT NOT NULL,
            model TEXT NOT NULL, target TEXT NOT NULL, provider TEXT NOT NULL, tags TEXT NOT NULL,
            owner TEXT NOT NULL, admitted INTEGER NOT NULL, requests INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
            cached_tokens INTEGER NOT NULL, cache_write_tokens INTEGER NOT NULL,
            cache_write_1h_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL,
            audio_prompt_tokens INTEGER NOT NULL, audio_completion_tokens INTEGER NOT NULL,
            estimated INTEGER NOT NULL, unpriced INTEGER NOT NULL, nano_usd INTEGER NOT NULL,
            PRIMARY KEY (hour, key, team, user, model, target, provider, tags, owner)
            ) WITHOUT ROWID""",
        # They change once an hour for each group, not with every row.
        *(f"CREATE INDEX totals_by_{name} ON totals ({name}, hour)" for name in WHO),
    ),
    (
        """CREATE TABLE origins (
            key TEXT PRIMARY KEY, credential TEXT NOT NULL, tenant TEXT NOT NULL,
            target TEXT NOT NULL, made_at INTEGER NOT NULL) WITHOUT ROWID""",
        "CREATE INDEX origins_by_age ON origins (made_at)",
    ),
)

_CURE = {  # by SQLite's primary result code
    sqlite3.SQLITE_FULL: "the disk is full; make room, or set mobius.ledger.path to another disk",
    sqlite3.SQLITE_READONLY: "it cannot be written; mount a volume there that may be written, or "
    "set mobius.ledger.path to such a place",
    sqlite3.SQLITE_CORRUPT: "it is damaged; move it away and a new one is begun",
    sqlite3.SQLITE_NOTADB: "it is no database; move it away, or set mobius.ledger.path to another "
    "file",
    sqlite3.SQLITE_BUSY: "another program keeps it locked; end that program",
    sqlite3.SQLITE_IOERR: "its disk fails, or allows no more; look at the disk, or set "
    "mobius.ledger.path to another one",
}
_CURE[sqlite3.SQLITE_CANTOPEN] = _CURE[sqlite3.SQLITE_PERM] = _CURE[sqlite3.SQLITE_READONLY]
_CURE[sqlite3.SQLITE_LOCKED] = _CURE[sqlite3.SQLITE_BUSY]


def unavailable(path: Path, error: sqlite3.Error | OSError) -> LedgerUnavailable:
    """Return what to raise from an error of SQLite or of the file system."""
    if isinstance(error, OSError):
        cure = _CURE[sqlite3.SQLITE_READONLY]
    else:
        # Errors of the sqlite3 module itself, such as a missing table column, carry no code.
        cure = _CURE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "it cannot be used")
    return LedgerUnavailable(f"the ledger {path} is not available ({error}): {cure}")


def connect(path: Path, patience_s: float) -> sqlite3.Connection:
    """
    Open the file for writing, in the newest version of its tables; make it where it is missing.

    Raises sqlite3.Error, OSError, and LedgerUnavailable where the file is of a newer version.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():  # which SQLite takes for a failing disk
        raise IsADirectoryError(f"{path} is a folder")
    # It travels from the thread that opens it to none other, but is closed wherever a test ends.
    connection = sqlite3.connect(
        path, timeout=patience_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        # A process that is killed loses nothing, for the system has every commit; a power cut may
        # cost the last moments, but never the file.
        connection.execute("PRAGMA synchronous = NORMAL")
        migrate(connection, path)
        # The writer waits by itself: SQLite's pauses grow so long that a busy neighbour starves it.
        connection.execute("PRAGMA busy_timeout = 0")
    except BaseException:
        connection.close()
        raise
    return connection


def migrate(
    connection: sqlite3.Connection,
    path: Path,
    migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
) -> None:
    """Bring the tables to the newest version, all steps or none; raises LedgerUnavailable."""
    if _version(connection) == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)  # another process may have been quicker
        if version > len(migrations):
            raise LedgerUnavailable(
                f"the ledger {path} is of version {version}, and this Mobius knows versions up to "
                f"{len(migrations)}: use a newer Mobius, or set mobius.ledger.path to another file"
            )
        for step in migrations[version:]:
            for statement in step:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
