"""Moments, as people write them in a query or on a command line. Pure: the time is passed in."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import floor

FORMS = (
    "a date or time in UTC (2026-01, 2026-01-31, 2026-01-31T12:00Z), seconds since 1970, or how "
    "long ago (24h, 7d)"
)

_AGO = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_UNIT_S = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
# Fewer digits are a date that somebody wrote without its dashes: 20260131 is no day of 1970.
_SECONDS = re.compile(r"0|\d{9,12}(\.\d+)?", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_END_S = 253_402_214_400.0  # 9999-12-31: the next day has no date


def moment_of(text: str, *, wall_s: float) -> float:
    """Return the seconds since 1970 that `text` means now. Raises ValueError naming the forms."""
    try:
        found = _seconds(text.strip(), wall_s)
    except ValueError:
        found = -1.0
    if not 0 <= found < _END_S:
        raise ValueError(f"`{text[:40]}` is not {FORMS}")
    return found


def iso(moment: float, *, timespec: str = "seconds") -> str:
    """
    Return the moment as `2026-01-31T12:00:00Z`, what is left over cut off.

    So it is never later than the moment itself, and what was closed then is found since then.
    """
    whole = datetime.fromtimestamp(floor(moment), UTC)
    exact = whole.replace(microsecond=int(moment % 1 * 1_000_000))
    return exact.isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def _seconds(text: str, wall_s: float) -> float:
    if (ago := _AGO.fullmatch(text)) is not None:
        return max(0.0, wall_s - int(ago[1]) * _UNIT_S[ago[2]])
    if _SECONDS.fullmatch(text):
        return float(text)
    found = datetime.fromisoformat(f"{text}-01" if _MONTH.fullmatch(text) else text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
