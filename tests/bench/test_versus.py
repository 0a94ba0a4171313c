"""Ratios are taken within a round, and against the server that does the same."""

from __future__ import annotations

import pytest

from bench.load import Case, Sample
from bench.payload import Kind
from bench.versus import compared, show

ONE = Case(Kind.UNARY, 1)


def sample(number: int, server: str, cpu_ms: float, *, case: Case = ONE) -> Sample:
    """Of two answers, each of which took ten times its CPU time."""
    return Sample(number, case, server, 1.0, cpu_ms * 2 / 1000, (cpu_ms * 10,) * 2, (0.0, 0.0))


def test_a_ratio_is_that_of_a_round_whatever_the_order_of_the_samples() -> None:
    samples = [
        sample(1, "mobius", 0.5),
        sample(1, "litellm", 10.0),
        sample(2, "litellm", 30.0),
        sample(2, "mobius", 1.0),
    ]
    (found,) = compared(samples)
    assert found.cpu == pytest.approx([20.0, 30.0])
    assert found.p50 == pytest.approx([20.0, 30.0])


def test_each_target_is_compared_with_the_lane_that_asks_the_same_provider() -> None:
    names = ("mobius", "translated", "litellm-claude", "litellm")
    samples = [sample(1, name, cpu_ms) for name, cpu_ms in zip(names, (1, 2, 30, 40), strict=True)]
    plain, claude = compared(samples)
    assert (plain.server, plain.opposite[0].server) == ("litellm", "mobius")
    assert (claude.server, claude.opposite[0].server) == ("litellm-claude", "translated")
    assert (plain.cpu[0], claude.cpu[0]) == pytest.approx((40, 15))


def test_a_case_that_only_mobius_was_measured_in_is_not_compared() -> None:
    many = Case(Kind.UNARY, 64)
    samples = [sample(1, "mobius", 0.5, case=many), sample(1, "mobius", 1), sample(1, "litellm", 9)]
    assert [each.case for each in compared(samples)] == [ONE]


def test_the_table_has_a_row_for_each_case_with_the_ratio_and_its_spread() -> None:
    samples = [
        sample(number, name, cpu_ms)
        for number, both in enumerate(((0.5, 10.0), (0.5, 15.0), (0.5, 12.5)), 1)
        for name, cpu_ms in zip(("mobius", "litellm"), both, strict=True)
    ]
    _, _, _, _, row = show(compared(samples)).splitlines()
    assert " ".join(row.split()) == (
        "unary 1 litellm mobius 12.50 0.500 25.0 (20.0-30.0) x 25.0 (20.0-30.0) x"
    )


def test_without_litellm_there_is_no_table() -> None:
    assert show(compared([sample(1, "mobius", 0.5)])) == ""
