"""Names with `*` in them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wildcard import filled, fits, matched

PATTERN = st.text(alphabet="ab/*", min_size=1, max_size=12)


@given(PATTERN, st.text(alphabet="ab/", max_size=24))
def test_matching_is_that_of_a_greedy_regular_expression(pattern: str, name: str) -> None:
    found = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), name)
    assert matched(pattern, name) == (found.groups() if found else None)


@given(PATTERN, st.text(alphabet="ab/", max_size=24))
def test_a_pattern_filled_with_what_it_matched_is_the_name(pattern: str, name: str) -> None:
    parts = matched(pattern, name)
    if parts is not None:
        assert filled(pattern, parts) == name


def test_a_part_with_a_star_in_it_is_not_filled_again() -> None:
    assert filled("a*b*", ("*x", "y")) == "a*xby"
    assert filled("a*b*", ("x",)) == "axb*"


def test_matching_a_hostile_name_comes_to_an_end() -> None:
    """Backtracking would not: it has 500 over 8 ways to try, and the test's own time limit."""
    assert matched("*a*a*a*a*a*a*a*a*b", "a" * 500) is None


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("claude[1m]", "claude1"), ("claude[1m]*", "claude1x"), ("gpt-?", "gpt-4"), ("[!a]", "b")],
)
def test_no_other_sign_stands_for_anything_but_itself(pattern: str, name: str) -> None:
    assert not fits(name, pattern)
    assert fits(pattern, pattern)
