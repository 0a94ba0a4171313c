from __future__ import annotations

from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.types import Usage
from proxy.usage import usage_of

Body: TypeAlias = dict[str, Any]


def usage(prompt: Any = 100, completion: Any = 50, **more: Any) -> Usage | None:
    return usage_of({"usage": {"prompt_tokens": prompt, "completion_tokens": completion, **more}})


def test_usage_is_read_from_openais_fields() -> None:
    assert usage(
        total_tokens=150,
        prompt_tokens_details={"cached_tokens": 30, "audio_tokens": 5},
        completion_tokens_details={"reasoning_tokens": 20, "audio_tokens": 7},
    ) == Usage(
        100,
        50,
        cached_tokens=30,
        reasoning_tokens=20,
        audio_prompt_tokens=5,
        audio_completion_tokens=7,
    )


@pytest.mark.parametrize(
    "more",
    [
        {"prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 10}},
        {"prompt_tokens_details": {"cached_tokens": 30, "cache_creation_tokens": 10}},
        {"cache_read_input_tokens": 30, "cache_creation_input_tokens": 10},
        {"prompt_cache_hit_tokens": 30, "prompt_tokens_details": {"cache_write_tokens": 10}},
    ],
)
def test_cached_tokens_are_known_by_several_names(more: Body) -> None:
    assert usage(**more) == Usage(100, 50, cached_tokens=30, cache_write_tokens=10)


@pytest.mark.parametrize(
    "more",
    [
        {
            "prompt_tokens_details": {
                "cache_creation_tokens": 10,
                "cache_creation_token_details": {"ephemeral_1h_input_tokens": 4},
            }
        },
        {
            "cache_creation_input_tokens": 10,
            "cache_creation": {"ephemeral_5m_input_tokens": 6, "ephemeral_1h_input_tokens": 4},
        },
    ],
)
def test_what_is_written_for_an_hour_is_a_part_of_what_is_written(more: Body) -> None:
    assert usage(**more) == Usage(100, 50, cache_write_tokens=10, cache_write_1h_tokens=4)


def test_no_more_is_written_for_an_hour_than_is_written() -> None:
    hour = {"ephemeral_1h_input_tokens": 400}
    assert usage(cache_creation=hour) == Usage(100, 50)
    written = usage(cache_creation_input_tokens=10, cache_creation=hour)
    assert written == Usage(100, 50, cache_write_tokens=10, cache_write_1h_tokens=10)
    assert usage(cache_creation=[hour]) == Usage(100, 50)


@pytest.mark.parametrize("absurd", [None, -1, "12", True, 1.5, 100_000_001, float("inf"), [], {}])
def test_a_count_that_is_none_leaves_no_usage(absurd: object) -> None:
    assert usage(prompt=absurd) is None
    assert usage(completion=absurd) is None
    assert usage(prompt_tokens_details=absurd) == Usage(100, 50)
    assert usage(prompt_tokens_details={"cached_tokens": absurd}) == Usage(100, 50)
    assert usage_of({"usage": absurd}) is None


def test_counts_may_be_written_as_whole_floats_and_reach_a_hundred_million() -> None:
    assert usage(12.0, 100_000_000) == Usage(12, 100_000_000)
    assert usage(0, 0) == Usage()


def test_a_part_is_never_larger_than_its_whole() -> None:
    inward = {"cached_tokens": 80, "cache_write_tokens": 80}
    assert usage(
        prompt_tokens_details=inward, completion_tokens_details={"reasoning_tokens": 51}
    ) == Usage(100, 50, cached_tokens=80, cache_write_tokens=20, reasoning_tokens=50)


def test_audio_is_what_the_other_parts_leave_of_the_whole() -> None:
    inward = {"cached_tokens": 80, "cache_write_tokens": 5, "audio_tokens": 800}
    outward = {"reasoning_tokens": 30, "audio_tokens": 800}
    assert usage(prompt_tokens_details=inward, completion_tokens_details=outward) == Usage(
        100,
        50,
        cached_tokens=80,
        cache_write_tokens=5,
        reasoning_tokens=30,
        audio_prompt_tokens=15,
        audio_completion_tokens=20,
    )


def test_the_kinds_of_a_usage_do_not_overlap() -> None:
    kinds = dict(Usage(100, 50, 30, 10, 4, 20, 5, 7).kinds())
    assert kinds == {
        "prompt": 55,
        "prompt_cached": 30,
        "prompt_cache_write": 10,
        "prompt_audio": 5,
        "completion": 23,
        "reasoning": 20,
        "completion_audio": 7,
    }


@given(st.builds(Usage, *[st.integers(0, 300)] * 8))
def test_parts_larger_than_their_whole_are_cut_so_that_kinds_sum_to_the_total(any_: Usage) -> None:
    kinds = [tokens for _, tokens in any_.kinds()]
    assert min(kinds) >= 0
    assert sum(kinds) == any_.prompt_tokens + any_.completion_tokens


def test_reasoning_that_is_counted_beside_the_completion_is_added_to_it() -> None:
    details = {"reasoning_tokens": 300}
    beside = usage(total_tokens=450, completion_tokens_details=details)
    assert beside == Usage(100, 350, reasoning_tokens=300)
    within = usage(completion=350, total_tokens=450, completion_tokens_details=details)
    assert within == beside


def test_an_embedding_has_no_completion() -> None:
    assert usage_of({"usage": {"prompt_tokens": 8, "total_tokens": 8}}) == Usage(8)
    assert usage_of({"usage": {"prompt_tokens": 8}}) is None
    assert usage_of({"usage": {"prompt_tokens": 8, "total_tokens": 9}}) is None


COUNTS = st.integers(-10, 300) | st.none() | st.booleans() | st.floats() | st.text(max_size=2)
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_tokens"]),
    COUNTS,
)
NAMES = st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"])


@given(st.dictionaries(NAMES, COUNTS), DETAILS | COUNTS, DETAILS | COUNTS)
@settings(deadline=None)
def test_the_kinds_of_any_usage_are_counts_that_sum_to_the_total(
    counts: Body, inward: object, outward: object
) -> None:
    details = {"prompt_tokens_details": inward, "completion_tokens_details": outward}
    if (known := usage_of({"usage": counts | details})) is not None:
        kinds = [tokens for _, tokens in known.kinds()]
        assert min(kinds) >= 0
        assert sum(kinds) == known.prompt_tokens + known.completion_tokens
