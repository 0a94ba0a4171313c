"""
What is told of use, in JSON and in CSV: the columns of a report and those of an export. Pure.

Money is a decimal number in a text: a float would not hold every nano-dollar.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from operator import attrgetter

from proxy.limits import usd
from proxy.period import iso
from proxy.store import Attempt, GroupBy, UsageRow
from proxy.types import COUNTS

# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WHOLES = ("prompt_tokens", "completion_tokens")
_PARTS = tuple(name for name in COUNTS if name not in _WHOLES)  # of the wholes

_USAGE: Mapping[str, Callable[[UsageRow], object]] = {
    "requests": attrgetter("requests"),
    "attempts": attrgetter("attempts"),
    **{name: attrgetter(f"usage.{name}") for name in _WHOLES},
    "cost_usd": lambda row: usd(row.nano_usd),
    **{name: attrgetter(f"usage.{name}") for name in _PARTS},
    "admitted": attrgetter("admitted"),
    "estimated": attrgetter("estimated"),
    "unpriced": attrgetter("unpriced"),
}

_NAMES = ("id", "request_id", "attempt", "key", "team", "user", "tags", "model", "target")
_ATTEMPT: Mapping[str, Callable[[Attempt], object]] = {
    **{name: attrgetter(f"opened.{name}") for name in (*_NAMES, "provider", "surface")},
    **{name: attrgetter(f"closed.usage.{name}") for name in (*_WHOLES, *_PARTS)},
    "cost_usd": lambda row: None if row.closed.nano_usd is None else usd(row.closed.nano_usd),
    "outcome": attrgetter("closed.outcome"),
    "answered": attrgetter("closed.answered"),
    "estimated": attrgetter("closed.usage.estimated"),
    "reserved_prompt_tokens": attrgetter("opened.prompt_tokens"),
    "reserved_completion_tokens": attrgetter("opened.completion_tokens"),
    "reserved_cost_usd": lambda row: usd(row.opened.nano_usd),
    "opened_at": lambda row: iso(row.opened.opened_at, timespec="microseconds"),
    "closed_at": lambda row: iso(row.closed.closed_at, timespec="microseconds"),
}
ATTEMPT_COLUMNS = tuple(_ATTEMPT)


def usage_columns(group_by: Sequence[GroupBy]) -> tuple[str, ...]:
    return (*group_by, *_USAGE)


def usage_fields(row: UsageRow, group_by: Sequence[GroupBy]) -> dict[str, object]:
    """Return one group of a report by its columns."""
    names = {group.value: name for group, name in zip(group_by, row.group, strict=True)}
    return {**names, **{name: take(row) for name, take in _USAGE.items()}}


def attempt_fields(attempt: Attempt) -> dict[str, object]:
    """Return one row of the ledger by its columns; the cost is None where no price is known."""
    return {name: take(attempt) for name, take in _ATTEMPT.items()}


def csv_line(values: Iterable[object]) -> str:
    """
    Return one line of CSV (RFC 4180): empty for None, `true` and `false`, several in one by commas.

    A text that a spreadsheet would take for a formula (it begins with = + - @, a tab or a carriage
    return) gets an apostrophe in front: the names in it were chosen by strangers.
    """
    line = StringIO(newline="")
    csv.writer(line).writerow([_cell(value) for value in values])
    return line.getvalue()


def _cell(value: object) -> object:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f"'{value}" if value.startswith(_FORMULA) else value
        case tuple():
            return _cell(",".join(value))
        case _:
            return value
