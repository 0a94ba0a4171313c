"""The calendar windows, at their edges."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest

from proxy.limits import Window
from proxy.store.windows import DAY_S, Labels, bounds, labels_at, months_around


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("wall_s", "first", "following"),
    [
        (at(2026, 2, 28, 23, 59, 59), at(2026, 2, 1), at(2026, 3, 1)),
        (at(2026, 3, 1), at(2026, 3, 1), at(2026, 4, 1)),
        (at(2028, 2, 29), at(2028, 2, 1), at(2028, 3, 1)),
        (at(2026, 12, 31, 23, 59, 59), at(2026, 12, 1), at(2027, 1, 1)),
        (at(2027, 1, 1), at(2027, 1, 1), at(2027, 2, 1)),
    ],
)
def test_a_month_begins_on_its_first_day(wall_s: float, first: float, following: float) -> None:
    assert bounds(Window.MONTH, wall_s) == (first, following)


def test_a_day_is_utc_and_a_total_has_no_end() -> None:
    wall_s = at(2026, 7, 14, 13, 30)
    assert bounds(Window.DAY, wall_s) == (at(2026, 7, 14), at(2026, 7, 15))
    assert bounds(Window.DAY, at(2026, 7, 14)) == (at(2026, 7, 14), at(2026, 7, 15))
    assert bounds(Window.TOTAL, wall_s) == (0.0, inf)


def test_labels_rise_with_days_and_months_over_the_end_of_a_year() -> None:
    before, after = labels_at(at(2026, 12, 31, 23, 59)), labels_at(at(2027, 1, 1))
    assert int(after.day) == int(before.day) + 1
    assert int(after.month) == int(before.month) + 1
    assert before.day == str(int(at(2026, 12, 31)) // DAY_S)


def test_each_window_has_its_own_label_and_those_that_slide_none() -> None:
    labels = Labels("20000", "24000")
    found = {window: labels.of(window) for window in Window}
    assert found == {
        Window.NOW: "",
        Window.MINUTE: "",
        Window.DAY: "20000",
        Window.MONTH: "24000",
        Window.TOTAL: "0",
    }


@pytest.mark.parametrize("wall_s", [at(2026, 1, 1), at(2026, 1, 31, 23), at(2026, 12, 15)])
def test_redis_is_told_of_the_months_before_and_after(wall_s: float) -> None:
    before, this, following = months_around(wall_s)
    assert this == (int(labels_at(wall_s).month), int(bounds(Window.MONTH, wall_s)[0]))
    assert (before[0], following[0]) == (this[0] - 1, this[0] + 1)
    assert following[1] == bounds(Window.MONTH, wall_s)[1]
    assert bounds(Window.MONTH, before[1]) == (before[1], this[1])
