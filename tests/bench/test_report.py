"""What a person reads of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.campaign import Results
from bench.held import Held
from bench.loading import LoadingStart
from bench.memory import MemorySample
from bench.peer import Peer
from bench.report import render
from bench.table import spread, table

MACHINE: dict[str, Any] = {
    "date": "2026-11-25T12:00:00+00:00",
    "cores": 2,
    "cpu": "a processor",
    "python": "3.11.7",
    "packages": {"mobius-proxy": "0.1.0", "litellm": "1.106.2"},
    "load_before": 0.1,
}
FOUND = Peer(Path("litellm"))


def lines(results: Results, peer: Peer = FOUND) -> list[str]:
    """The report, each line with single spaces."""
    return [" ".join(line.split()) for line in render(results, MACHINE, peer).splitlines()]


def test_the_report_says_why_litellm_was_not_measured_and_only_then() -> None:
    why = "LiteLLM's proxy was not measured: it is not installed"
    assert why in lines(Results(), Peer(None, "it is not installed"))
    assert not any(line.startswith("LiteLLM's proxy") for line in lines(Results()))


def test_what_is_held_is_compared_with_the_floor_of_the_same_turn() -> None:
    results = Results(
        held=[
            Held(1, "direct", 1500, ended=False),
            Held(1, "floor", 800, ended=True),
            Held(1, "mobius", 600, ended=True),
            Held(2, "floor", 1000, ended=True),
            Held(2, "mobius", 500, ended=True),
        ]
    )
    report = lines(results)
    assert "mobius 550 (500-600) 0.62 (0.50-0.75)" in report
    assert "direct 1500 (1500-1500) 1.88 (1.88-1.88) no more were tried" in report


def test_long_streams_have_a_row_with_what_each_of_them_held() -> None:
    report = lines(Results(streams=[MemorySample("mobius", 500, 4000, 80.0, 105.0)]))
    assert "mobius 500 4000 80 105 51" in report


def test_a_start_names_the_lanes_that_were_loading() -> None:
    starts = [
        LoadingStart(0.7, ("unified",), 50.0, 2.5, 200.0),
        LoadingStart(0.8, ("unified",), 70.0, 2.7, 202.0),
    ]
    report = lines(Results(loading=starts))
    assert "0.75 (0.70-0.80) unified 60 (50-70) 2.60 (2.50-2.70) 201" in report


def test_a_table_without_rows_is_not_shown() -> None:
    assert table("Title", ("a", "b"), []) == ""


def test_words_stand_to_the_left_and_numbers_to_the_right() -> None:
    shown = table("Title", ("server", "ms"), [("floor", "1.5"), ("mobius", "10.5")])
    assert shown.splitlines()[4:] == ["floor    1.5", "mobius  10.5"]


def test_a_spread_is_the_median_with_the_least_and_the_most() -> None:
    assert spread([3.0, 1.0, 2.5], 1) == "2.5 (1.0-3.0)"
