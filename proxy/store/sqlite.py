"""
The ledger's book: its rows and their sums in one SQLite file, written by one thread.

Every method runs between `begin` and `commit`, and what it did is there for the next one at once.
An error of SQLite's is raised as it is; whoever calls rolls back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

import orjson

from proxy.limits import Scope, ScopeKind, Unit
from proxy.store import MOST_AMOUNT, Admitted, Closed, Opened, RowInvalid, hour_of
from proxy.store.sqlite_origins import OriginTable
from proxy.store.sqlite_schema import COUNTS, GROUP, WHO
from proxy.types import Usage

LOST = "lost"  # the outcome of a row whose process ended before it was closed
PATTERN = "pattern"  # a scope that holds every model whose name fits, as `claude-*`

OPENED_WIDTH = 16  # columns that both tables of rows begin with: those of `Opened`, and the owner
CLOSED_WIDTH = 13

Columns: TypeAlias = tuple[Any, ...]  # what both tables of rows begin with


def _insert(table: str, width: int) -> str:
    return f"INSERT OR ABORT INTO {table} VALUES ({', '.join('?' * width)})"  # noqa: S608  # ours


def _add(counts: Iterable[str]) -> str:
    return ", ".join(f"{name} = {name} + excluded.{name}" for name in counts)


_OPEN = _insert("open_attempts", OPENED_WIDTH)
_END = "DELETE FROM open_attempts WHERE id = ?"
_CLOSE = _insert("attempts", OPENED_WIDTH + CLOSED_WIDTH).replace("ABORT", "IGNORE")
_COUNT = f"{_insert('totals', len(GROUP) + len(COUNTS))} ON CONFLICT DO UPDATE SET {_add(COUNTS)}"
# Who asked for what, the target and its provider.
_NAMES = slice(Opened._fields.index("key"), Opened._fields.index("surface"))
_NO_ATTEMPT = (0,) * (len(COUNTS) - 1)  # what an admitted request counts, but for itself
_ADMITTED = (1, *_NO_ATTEMPT)

_AMOUNT = {
    Unit.REQUESTS: "admitted",
    Unit.TOKENS: "prompt_tokens + completion_tokens",
    Unit.NANO_USD: "nano_usd",
}
# All names in these are our own: a scope that no row has a column for finds no statement.
_IS = {kind: f"{kind} = ?1" for kind in WHO}
_IS[PATTERN] = "model GLOB ?1"
_SUM = {
    (kind, unit): f"SELECT owner, coalesce(sum({amount}), 0) FROM totals"  # noqa: S608
    f" WHERE {is_} AND hour >= ?2 GROUP BY owner"
    for kind, is_ in _IS.items()
    for unit, amount in _AMOUNT.items()
}
_RESERVED = {
    Unit.REQUESTS: "0",  # they are counted when they are admitted
    Unit.TOKENS: "reserved_prompt_tokens + reserved_completion_tokens",
    Unit.NANO_USD: "reserved_nano_usd",
}
_HELD = {
    (kind, unit): f"SELECT owner, coalesce(sum({amount}), 0) FROM open_attempts"  # noqa: S608
    f" WHERE {is_} GROUP BY owner"
    for kind, is_ in _IS.items()
    for unit, amount in _RESERVED.items()
}
_RECENT = {
    (kind, unit): f"SELECT owner, closed_at, coalesce({amount}, 0) FROM attempts"  # noqa: S608
    f" WHERE closed_at >= ?2 AND {is_} ORDER BY 2"
    for kind, is_ in _IS.items()
    for unit, amount in _AMOUNT.items()
} | {
    (kind, Unit.REQUESTS): f"SELECT owner, opened_at, 1 FROM attempts WHERE closed_at >= ?2 AND"  # noqa: S608
    f" opened_at >= ?2 AND attempt = 1 AND {is_} UNION ALL SELECT owner, opened_at, 1 FROM"
    f" open_attempts WHERE opened_at >= ?2 AND attempt = 1 AND {is_} ORDER BY 2"
    for kind, is_ in _IS.items()
}

_PURGE_ROWS = """DELETE FROM attempts WHERE (closed_at, id) IN
    (SELECT closed_at, id FROM attempts WHERE closed_at < ? ORDER BY closed_at, id LIMIT ?)"""
_OLDEST = f"SELECT * FROM totals WHERE hour > 0 AND hour < ? ORDER BY {', '.join(GROUP)} LIMIT ?"  # noqa: S608
_CARRY = f"""INSERT INTO totals SELECT 0, {", ".join(WHO)}, '', '', '[]', owner,
    {", ".join(f"sum({name})" for name in COUNTS)} FROM ({_OLDEST})
    GROUP BY {", ".join(WHO)}, owner
    ON CONFLICT DO UPDATE SET {_add(COUNTS)}"""  # noqa: S608
_PURGE_TOTALS = f"""DELETE FROM totals WHERE ({", ".join(GROUP)}) IN
    (SELECT {", ".join(GROUP)} FROM ({_OLDEST}))"""  # noqa: S608


class Book:
    """
    One connection, and the rows that this process has open.

    `rows` outlives the connection: what is open is known even when its file is gone.
    """

    def __init__(
        self, connection: sqlite3.Connection, owner: str, rows: dict[str, Columns]
    ) -> None:
        self.origins = OriginTable(connection)
        self._connection = connection
        self._run = connection.execute
        self._owner = owner
        self._nowhere = ("", "", "[]", owner)  # the target, provider and tags of no attempt
        self._rows = rows
        self._changes: dict[str, Columns | None] = {}  # to `rows`, by this transaction
        # What it adds to the totals: mostly of a few groups, whose sums are written once.
        self._counts: dict[tuple[Any, ...], list[tuple[int, ...]]] = {}

    def begin(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._write_sums()
        self._run("COMMIT")
        for row_id, row in self._changes.items():
            if row is None:
                self._rows.pop(row_id, None)
            else:
                self._rows[row_id] = row
        self._changes.clear()

    def rollback(self) -> None:
        self._changes.clear()
        self._counts.clear()
        if self._connection.in_transaction:
            self._run("ROLLBACK")

    def probe(self) -> None:
        """Write something that changes nothing, to see whether writing is possible."""
        self._run("UPDATE meta SET value = value WHERE name = 'replica_id'")

    def replica_id(self) -> str:
        (name,) = self._run("SELECT value FROM meta WHERE name = 'replica_id'").fetchone()
        return str(name)

    def open(self, row: Opened, *, admitted: bool) -> None:
        self._open(columns_of(row, self._owner))
        if admitted:
            who = (hour_of(row.opened_at), row.key, row.team, row.user, row.model)
            self._add((*who, *self._nowhere), _ADMITTED)

    def _open(self, row: Columns) -> None:
        try:
            self._run(_OPEN, row)
        except sqlite3.IntegrityError as exc:
            raise RowInvalid(f"the attempt {row[0]} is open already") from exc
        self._changes[row[0]] = row

    def withdraw(self, row_id: str) -> None:
        """Have no such row: its call was never made."""
        if self._find(row_id) is not None:
            self._run(_END, (row_id,))
            self._changes[row_id] = None

    def close(self, row: Closed) -> None:
        """Have the row closed, and in the totals, once. One that is not open stays as it is."""
        opened = self._find(row.id)
        if opened is None:
            return
        self._changes[row.id] = None
        # Another process may have closed it, if somebody removed the lock file that says we live.
        if self._run(_END, (row.id,)).rowcount:
            self._finish(opened, row)

    def admit(self, who: Admitted, requests: int = 1) -> None:
        self._add((*who, *self._nowhere), (requests, *_NO_ATTEMPT))

    def used(self, scope: Scope, unit: Unit, since: float) -> dict[str, int]:
        """Return what each owner used."""
        self._write_sums()
        kind, name = _named(scope)
        return dict(self._run(_SUM[kind, unit], (name, since)).fetchall())

    def held(self, scope: Scope, unit: Unit) -> dict[str, int]:
        """Return what each owner has reserved in its open rows."""
        kind, name = _named(scope)
        return dict(self._run(_HELD[kind, unit], (name,)).fetchall())

    def recent(self, scope: Scope, unit: Unit, since: float) -> list[tuple[str, float, int]]:
        """Return the owner, the moment and the amount of each use, in order of the moments."""
        kind, name = _named(scope)
        return self._run(_RECENT[kind, unit], (name, since)).fetchall()

    def owners(self) -> list[str]:
        """Return whose rows are open."""
        found = self._run("SELECT DISTINCT owner FROM open_attempts")
        return [owner for (owner,) in found]

    def lose(self, owners: Iterable[str], now: float) -> list[Opened]:
        """Have the open rows of these owners closed, each with all that it had reserved."""
        lost = []
        for owner in owners:
            found = self._run("SELECT * FROM open_attempts WHERE owner = ?", (owner,)).fetchall()
            for row in found:
                self._run(_END, (row[0],))
                self._finish(row, _all_of(opened := opened_from(row), now))
                lost.append(opened)
        return lost

    def purge(self, before: int, totals_before: int, most: int) -> int:
        """Delete that many of the rows, or else of the totals, of hours before these at most."""
        if (gone := self._run(_PURGE_ROWS, (before, most)).rowcount) > 0:
            return gone
        self._write_sums()
        self._run(_CARRY, (totals_before, most))
        return self._run(_PURGE_TOTALS, (totals_before, most)).rowcount

    def reconcile(self) -> None:
        """
        Have exactly `rows` open in the file, after a commit that may or may not have been one.

        A row that nobody was told of goes. One that is missing comes back, for the file may be new;
        if it is missing because it is closed, it will be found closed when it is closed again.
        """
        mine = self._run("SELECT id FROM open_attempts WHERE owner = ?", (self._owner,)).fetchall()
        found = {row_id for (row_id,) in mine}
        for row_id in found - self._rows.keys():
            self._run(_END, (row_id,))
        for row_id in self._rows.keys() - found:
            with suppress(RowInvalid):  # it is another's now, who took us for dead
                self._open(self._rows[row_id])

    def end(self) -> None:
        """Close the file, with all that is in its write-ahead log."""
        try:
            self._run("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()

    def drop(self) -> None:
        """Let go of a file that cannot be used."""
        self._connection.close()

    def _find(self, row_id: str) -> Columns | None:
        if row_id in self._changes:
            return self._changes[row_id]
        return self._rows.get(row_id)

    def _finish(self, opened: Columns, row: Closed) -> None:
        if not _is_sane(row):
            row = _all_of(opened_from(opened), row.closed_at, row)
        # The kinds of tokens are its columns, in their order.
        _, usage, nano_usd, outcome, answered, at = row
        if self._run(_CLOSE, (*opened, at, *usage, nano_usd, outcome, answered)).rowcount:
            group = (hour_of(at), *opened[_NAMES], *opened[-2:])
            self._add(group, (0, answered, 1, *usage, nano_usd is None, nano_usd or 0))

    def _add(self, group: tuple[Any, ...], counts: tuple[int, ...]) -> None:
        """Have the counts added to the totals of the group before they are read or committed."""
        self._counts.setdefault(group, []).append(counts)

    def _write_sums(self) -> None:
        for group, counts in self._counts.items():
            self._run(_COUNT, (*group, *map(sum, zip(*counts, strict=True))))
        self._counts.clear()


def columns_of(row: Opened, owner: str) -> Columns:
    return (*row[:-1], _as_text(row.tags), owner)


def opened_from(columns: tuple[Any, ...]) -> Opened:
    """Return the beginning of a row as it was given; takes the columns of either table."""
    *plain, tags, _ = columns[:OPENED_WIDTH]
    return Opened._make((*plain, tuple(orjson.loads(tags))))


def closed_from(columns: tuple[Any, ...]) -> Closed:
    """Return the end of a row as it was given; takes the columns of `attempts`."""
    at, *tokens, nano_usd, outcome, answered = columns[OPENED_WIDTH:]
    tokens[-1] = bool(tokens[-1])  # `estimated`
    usage = Usage(*tokens)
    return Closed(columns[0], usage, nano_usd, outcome, bool(answered), at)


def _named(scope: Scope) -> tuple[str, str]:
    """Return the kind of scope that the statements know, and its name in them."""
    if scope.kind is ScopeKind.MODEL and "*" in scope.name:
        # To SQLite these two are signs, and to nobody else.
        return PATTERN, scope.name.replace("[", "[[]").replace("?", "[?]")
    return scope.kind, scope.name


def _as_text(tags: tuple[str, ...]) -> str:
    return orjson.dumps(sorted(set(tags))).decode() if tags else "[]"


def _is_sane(row: Closed) -> bool:
    usage = row.usage
    return min(usage) >= 0 and max(usage) <= MOST_AMOUNT and 0 <= (row.nano_usd or 0) <= MOST_AMOUNT


def _all_of(opened: Opened, at: float, row: Closed | None = None) -> Closed:
    """Return a row's end with all that it reserved, where what it used is not known."""
    usage = Usage(opened.prompt_tokens, opened.completion_tokens, estimated=True)
    outcome, answered = (row.outcome, row.answered) if row else (LOST, False)
    return Closed(opened.id, usage, opened.nano_usd, outcome, answered, at)
