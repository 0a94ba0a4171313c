"""Who made which response, in the ledger's file: known after a restart, and to all workers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from proxy.store.origins import Origin

MOST = 1_000_000  # some 250 MB

_KEEP = "INSERT OR REPLACE INTO origins VALUES (?, ?, ?, ?, ?)"
_FIND = "SELECT credential, tenant, target, made_at FROM origins WHERE key = ?"
_FORGET = "DELETE FROM origins WHERE key = ?"
_OLDEST = """DELETE FROM origins WHERE key IN
    (SELECT key FROM origins WHERE made_at < ? ORDER BY made_at LIMIT ?)"""
_LIMIT = "SELECT made_at FROM origins ORDER BY made_at DESC LIMIT 1 OFFSET ?"


class OriginTable:
    """The table as a `Book` has it: inside of its transactions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def find(self, key: str) -> Origin | None:
        row = self._connection.execute(_FIND, (key,)).fetchone()
        return None if row is None else Origin(*row)

    def keep(self, keys: Sequence[str], origin: Origin) -> None:
        self._connection.executemany(_KEEP, [(key, *origin) for key in keys])

    def forget(self, key: str) -> None:
        self._connection.execute(_FORGET, (key,))

    def purge(self, before: int, most: int, slice_: int) -> int:
        """Delete the oldest that were made before then, or are more than `most`; say how many."""
        beyond = self._connection.execute(_LIMIT, (most,)).fetchone()
        before = before if beyond is None else max(before, beyond[0] + 1)
        return self._connection.execute(_OLDEST, (before, slice_)).rowcount
