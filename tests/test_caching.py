"""What the file and a request say of the cache, and what that means."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.caching import (
    MOST_S,
    NO_WISHES,
    CacheWishes,
    Caching,
    Freshness,
    Mode,
    applies,
    freshness,
    may_be_kept,
    wishes_of,
)

ON = Caching(enabled=True)


@pytest.mark.parametrize(
    ("caching", "wishes", "expected"),
    [
        (Caching(), NO_WISHES, False),
        (ON, NO_WISHES, True),
        (Caching(enabled=True, surfaces=frozenset({"embeddings"})), NO_WISHES, False),
        (Caching(enabled=True, surfaces=frozenset({"chat"})), NO_WISHES, True),
        (Caching(enabled=True, mode=Mode.DEFAULT_OFF), NO_WISHES, False),
        (Caching(enabled=True, mode=Mode.DEFAULT_OFF), CacheWishes(use_cache=True), True),
        (ON, CacheWishes(no_cache=True), True),
        (ON, CacheWishes(no_store=True), True),
        (ON, CacheWishes(no_cache=True, no_store=True), False),
    ],
)
def test_where_the_cache_has_something_to_do(
    caching: Caching, wishes: CacheWishes, expected: bool
) -> None:
    assert applies(caching, wishes, "chat") is expected


@pytest.mark.parametrize(
    ("age_s", "wishes", "expected"),
    [
        (0, NO_WISHES, Freshness.FRESH),
        (600, NO_WISHES, Freshness.FRESH),
        (601, NO_WISHES, Freshness.STALE),
        (661, NO_WISHES, Freshness.GONE),
        (601, CacheWishes(max_stale_s=30), Freshness.FRESH),
        (10, CacheWishes(max_age_s=5), Freshness.GONE),
        (4, CacheWishes(max_age_s=5), Freshness.FRESH),
        (0, CacheWishes(max_age_s=0), Freshness.GONE),
        (0, CacheWishes(no_cache=True), Freshness.GONE),
    ],
)
def test_what_an_answer_of_an_age_is_good_for(
    age_s: float, wishes: CacheWishes, expected: Freshness
) -> None:
    assert freshness(age_s, 600, wishes=wishes, stale_if_error_s=60) is expected


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (["stop"], True),
        (["stop", "tool_calls"], True),
        (["length"], False),
        (["stop", "content_filter"], False),
        (["stop", None], False),
        ([], False),
    ],
)
def test_only_what_ended_well_is_kept(reasons: list[object], expected: bool) -> None:
    assert may_be_kept(reasons, ON) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", NO_WISHES),
        (b"no-cache", CacheWishes(no_cache=True)),
        (b"No-Store , max-age=60", CacheWishes(no_store=True, max_age_s=60)),
        (b'max-age="5", max-stale=7', CacheWishes(max_age_s=5, max_stale_s=7)),
        (b"max-stale", CacheWishes(max_stale_s=MOST_S)),
        (b"max-age=-1, max-stale=x, private", NO_WISHES),
        (b"max-age=" + b"9" * 40, CacheWishes(max_age_s=MOST_S)),
    ],
)
def test_what_a_header_says(header: bytes, expected: CacheWishes) -> None:
    assert NO_WISHES.with_header(header) == expected


def test_where_both_speak_the_stricter_counts() -> None:
    body = wishes_of({"s-maxage": 10, "no-store": True, "namespace": "x", "ttl": 5})
    both = body.with_header(b"max-age=20")
    assert (both.max_age_s, both.no_store, both.namespace, both.ttl_s) == (10, True, "x", 5)
    assert body.with_header(b"max-age=3").max_age_s == 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, NO_WISHES),
        (True, NO_WISHES),
        (False, CacheWishes(no_cache=True, no_store=True)),
        ({}, NO_WISHES),
        ({"no-cache": True, "use-cache": True}, CacheWishes(no_cache=True, use_cache=True)),
        ({"s-max-age": 4.5}, CacheWishes(max_age_s=4.5)),
    ],
)
def test_what_the_body_says(value: object, expected: CacheWishes) -> None:
    assert wishes_of(value) == expected


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ([], "cache"),
        ("no-cache", "cache"),
        ({"ttl": "x"}, "cache.ttl"),
        ({"ttl": True}, "cache.ttl"),
        ({"ttl": -1}, "cache.ttl"),
        ({"no-cache": 1}, "cache.no-cache"),
        ({"namespace": 3}, "cache.namespace"),
        ({"namespace": "x" * 257}, "cache.namespace"),
    ],
)
def test_what_it_says_wrongly_is_named(value: Any, field: str) -> None:
    with pytest.raises(ValueError, match=f"`{field}` must be"):
        wishes_of(value)


def test_a_key_may_have_a_scope_of_its_own() -> None:
    caching = Caching(scope="team", scopes={"web": "shared"})
    assert (caching.scope_of("web"), caching.scope_of("batch")) == ("shared", "team")
