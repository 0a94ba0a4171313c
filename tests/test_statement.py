"""Columns, and lines of CSV that a spreadsheet reads as what they are."""

from __future__ import annotations

import csv
from io import StringIO

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.limits import NANO, usd
from proxy.statement import (
    ATTEMPT_COLUMNS,
    attempt_fields,
    csv_line,
    usage_columns,
    usage_fields,
)
from proxy.store import Attempt, GroupBy, UsageRow
from proxy.types import Usage
from tests.store.rows import closed, opened

USAGE = Usage(75, 93, 8, 7, 6, 5, 4, 3)


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.000000"),
        (1, "0.000000001"),
        (1_117_000, "0.001117"),
        (1_117_010, "0.00111701"),
        (NANO, "1.000000"),
        (12_345_678_901_234_567_890, "12345678901.23456789"),
    ],
)
def test_money_has_six_places_or_as_many_as_lose_nothing(nano: int, text: str) -> None:
    assert usd(nano) == text


@given(st.integers(0, 10**24))
def test_no_nano_dollar_is_lost(nano: int) -> None:
    whole, places = usd(nano).split(".")
    assert 6 <= len(places) <= 9
    assert int(whole + places.ljust(9, "0")) == nano


def test_a_row_of_a_report_is_as_the_design_has_it_and_more() -> None:
    groups = (GroupBy.KEY, GroupBy.MODEL)
    row = UsageRow(("web", "gpt-4o"), 5, 3, 4, USAGE, 1_117_000, 1, 2)
    fields = usage_fields(row, groups)
    assert list(fields) == list(usage_columns(groups))
    assert orjson.dumps(fields).startswith(
        b'{"key":"web","model":"gpt-4o","requests":3,"attempts":4,"prompt_tokens":75,'
        b'"completion_tokens":93,"cost_usd":"0.001117",'
    )
    assert {name: fields[name] for name in list(fields)[7:]} == {
        "cached_tokens": 8,
        "cache_write_tokens": 7,
        "cache_write_1h_tokens": 6,
        "reasoning_tokens": 5,
        "audio_prompt_tokens": 4,
        "audio_completion_tokens": 3,
        "admitted": 5,
        "estimated": 1,
        "unpriced": 2,
    }


def test_a_row_of_the_ledger_is_told_whole() -> None:
    row = Attempt(opened(tags=("a=1", "b=2")), closed(usage=USAGE, nano_usd=1))
    fields = attempt_fields(row)
    assert tuple(fields) == ATTEMPT_COLUMNS
    assert fields["tags"] == ("a=1", "b=2")
    assert (fields["cost_usd"], fields["reserved_cost_usd"]) == ("0.000000001", "0.000009")
    assert fields["reserved_prompt_tokens"] == 100
    assert fields["completion_tokens"] == 93
    assert fields["opened_at"] == "2027-01-15T08:00:01.500000Z"
    assert fields["closed_at"] == "2027-01-15T08:00:02.500000Z"


def test_an_attempt_without_a_price_has_no_cost_rather_than_none_at_all() -> None:
    fields = attempt_fields(Attempt(opened(), closed(nano_usd=None)))
    assert fields["cost_usd"] is None
    assert csv_line([fields["cost_usd"], "x"]) == ",x\r\n"


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_what_looks_like_a_formula_is_a_text(name: str) -> None:
    assert cells(csv_line([name, 1])) == [f"'{name}", "1"]
    assert cells(csv_line([(name, "b")])) == [f"'{name},b"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20))
def test_a_line_is_read_back_as_it_was(name: str) -> None:
    (read, flag, empty) = cells(csv_line([name, True, None]))
    assert read.removeprefix("'") == name.removeprefix("'")
    assert (flag, empty) == ("true", "")


def cells(line: str) -> list[str]:
    (found,) = csv.reader(StringIO(line, newline=""))
    return found
