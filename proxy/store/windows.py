"""The calendar windows of quota: UTC days and months, and all time. Pure: the time is passed in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from math import inf

from proxy.limits import Window

DAY_S = 86_400
US = 1_000_000  # microseconds in a second: so the shared state counts time


@dataclass(frozen=True, slots=True)
class Labels:
    """Which day and which month it is, as the keys of the shared state say it."""

    day: str  # days since 1970
    month: str  # year times twelve plus the month

    def of(self, window: Window) -> str:
        """Return the label of a window; empty where it has none."""
        match window:
            case Window.DAY:
                return self.day
            case Window.MONTH:
                return self.month
            case Window.TOTAL:
                return "0"
            case Window.NOW | Window.MINUTE:
                return ""


def bounds(window: Window, wall_s: float) -> tuple[float, float]:
    """Return the first moment of the calendar window that `wall_s` lies in, and of the next one."""
    if window is Window.TOTAL:
        return 0.0, inf
    day = datetime.fromtimestamp(wall_s, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if window is Window.DAY:
        return day.timestamp(), (day + timedelta(days=1)).timestamp()
    first = day.replace(day=1)
    return first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()


def labels_at(wall_s: float) -> Labels:
    """Return the labels of the day and month that `wall_s` lies in."""
    return _labels(int(wall_s // DAY_S))


def months_around(wall_s: float) -> tuple[tuple[int, int], ...]:
    """Return the label and the first second of the month before, of this one and of the next."""
    return _months(int(wall_s // DAY_S))


# All that is asked about one day is the same; the day before may be asked about at midnight.
@lru_cache(maxsize=4)
def _labels(day: int) -> Labels:
    return Labels(str(day), str(_month(day * DAY_S)))


@lru_cache(maxsize=4)
def _months(day: int) -> tuple[tuple[int, int], ...]:
    first_s, next_s = bounds(Window.MONTH, day * DAY_S)
    moments = (bounds(Window.MONTH, first_s - 1)[0], first_s, next_s)
    return tuple((_month(moment), int(moment)) for moment in moments)


def _month(wall_s: float) -> int:
    moment = datetime.fromtimestamp(wall_s, UTC)
    return moment.year * 12 + moment.month
