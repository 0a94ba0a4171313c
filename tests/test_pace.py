"""Percentiles of what a target took lately, and the patience that follows from them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pace import (
    LEAST_PATIENCE_S,
    LEAST_TIMES,
    MOST_TIMES,
    TIMES_KEPT_S,
    Lately,
    Pace,
    patience_s,
)


def of(*times_s: float) -> Lately:
    lately = Lately()
    for took_s in times_s:
        lately.add(took_s, 0.0)
    return lately


def test_of_too_few_times_nobody_tells_a_percentile() -> None:
    assert of(*[1.0] * (LEAST_TIMES - 1)).percentile_s(0.9, 0.0) is None
    assert of(*[1.0] * LEAST_TIMES).percentile_s(0.9, 0.0) == 1.0


def test_a_percentile_is_what_so_many_of_them_took_at_most() -> None:
    times = [float(37 * number % 101) for number in range(1, 101)]  # 1 to 100, in no order
    lately = of(*times)
    assert [lately.percentile_s(share, 0.0) for share in (0.5, 0.9, 0.99)] == [50, 90, 99]
    assert of(*times[:LEAST_TIMES]).percentile_s(0.99, 0.0) == max(times[:LEAST_TIMES])


def test_the_oldest_times_are_forgotten_by_number_and_by_age() -> None:
    lately = of(*[9.0] * LEAST_TIMES)
    for _ in range(MOST_TIMES):
        lately.add(1.0, 1.0)
    assert lately.percentile_s(1.0, 1.0) == 1.0
    assert lately.percentile_s(1.0, TIMES_KEPT_S) == 1.0
    assert lately.percentile_s(1.0, 1.0 + TIMES_KEPT_S) is None


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 300)), min_size=LEAST_TIMES))
def test_it_knows_what_sorting_them_all_would_tell(steps: list[tuple[float, float]]) -> None:
    lately, came, now_s = Lately(), [], 0.0
    for took_s, later_s in steps:
        now_s += later_s
        lately.add(took_s, now_s)
        came.append((now_s, took_s))
        kept = [took for at, took in came if at > now_s - TIMES_KEPT_S][-MOST_TIMES:]
        found = lately.percentile_s(1.0, now_s)
        assert found == (max(kept) if len(kept) >= LEAST_TIMES else None)
        assert len(lately._sorted) == len(lately._came) == len(kept)


def test_nothing_is_kept_until_somebody_asks_and_streams_are_kept_apart() -> None:
    pace = Pace()
    pace.took(5.0, streamed=True)
    assert pace.lately is None
    assert pace.percentile_s(0.9, 0.0, streamed=True) is None
    pace.told_s = 0.0
    for _ in range(LEAST_TIMES):
        pace.took(1.0, streamed=True)
        pace.awaited(7.0, streamed=False)
    assert pace.percentile_s(0.9, 0.0, streamed=True) == 1.0
    assert pace.percentile_s(0.9, 0.0, streamed=False) == 7.0


@pytest.mark.parametrize(
    ("known_s", "expected_s"),
    [(None, 30.0), (0.01, LEAST_PATIENCE_S), (1.0, 3.0), (1.1, 3.5), (9.0, 27.0), (11.0, 30.0)],
)
def test_patience_is_a_multiple_within_bounds(known_s: float | None, expected_s: float) -> None:
    assert patience_s(known_s, 30.0) == expected_s
