"""What a ledger's file says was used. Reads beside the writer, and keeps it from nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from proxy.store import Attempt, GroupBy, UsageQuery, UsageRow, hour_of
from proxy.store.sqlite import closed_from, opened_from
from proxy.store.sqlite_schema import COUNTS, unavailable
from proxy.types import Usage

PAGE = 1000  # rows that an export holds in memory at a time

_GROUP = {
    GroupBy.KEY: "key",
    GroupBy.TEAM: "team",
    GroupBy.USER: "user",
    GroupBy.TAG: "tag.value",
    GroupBy.MODEL: "model",
    GroupBy.TARGET: "target",
    GroupBy.PROVIDER: "provider",
    GroupBy.DAY: "iif(hour, strftime('%Y-%m-%d', hour, 'unixepoch'), '')",
    GroupBy.HOUR: "iif(hour, strftime('%Y-%m-%dT%H:%MZ', hour, 'unixepoch'), '')",
}
_SUMS = ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTS)
_EACH_TAG = """JOIN json_each(iif(tags = '[]', '[""]', tags)) AS tag"""
_PAGE = """SELECT * FROM attempts WHERE (closed_at, id) > (?, ?) AND closed_at < ?
    ORDER BY closed_at, id LIMIT ?"""


def usage_by(path: Path, query: UsageQuery) -> list[UsageRow]:
    """Return a row for every group with any use, in order; raises LedgerUnavailable."""
    columns = [_GROUP[group] for group in query.group_by]
    places = ", ".join(str(place + 1) for place in range(len(columns)))
    statement = (
        f"SELECT {', '.join([*columns, _SUMS])} FROM totals"  # noqa: S608  # names from the tables above
        f" {_EACH_TAG if GroupBy.TAG in query.group_by else ''} WHERE hour >= ? AND hour < ?"
        f" {f'GROUP BY {places} ORDER BY {places}' if places else ''}"
    )
    until = float("inf") if query.until is None else query.until
    with _reading(path) as connection:
        found = connection.execute(statement, (hour_of(query.since), until)).fetchall()
    # Without groups there is one row of sums, also over nothing.
    return [_usage_row(row, len(columns)) for row in found if any(row[len(columns) :])]


def attempts_after(
    path: Path, after: tuple[float, str], until: float | None, most: int = PAGE
) -> list[Attempt]:
    """Return the next that were closed, in order of (closed_at, id); raises LedgerUnavailable."""
    end = float("inf") if until is None else until
    with _reading(path) as connection:
        found = connection.execute(_PAGE, (*after, end, most)).fetchall()
    return [Attempt(opened_from(columns), closed_from(columns)) for columns in found]


def attempt_pages(path: Path, since: float, until: float | None) -> Iterator[list[Attempt]]:
    """Yield what was closed from `since` until before `until`, in that order, page by page."""
    after = (since, "")
    while page := attempts_after(path, after, until):
        yield page
        after = (page[-1].closed.closed_at, page[-1].closed.id)


def _usage_row(columns: tuple[Any, ...], groups: int) -> UsageRow:
    admitted, requests, attempts, *tokens, unpriced, nano_usd = columns[groups:]
    estimated = tokens[-1]
    tokens[-1] = estimated > 0
    used = (Usage(*tokens), nano_usd, estimated, unpriced)
    return UsageRow(columns[:groups], admitted, requests, attempts, *used)


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as found:
            yield found
    except (sqlite3.Error, OSError) as exc:
        raise unavailable(path, exc) from exc
