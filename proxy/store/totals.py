"""
The sums of use that replicas show each other: by hour, and by day of what is longer ago. Pure.

A year of hours would be too many to add up, so hours are there for a week and days for as long as
the ledger keeps anything. What was used before that is one sum without a date, in the day 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from math import inf
from typing import Any, NamedTuple, TypeAlias

import orjson

from proxy.store import HOUR_S, GroupBy, UsageQuery, UsageRow, hour_of
from proxy.store.sqlite_schema import GROUP
from proxy.store.windows import DAY_S
from proxy.types import Usage

DAYS_OF_HOURS = 8  # before today: the hours of an older day are not looked at
WHOSE = GROUP[1:-1]  # all that the sums of one period are told apart by

Who: TypeAlias = tuple[str, ...]  # one of those
Counts: TypeAlias = tuple[int, ...]  # in the order of the ledger's columns
Group: TypeAlias = tuple[str, ...]  # in the order of a query's `group_by`


class Mark(NamedTuple):
    """What of one period changes whenever its sums do."""

    rows: int
    admitted: int
    attempts: int


@dataclass(frozen=True, slots=True, order=True)
class Period:
    """An hour or a day of UTC."""

    start: int
    length_s: int

    @property
    def end(self) -> int:
        return self.start + self.length_s

    @property
    def name(self) -> str:
        return f"{'d' if self.length_s == DAY_S else 'h'}{self.start}"

    @classmethod
    def named(cls, name: str) -> Period:
        return cls(int(name[1:]), DAY_S if name[0] == "d" else HOUR_S)


def day_of(moment: float) -> int:
    """Return the first second of the day that holds the moment."""
    return int(moment // DAY_S) * DAY_S


def days_before(wall_s: float) -> int:
    """Return the first moment whose hours are looked at now; all before it goes by days."""
    return day_of(wall_s) - DAYS_OF_HOURS * DAY_S


def span_of(query: UsageQuery, first_hour: int) -> tuple[int, float]:
    """Return the first moment that a query is about and the next that it is not."""
    since, until = hour_of(query.since), inf if query.until is None else query.until
    if since < first_hour:
        since = day_of(since)
    if until < first_hour:
        until = -day_of(-until)  # the next day, unless it is the first moment of one
    return since, until


def is_asked_for(period: Period, query: UsageQuery, first_hour: int) -> bool:
    """Say whether the sums of a period are a part of the answer; no use is in two that are."""
    since, until = span_of(query, first_hour)
    by_day = period.start < first_hour
    return by_day == (period.length_s == DAY_S) and since <= period.start < until


def periods_of(hours: Mapping[int, Mark], first_hour: int) -> dict[Period, Mark]:
    """Return the periods that others may look at, from those hours of the ledger."""
    found: dict[Period, Mark] = {}
    for hour, mark in hours.items():
        day = Period(day_of(hour), DAY_S)
        before = found.get(day, Mark(0, 0, 0))
        found[day] = Mark(*(old + new for old, new in zip(before, mark, strict=True)))
        if hour >= first_hour:
            found[Period(hour, HOUR_S)] = mark
    return found


def fields_of(sums: Mapping[Who, Counts]) -> dict[bytes, bytes]:
    """Return the sums of a period as they are told."""
    return {orjson.dumps(who): orjson.dumps(counts) for who, counts in sums.items()}


class Sums:
    """Adds up what several replicas used, by the groups of one query."""

    def __init__(self, group_by: tuple[GroupBy, ...]) -> None:
        self._group_by = group_by
        self._sums: dict[Group, Counts] = {}

    def add(self, sums: Mapping[Group, Counts]) -> None:
        for group, counts in sums.items():
            before = self._sums.get(group)
            self._sums[group] = (
                counts
                if before is None
                else tuple(old + new for old, new in zip(before, counts, strict=True))
            )

    def add_fields(self, period: Period, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Add what was told of one period."""
        for name, value in fields:
            who = dict(zip(WHOSE, orjson.loads(name), strict=True))
            counts = tuple(orjson.loads(value))
            for group in self._groups_of(who, period.start, period.length_s == DAY_S):
                self.add({group: counts})

    def rows(self) -> list[UsageRow]:
        """Return a row for every group with any use, in order."""
        return [usage_row(*each) for each in sorted(self._sums.items()) if any(each[1])]

    def _groups_of(self, who: Mapping[str, str], start: int, is_day: bool) -> Iterator[Group]:
        choices: list[Iterable[str]] = []
        for group in self._group_by:
            match group:
                case GroupBy.TAG:
                    choices.append(orjson.loads(who["tags"]) or [""])
                case GroupBy.DAY:
                    choices.append([_label(start, is_day=True)])
                case GroupBy.HOUR:
                    choices.append([_label(start, is_day=is_day)])
                case _:
                    choices.append([who[group]])
        return product(*choices)


def usage_row(group: Group, counts: Counts) -> UsageRow:
    """Return one row of a report from its sums."""
    admitted, requests, attempts, *tokens, unpriced, nano_usd = counts
    estimated = tokens[-1]
    kinds: list[Any] = [*tokens[:-1], estimated > 0]
    return UsageRow(
        group, admitted, requests, attempts, Usage(*kinds), nano_usd, estimated, unpriced
    )


def _label(start: int, *, is_day: bool) -> str:
    if not start:
        return ""
    return datetime.fromtimestamp(start, UTC).strftime("%Y-%m-%d" if is_day else "%Y-%m-%dT%H:%MZ")
