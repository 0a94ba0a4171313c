"""Near misses."""

from __future__ import annotations

import pytest

from proxy.config.names import ACTED, COMPLETION, HANDED, is_handed, known, nearest
from proxy.config.remarks import shown

PARAMS = known("litellm_params") | ACTED | COMPLETION | HANDED


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("api_kye", "api_key"),
        ("modle", "model"),
        ("odr", "order"),
        ("rmp", "rpm"),
        ("temprature", "temperature"),
        ("strem_timeot", "stream_timeout"),
        ("max_token", "max_tokens"),
        ("quantum_flux", None),
        ("x", None),
        ("xy", None),
        ("num_retriesss_", None),
    ],
)
def test_a_name_within_two_edits_is_a_misspelling(written: str, meant: str | None) -> None:
    assert nearest(written, PARAMS) == meant


def test_the_nearest_of_several_is_the_one_with_the_fewest_edits() -> None:
    assert nearest("cat", ["coat", "chart", "cart"]) == "cart"


def test_no_parameter_is_sorted_two_ways() -> None:
    assert not ACTED & COMPLETION
    assert not {name for name in COMPLETION if is_handed(name)}
    assert not HANDED & (ACTED | COMPLETION)


@pytest.mark.parametrize(
    "secret",
    ["sk-abcdefgh", "AKIAIOSFODNN7EXAMPLE", "eyJhbGciOiJIUzI1NiJ9", "a1" * 16, "line\nbreak"],
)
def test_what_looks_like_a_key_is_not_shown_as_a_name(secret: str) -> None:
    assert shown(secret) == "(a name not shown)"


@pytest.mark.parametrize("name", [*sorted(PARAMS)[:50], "gpt-4o-2024-08-06", "claude-sonnet-4-5"])
def test_names_are_shown(name: str) -> None:
    assert shown(name) == name
