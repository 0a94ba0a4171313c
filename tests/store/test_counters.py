"""What is used in one window, second by second."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest

from proxy.limits import Window
from proxy.store.counters import Calendar, Counter, Sliding, counter_for
from proxy.store.windows import bounds


def moment(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("window", "at", "since", "until"),
    [
        (Window.DAY, "2026-03-29T23:59:59.999", "2026-03-29", "2026-03-30"),
        (Window.DAY, "2026-12-31", "2026-12-31", "2027-01-01"),
        (Window.MONTH, "2028-02-29T12:00", "2028-02-01", "2028-03-01"),
        (Window.MONTH, "2026-01-31T23:59", "2026-01-01", "2026-02-01"),
        (Window.MONTH, "2026-12-01", "2026-12-01", "2027-01-01"),
    ],
)
def test_a_calendar_window_is_a_day_or_a_month_of_utc(
    window: Window, at: str, since: str, until: str
) -> None:
    assert bounds(window, moment(at)) == (moment(since), moment(until))


def test_all_time_has_no_end() -> None:
    assert bounds(Window.TOTAL, moment("2026-01-01")) == (0.0, inf)


def test_every_window_has_its_kind_of_counter() -> None:
    kinds = {window: type(counter_for(window)) for window in Window}
    assert kinds == {
        Window.NOW: Counter,
        Window.MINUTE: Sliding,
        Window.DAY: Calendar,
        Window.MONTH: Calendar,
        Window.TOTAL: Calendar,
    }


def test_an_entry_leaves_the_minute_sixty_seconds_after_it_came() -> None:
    counter = Sliding()
    counter.add(3, 10.0)
    counter.add(4, 20.0)
    counter.turn(69.999, 0)
    assert counter.used == 7
    counter.turn(70.0, 0)
    assert counter.used == 4
    counter.turn(80.0, 0)
    assert (counter.used, counter.empty_in_s(80.0, 0)) == (0, 0.0)


def test_the_wait_is_for_as_many_entries_as_make_room() -> None:
    counter = Sliding()
    for at_s in (0.0, 1.0, 2.0):
        counter.add(10, at_s)
    waits = [counter.frees_in_s(amount, 5.0, 0) for amount in (1, 10, 11, 30)]
    assert waits == [55.0, 55.0, 56.0, 57.0]
    assert counter.frees_in_s(31, 5.0, 0) is None


def test_what_is_remembered_stands_before_what_has_come_since() -> None:
    counter = Sliding()
    counter.add(1, 100.0)
    counter.remember([(50.0, 5), (99.0, 7), (3000.0, 9)], 100.0)
    assert counter.used == 22
    counter.turn(110.0, 0)
    assert counter.used == 17
    counter.turn(159.0, 0)
    assert counter.used == 10
    counter.turn(160.0, 0)
    assert counter.used == 0


def test_a_day_begins_with_nothing_settled_and_its_past_unknown() -> None:
    counter = Calendar(Window.DAY)
    day = moment("2026-01-02")
    counter.turn(0, day)
    counter.known, counter.open = True, 4
    counter.add(6, 0)
    counter.turn(0, day + 86_399)
    assert (counter.used, counter.known) == (10, True)
    assert counter.empty_in_s(0, day + 86_399) == 1.0
    counter.turn(0, day + 86_400)
    assert (counter.used, counter.known, counter.since) == (4, False, day + 86_400)


def test_a_clock_set_back_over_midnight_turns_the_day_back() -> None:
    counter = Calendar(Window.DAY)
    counter.turn(0, moment("2026-01-02"))
    counter.known = True
    counter.turn(0, moment("2026-01-01T23:59"))
    assert (counter.known, counter.since) == (False, moment("2026-01-01"))


def test_of_a_total_nothing_comes_back() -> None:
    counter = Calendar(Window.TOTAL)
    counter.turn(0, 1e9)
    counter.add(5, 0)
    assert counter.frees_in_s(1, 0, 1e9) is None
    assert counter.empty_in_s(0, 1e9) == 0.0
    counter.known = True
    counter.turn(0, 4e9)
    assert (counter.used, counter.known) == (5, True)


def test_what_begins_anew_knows_nothing() -> None:
    for counter in (Sliding(), Calendar(Window.DAY)):
        counter.add(5, 1.0)
        counter.begin()
        assert counter.used == 0
        counter.turn(100.0, 1.0)
        assert counter.used == 0
