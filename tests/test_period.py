"""A moment is what a person would take it for, or it is refused with the forms that there are."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.period import iso, moment_of

NOW_S = 1_800_000_000.0
MOMENTS = st.floats(0, 4e9)


def at(*parts: int) -> float:
    return datetime(*parts, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01", at(2026, 1, 1)),
        ("2026-01-31", at(2026, 1, 31)),
        ("20260131", at(2026, 1, 31)),  # a date without its dashes, not a second of 1970
        ("2026-01-31T12:30", at(2026, 1, 31, 12, 30)),
        ("2026-01-31 12:30:15Z", at(2026, 1, 31, 12, 30, 15)),
        ("2026-01-31T12:30:15.25+02:00", at(2026, 1, 31, 10, 30, 15) + 0.25),
        ("1767225600", 1_767_225_600.0),
        ("1767225600.5", 1_767_225_600.5),
        ("0", 0.0),
        ("24h", NOW_S - 86_400),
        ("7d", NOW_S - 7 * 86_400),
        (" 2w ", NOW_S - 14 * 86_400),
        ("999999d", 0.0),
    ],
)
def test_a_moment_is_a_date_a_time_a_number_or_how_long_ago(text: str, moment: float) -> None:
    assert moment_of(text, wall_s=NOW_S) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "yesterday", "2026", "2026-13", "2026-02-30", "12", "-5", "7 d", "7m", "1e9", "nan"),
        *("inf", "999999999999", "9999-12-31", "1969-12-31", "0001-01-01T00:00+23:59", "\u0667d"),
    ],
)
def test_anything_else_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"`{text}` is not a date or time")) as caught:
        moment_of(text, wall_s=NOW_S)
    assert "7d" in str(caught.value)


def test_of_a_long_text_little_is_repeated() -> None:
    with pytest.raises(ValueError, match="is not a date") as caught:
        moment_of("x" * 5000, wall_s=NOW_S)
    assert len(str(caught.value)) < 250


def test_a_moment_is_written_in_utc() -> None:
    assert iso(at(2026, 1, 31, 12)) == "2026-01-31T12:00:00Z"
    assert iso(at(2026, 1, 31) + 0.75) == "2026-01-31T00:00:00Z"
    assert iso(at(2026, 1, 31) + 0.75, timespec="microseconds") == "2026-01-31T00:00:00.750000Z"


@given(MOMENTS)
def test_what_is_written_is_the_moment_or_up_to_a_microsecond_before_it(moment: float) -> None:
    written = moment_of(iso(moment, timespec="microseconds"), wall_s=NOW_S)
    assert moment - 2e-6 < written <= moment
