"""What a ledger's file says was used. Reads beside the writer, and keeps it from nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from proxy.store import Attempt, GroupBy, UsageQuery, UsageRow
from proxy.store.sqlite import closed_from, opened_from
from proxy.store.sqlite_schema import COUNTS, unavailable
from proxy.store.totals import WHOSE, Counts, Group, Mark, Period, Who, span_of, usage_row

PAGE = 1000  # rows that an export holds in memory at a time

_GROUP = {
    GroupBy.KEY: "totals.key",  # the tags have a column of this name too
    GroupBy.TEAM: "team",
    GroupBy.USER: "user",
    GroupBy.TAG: "tag.value",
    GroupBy.MODEL: "model",
    GroupBy.TARGET: "target",
    GroupBy.PROVIDER: "provider",
    GroupBy.DAY: "iif(hour, strftime('%Y-%m-%d', hour, 'unixepoch'), '')",
    GroupBy.HOUR: "iif(hour, strftime(iif(hour < :days_before, '%Y-%m-%d', '%Y-%m-%dT%H:%MZ'),"
    " hour, 'unixepoch'), '')",
}
_SUMS = ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTS)
_EACH_TAG = """JOIN json_each(iif(tags = '[]', '[""]', tags)) AS tag"""
_REPLICA = "SELECT value FROM meta WHERE name = 'replica_id'"
_MARKS = """SELECT hour, count(*), sum(admitted), sum(attempts) FROM totals
    WHERE hour >= ? GROUP BY hour"""
_PERIOD = f"""SELECT {", ".join(WHOSE)}, {_SUMS} FROM totals WHERE hour >= ? AND hour < ?
    GROUP BY {", ".join(WHOSE)}"""  # noqa: S608
_PAGE = """SELECT * FROM attempts WHERE (closed_at, id) > (?, ?) AND closed_at < ?
    ORDER BY closed_at, id LIMIT ?"""


def usage_by(path: Path, query: UsageQuery) -> list[UsageRow]:
    """Return a row for every group with any use, in order; raises LedgerUnavailable."""
    return [usage_row(*found) for found in sums_by(path, query).items()]


def sums_by(path: Path, query: UsageQuery, *, days_before: int = 0) -> dict[Group, Counts]:
    """
    Return the sums of every group with any use, in order; raises LedgerUnavailable.

    What is older than `days_before`, the start of a day, is taken day by day: all of the day that
    `since` lies in, and of the one that `until` does; of its hours only the day is known.
    """
    columns = [_GROUP[group] for group in query.group_by]
    places = ", ".join(str(place + 1) for place in range(len(columns)))
    statement = (
        f"SELECT {', '.join([*columns, _SUMS])} FROM totals"  # noqa: S608  # names from the tables above
        f" {_EACH_TAG if GroupBy.TAG in query.group_by else ''}"
        " WHERE hour >= :since AND hour < :until"
        f" {f'GROUP BY {places} ORDER BY {places}' if places else ''}"
    )
    since, until = span_of(query, days_before)
    values = {"since": since, "until": until, "days_before": days_before}
    with _reading(path) as connection:
        found = connection.execute(statement, values).fetchall()
    width = len(columns)
    # Without groups there is one row of sums, also over nothing.
    return {row[:width]: row[width:] for row in found if any(row[width:])}


def replica_of(path: Path) -> str:
    """Return the name that the file was given when it was made; raises LedgerUnavailable."""
    with _reading(path) as connection:
        (name,) = connection.execute(_REPLICA).fetchone()
    return str(name)


def hour_marks(path: Path, since: int) -> dict[int, Mark]:
    """Return a mark for each hour from then on; raises LedgerUnavailable."""
    with _reading(path) as connection:
        return {hour: Mark(*mark) for hour, *mark in connection.execute(_MARKS, (since,))}


def sums_of(path: Path, period: Period) -> dict[Who, Counts]:
    """Return the sums of a period for all that is told apart; raises LedgerUnavailable."""
    with _reading(path) as connection:
        found = connection.execute(_PERIOD, (period.start, period.end)).fetchall()
    return {row[: len(WHOSE)]: row[len(WHOSE) :] for row in found}


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


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as found:
            yield found
    except (sqlite3.Error, OSError) as exc:
        raise unavailable(path, exc) from exc
