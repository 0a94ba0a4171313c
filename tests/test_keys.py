"""What comes again byte for byte has its key at once; what only looks alike has another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.allowance import Allowance
from proxy.cache_key import REMEMBERED, REMEMBERED_BYTES, key_of, keys_of
from proxy.caching import CacheWishes, Caching
from proxy.keys import Keys, KnownKeys, key_parts
from proxy.limits import Scope, ScopeKind
from proxy.snapshot import Snapshot
from proxy.types import Call, Caller, Group, Ring, Surface, Wishes
from tests.fakes import target

WEB, BATCH = Caller("web"), Caller("batch")
FREE = Allowance(())
RING, OTHER = (Ring(name, (Group(name, (target("a"),)),)) for name in ("m", "n"))


def snapshot(**caching: Any) -> Snapshot:
    rings = {"m": RING, "n": OTHER}
    return Snapshot(rings=rings, caching=Caching(enabled=True, **caching))


FILE = snapshot()


def call(body: dict[str, Any], **facts: Any) -> Call:
    return Call("m", False, body, size_bytes=facts.pop("size_bytes", 100), **facts)


def fresh(
    asked: Call, caller: Caller = WEB, ring: Ring = RING, file: Snapshot = FILE
) -> Keys | None:
    """Return the keys as one has them who knows none yet."""
    return KnownKeys().of(asked, caller, ring, file, FREE)


BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}]}
ASKED = call(BODY)


def test_the_keys_are_those_that_are_printed() -> None:
    parts = key_parts(ASKED, WEB, RING, FILE)
    assert parts is not None
    assert fresh(ASKED) == Keys(key_of(parts))
    vectors = call({"input": ["a", "b"]}, surface=Surface.EMBEDDINGS)
    parts = key_parts(vectors, WEB, RING, FILE)
    assert parts is not None
    assert fresh(vectors) == Keys(key_of(parts), keys_of(parts))


def test_a_body_that_comes_again_is_not_read_again() -> None:
    known, body = KnownKeys(), dict(BODY)
    first = known.of(call(body), WEB, RING, FILE, FREE)
    body["temperature"] = 1  # nobody does that: it shows that nobody looks
    assert known.of(call(body), WEB, RING, FILE, FREE) == first
    assert known.of(call(dict(body)), WEB, RING, FILE, FREE) != first, "another object"


SPELT = call(BODY, wishes=Wishes(cache=CacheWishes(namespace="x")))


@pytest.mark.parametrize(
    ("asked", "caller", "ring", "file"),
    [
        (ASKED, BATCH, RING, FILE),
        (replace(ASKED, model="n"), WEB, OTHER, FILE),
        (ASKED, WEB, RING, snapshot(namespace="x")),
        (ASKED, WEB, RING, snapshot(scope="shared")),
        (ASKED, WEB, replace(RING, groups=OTHER.groups), FILE),
        (SPELT, WEB, RING, FILE),
        (replace(ASKED, headers={"anthropic-version": "1"}), WEB, RING, FILE),
        (replace(ASKED, surface=Surface.RESPONSES), WEB, RING, FILE),
        (replace(ASKED, surface=Surface.RESPONSES, stream=True), WEB, RING, FILE),
    ],
)
def test_the_same_body_asked_otherwise_has_another_key(
    asked: Call, caller: Caller, ring: Ring, file: Snapshot
) -> None:
    known = KnownKeys()
    first = known.of(ASKED, WEB, RING, FILE, FREE)
    other = known.of(asked, caller, ring, file, FREE)
    assert other == fresh(asked, caller, ring, file) != first
    assert known.of(ASKED, WEB, RING, FILE, FREE) == first


def test_a_bound_of_the_callers_is_in_the_key() -> None:
    bounded = replace(FREE, most_tokens=(Scope(ScopeKind.KEY, "web"), 5))
    assert KnownKeys().of(ASKED, WEB, RING, FILE, bounded) != fresh(ASKED)


@pytest.mark.parametrize("size_bytes", [0, REMEMBERED_BYTES + 1])
def test_a_body_of_unknown_or_large_size_is_not_held(size_bytes: int) -> None:
    known, body = KnownKeys(), dict(BODY)
    first = known.of(call(body, size_bytes=size_bytes), WEB, RING, FILE, FREE)
    body["temperature"] = 1
    assert known.of(call(body, size_bytes=size_bytes), WEB, RING, FILE, FREE) != first


def test_only_the_last_are_remembered() -> None:
    known, body = KnownKeys(), dict(BODY)
    first = known.of(call(body), WEB, RING, FILE, FREE)
    body["temperature"] = 1
    for number in range(REMEMBERED - 1):
        known.of(call({**BODY, "n": number}), WEB, RING, FILE, FREE)
        assert known.of(call(body), WEB, RING, FILE, FREE) == first, "who is asked for stays"
    for number in range(REMEMBERED):
        known.of(call({**BODY, "n": number}), WEB, RING, FILE, FREE)
    assert known.of(call(body), WEB, RING, FILE, FREE) != first


def test_what_is_too_deep_to_be_written_has_no_key() -> None:
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    assert fresh(call({"messages": deep})) is None
