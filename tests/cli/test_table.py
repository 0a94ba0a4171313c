"""A report that a person reads: numbers in columns, a total that is right, no tricks in names."""

from __future__ import annotations

from typing import Any

from proxy.cli.table import usage_table
from proxy.statement import usage_fields
from proxy.store import GroupBy, UsageRow
from proxy.types import Usage

TARGET = (GroupBy.TARGET,)
KEY_MODEL = (GroupBy.KEY, GroupBy.MODEL)


SOME = Usage(10, 5)


def row(*group: str, usage: Usage = SOME, nano_usd: int = 0, **counts: int) -> UsageRow:
    facts = {"admitted": 1, "requests": 1, "attempts": 1, "estimated": 0, "unpriced": 0, **counts}
    return UsageRow(group, usage=usage, nano_usd=nano_usd, **facts)


def report(*rows: UsageRow, by: tuple[GroupBy, ...] = KEY_MODEL, **more: Any) -> dict[str, Any]:
    told = [usage_fields(each, by) for each in rows]
    return {"rows": told, "since": None, "until": None, "group_by": list(by), **more}


def test_a_report_is_a_table_with_its_total() -> None:
    rows = (
        row(
            "web",
            "gpt-4o",
            usage=Usage(1_234_567, 93),
            nano_usd=1_234_001_117_000,
            admitted=1000,
            requests=1000,
        ),
        row("cli", "claude-sonnet", usage=Usage(75, 1), nano_usd=1, attempts=2),
    )
    assert usage_table(report(*rows, since="2026-01-01T00:00:00Z")) == [
        "2026-01-01T00:00:00Z to now",
        "",
        "key    model          answered  attempts     prompt  completion         cost USD",
        "--------------------------------------------------------------------------------",
        "web    gpt-4o            1,000         1  1,234,567          93  1,234.001117000",
        "cli    claude-sonnet         1         2         75           1      0.000000001",
        "--------------------------------------------------------------------------------",
        "total                    1,001         3  1,234,642          94  1,234.001117001",
    ]


def test_kinds_of_tokens_that_nobody_used_have_no_column() -> None:
    plain, thinking = row("a", "m"), row("b", "m", usage=Usage(10, 5, 3, reasoning_tokens=2))
    assert "cached" not in usage_table(report(plain))[2]
    assert usage_table(report(plain, thinking))[2].split() == [
        *("key", "model", "answered", "attempts"),
        *("prompt", "cached", "completion", "reasoning", "cost", "USD"),
    ]


def test_requests_that_nobody_answered_are_told_where_it_is_known_whose_they_were() -> None:
    unanswered = row("web", "m", usage=Usage(), admitted=3, requests=0, attempts=0)
    lines = usage_table(report(row("cli", "m"), unanswered))
    assert lines[2].split()[:5] == ["key", "model", "admitted", "answered", "attempts"]
    assert [line.split()[2:5] for line in lines[4:6]] == [["1", "1", "1"], ["3", "0", "0"]]
    assert lines[-1].split()[1:4] == ["4", "1", "1"]
    told = report(row("t1", admitted=0), row("", admitted=4, requests=0, attempts=0), by=TARGET)
    lines = usage_table(told)
    assert lines[2].split()[:3] == ["target", "answered", "attempts"]
    assert [line.split()[0] for line in lines[4:-2]] == ["t1"]


def test_without_groups_there_is_the_total_alone() -> None:
    lines = usage_table(report(row(), by=()))
    assert lines[-1].split() == ["total", "1", "1", "10", "5", "0.000000"]


def test_where_rows_overlap_the_total_is_the_one_that_is_given() -> None:
    rows = (row("agent=a"), row("agent=b"))
    told = report(*rows, by=(GroupBy.TAG,))
    assert usage_table(told)[-1].split()[:2] == ["total", "2"]
    total = usage_fields(row(), ())
    assert usage_table(told, total)[-1].split()[:2] == ["total", "1"]


def test_nothing_used_is_a_sentence() -> None:
    told = report(since="2026-01-01T00:00:00Z", until="2026-02-01T00:00:00Z")
    expected = "nothing was used: 2026-01-01T00:00:00Z to 2026-02-01T00:00:00Z"
    assert usage_table(told) == [expected]


def test_what_the_numbers_leave_out_is_said_beneath_them() -> None:
    assert usage_table(report(row("web", "m", estimated=1, unpriced=2)))[-2:] == [
        "1 of the attempts is counted by us: the provider did not say how many tokens it took, or "
        "cannot have.",
        "2 of the attempts are missing from the cost: no price is known for them.",
    ]


def test_a_name_can_neither_steer_the_terminal_nor_push_the_numbers_away() -> None:
    lines = usage_table(report(row("\x1b[2J\nx", "m" * 300), row("", "m")))
    assert lines[4].startswith("?[2J?x  " + "m" * 47 + "…  ")
    assert lines[5].startswith("-       m  ")


def test_what_is_missing_from_the_rows_stands_beneath_them() -> None:
    note = "This is what one replica alone used: Redis is gone."
    assert usage_table(report(row("a", "m"), note=note))[-2:] == ["", note]
    assert usage_table(report(note=note))[-1] == note
    assert usage_table(report(row("a", "m"), note=None))[-1].startswith("total")
