"""Which hours and days stand for a query, and what their sums come to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.store import GroupBy, UsageQuery
from proxy.store.totals import (
    DAYS_OF_HOURS,
    Mark,
    Period,
    Sums,
    days_before,
    fields_of,
    is_asked_for,
    periods_of,
    span_of,
)
from proxy.store.windows import DAY_S
from tests.store.rows import HOUR_S

TODAY = 20_000 * DAY_S
NOW = TODAY + 15 * HOUR_S + 7.5
FIRST = days_before(NOW)
NOBODY = ("", "", "", "", "", "", "[]")
COUNTS = tuple(range(1, 15))

moments = st.integers(0, 20 * DAY_S).map(lambda ago: NOW - ago)


def asked(hours: list[int], query: UsageQuery) -> list[Period]:
    marks = dict.fromkeys(hours, Mark(1, 1, 1))
    return sorted(each for each in periods_of(marks, FIRST) if is_asked_for(each, query, FIRST))


def test_hours_are_known_for_a_week_and_days_for_ever() -> None:
    assert FIRST == TODAY - DAYS_OF_HOURS * DAY_S
    hours = [0, FIRST - HOUR_S, FIRST, TODAY]
    assert asked(hours, UsageQuery()) == [
        Period(0, DAY_S),
        Period(FIRST - DAY_S, DAY_S),
        Period(FIRST, HOUR_S),
        Period(TODAY, HOUR_S),
    ]


def test_of_what_is_older_all_of_the_day_counts_at_both_ends() -> None:
    day = FIRST - 3 * DAY_S
    query = UsageQuery((), day + 5 * HOUR_S, day + DAY_S + 1)
    assert span_of(query, FIRST) == (day, day + 2 * DAY_S)
    assert span_of(UsageQuery((), day + 5 * HOUR_S, day + DAY_S), FIRST) == (day, day + DAY_S)
    since = UsageQuery((), TODAY + 5.5 * HOUR_S, NOW)
    assert span_of(since, FIRST) == (TODAY + 5 * HOUR_S, NOW)


@given(hours=st.sets(moments.map(lambda at: int(at // HOUR_S) * HOUR_S)), since=moments)
def test_no_hour_is_in_two_periods_that_are_asked_for(hours: set[int], since: float) -> None:
    query = UsageQuery((), since)
    found = asked(sorted(hours), query)
    for hour in hours:
        holding = [each for each in found if each.start <= hour < each.end]
        assert len(holding) == (hour >= span_of(query, FIRST)[0])


def test_a_day_is_marked_by_all_of_its_hours() -> None:
    hours = {TODAY: Mark(1, 2, 3), TODAY + HOUR_S: Mark(10, 20, 30)}
    found = periods_of(hours, FIRST)
    assert found[Period(TODAY, DAY_S)] == Mark(11, 22, 33)
    assert found[Period(TODAY + HOUR_S, HOUR_S)] == Mark(10, 20, 30)


@pytest.mark.parametrize("period", [Period(0, DAY_S), Period(TODAY, DAY_S), Period(TODAY, HOUR_S)])
def test_a_period_is_found_again_by_its_name(period: Period) -> None:
    assert Period.named(period.name) == period


def test_an_attempt_with_several_tags_counts_under_each_of_them() -> None:
    sums = Sums((GroupBy.TAG, GroupBy.KEY))
    tagged = ("web", "", "", "", "", "", '["a", "b"]')
    sums.add_fields(Period(TODAY, HOUR_S), fields_of({tagged: COUNTS, NOBODY: COUNTS}).items())
    assert [row.group for row in sums.rows()] == [("", ""), ("a", "web"), ("b", "web")]


@pytest.mark.parametrize(
    ("period", "day", "hour"),
    [
        (Period(TODAY + HOUR_S, HOUR_S), "2024-10-04", "2024-10-04T01:00Z"),
        (Period(TODAY, DAY_S), "2024-10-04", "2024-10-04"),
        (Period(0, DAY_S), "", ""),
    ],
)
def test_of_a_day_no_hour_is_told(period: Period, day: str, hour: str) -> None:
    sums = Sums((GroupBy.DAY, GroupBy.HOUR))
    sums.add_fields(period, fields_of({NOBODY: COUNTS}).items())
    assert [row.group for row in sums.rows()] == [(day, hour)]


def test_whole_numbers_stay_whole_however_large() -> None:
    sums = Sums(())
    large = (*(0,) * 13, 2**53 + 1)
    for _ in range(3):
        sums.add_fields(Period(TODAY, DAY_S), fields_of({NOBODY: large}).items())
    (row,) = sums.rows()
    assert row.nano_usd == 3 * (2**53 + 1)


def test_a_group_without_any_use_has_no_row() -> None:
    sums = Sums(())
    sums.add({(): (0,) * 14})
    assert sums.rows() == []
