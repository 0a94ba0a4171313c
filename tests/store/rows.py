"""Rows of the ledger to test with, and what a file of it really holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from proxy.store import Closed, Opened
from proxy.store.sqlite_schema import COUNTS
from proxy.types import Usage

HOUR_S = 3600
T0 = 500_000 * HOUR_S  # the start of an hour

_OPENED = Opened(
    id="a1",
    request_id="r1",
    attempt=1,
    key="web",
    team="product",
    user="ann",
    tags=(),
    model="gpt",
    target="gpt/openai/gpt-4o",
    provider="openai",
    surface="chat",
    opened_at=T0 + 1.5,
    prompt_tokens=100,
    completion_tokens=400,
    nano_usd=9000,
)
_USAGE = Usage(7, 3, 2, 1, 1, 1, 0, 0)
_CLOSED = Closed("a1", _USAGE, 50, "ok", answered=True, closed_at=T0 + 2.5)


def opened(row_id: str = "a1", **changes: Any) -> Opened:
    return _OPENED._replace(id=row_id, request_id=f"r-{row_id}", **changes)


def closed(row_id: str = "a1", **changes: Any) -> Closed:
    return _CLOSED._replace(id=row_id, **changes)


def select(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Return what the file holds, as another program sees it."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def open_ids(path: Path) -> list[str]:
    return [row_id for (row_id,) in select(path, "SELECT id FROM open_attempts ORDER BY id")]


def closed_ids(path: Path) -> list[str]:
    return [row_id for (row_id,) in select(path, "SELECT id FROM attempts ORDER BY id")]


def sums(path: Path, where: str = "hour > 0") -> tuple[int, ...]:
    """Return the totals of these hours; without `admitted`, which no row speaks of."""
    columns = ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTS[1:])
    ((*found,),) = select(path, f"SELECT {columns} FROM totals WHERE {where}")  # noqa: S608
    return tuple(found)


def sums_of_rows(path: Path) -> tuple[int, ...]:
    """Return what the totals have to be."""
    columns = {name: name for name in COUNTS[1:]}
    columns |= {"requests": "answered", "attempts": "1", "unpriced": "nano_usd IS NULL"}
    added = ", ".join(f"coalesce(sum({column}), 0)" for column in columns.values())
    ((*found,),) = select(path, f"SELECT {added} FROM attempts")  # noqa: S608
    return tuple(found)
