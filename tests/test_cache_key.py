"""Which requests are the same: those whose answers cannot differ, however they are spelt."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.cache_key import (
    KeyParts,
    canonical,
    explain,
    key_of,
    key_of_all,
    keys_of,
    ring_digests,
    spelt_apart,
    tenant_of,
)
from proxy.types import Group, Json, Ring
from tests.fakes import target

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(["messages", "temperature", "seed", "user", "tools", "n", "unknown"])
BODIES = st.dictionaries(NAMES, VALUES, max_size=5)
# Bodies are made slowly, and nothing here is about time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PARTS = KeyParts("chat", "key:web", "", "m", ("a", "b"), b"{}")


def shuffled(value: Any, order: random.Random) -> Any:
    """The same JSON with its keys in another order."""
    if isinstance(value, dict):
        items = [(name, shuffled(inner, order)) for name, inner in value.items()]
        order.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        return [shuffled(inner, order) for inner in value]
    return value


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: to Python, true is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@PATIENT
@given(BODIES, st.randoms(use_true_random=False))
def test_the_order_of_keys_makes_no_difference(body: Json, order: random.Random) -> None:
    assert canonical(shuffled(body, order)) == canonical(body)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1", "1e0"),
        ("100", "1e2"),
        ("0.5", "5e-1"),
        ("0", "-0.0"),
    ],
)
def test_the_spelling_of_a_number_makes_no_difference(one: str, other: str) -> None:
    bodies = [orjson.loads(f'{{"temperature": {text}}}') for text in (one, other)]
    assert canonical(bodies[0]) == canonical(bodies[1])


@settings(PATIENT, max_examples=2000)
@given(BODIES, BODIES)
def test_different_bodies_share_no_key_and_equal_ones_do(one: Json, other: Json) -> None:
    assert (canonical(one) == canonical(other)) is same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (1, "1"),
        (None, 0),
        ("", None),
        ([1, 2], [2, 1]),
        (0.1, 0.10000000000000002),
        ({}, []),
    ],
)
def test_what_only_looks_alike_is_not_the_same(one: Any, other: Any) -> None:
    assert canonical({"seed": one}) != canonical({"seed": other})


def test_how_an_answer_travels_is_no_part_of_it() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "model": "m"}
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}, "model": "alias"}
    assert canonical(streamed) == canonical(body)


@pytest.mark.parametrize(
    "changed",
    [
        {"surface": "embeddings"},
        {"tenant": "key:batch"},
        {"namespace": "x"},
        {"model": "n"},
        {"ring": ("b", "a")},
        {"ring": ("a",)},
        {"body": b"[]"},
        {"bound": (4096, None)},
        {"headers": (("anthropic-beta", "x"),)},
        {"streamed": True},
        {"inputs": (b'"a"',)},
        {"inputs": (b"{}",)},
    ],
)
def test_every_part_makes_another_key(changed: dict[str, Any]) -> None:
    assert key_of(replace(PARTS, **changed)) != key_of(PARTS)


def test_two_parts_cannot_be_taken_for_one_another() -> None:
    assert key_of(replace(PARTS, namespace="m", model="")) != key_of(replace(PARTS, model="m"))


def test_each_input_has_its_key_in_whatever_company() -> None:
    def keys(*inputs: object, **more: Any) -> tuple[str, ...]:
        said = spelt_apart({"input": inputs, **more}, inputs)
        assert said is not None
        return keys_of(replace(PARTS, body=said[0], inputs=said[1]))

    a, b = keys("a"), keys("b")
    assert keys("b", "a", "b") == b + a + b
    assert keys([1, 2], [1.0, 2]) == keys([1, 2]) * 2
    differing = [a, b, keys(["a"]), keys('"a"'), keys(["a", "b"]), keys([1]), keys("1"), keys([12])]
    differing += [keys("a", dimensions=2), keys("a", encoding_format="base64")]
    assert len(set(differing)) == len(differing)
    assert key_of_all(a) == a[0]
    assert len({key_of_all(each) for each in (a, b, a + b, b + a, a + a)}) == 5


def test_a_key_is_of_all_that_the_file_says_of_a_target() -> None:
    plain = target("a")
    others = [
        replace(plain, params={"extra_body": {"seed": 1}}),
        replace(plain, params={"extra_body": {"seed": True}}),
        replace(plain, defaults={"temperature": 0}),
        replace(plain, drop_params=False),
        replace(plain, identity="elsewhere"),
    ]
    digests = [ring_digests(Ring("m", (Group("m", (each,)),))) for each in (plain, *others)]
    assert len(set(digests)) == len(digests)
    assert ring_digests(Ring("m", (Group("m", (replace(plain, weight=3.0),)),))) == digests[0]


def test_who_shares_answers() -> None:
    assert tenant_of("key", key="web", team="product") == "key:web"
    assert tenant_of("team", key="web", team="product") == "team:product"
    assert tenant_of("team", key="web", team=None) == "key:web"
    assert tenant_of("shared", key="web", team="product") == "shared"


def test_a_person_sees_what_went_in() -> None:
    report = explain(replace(PARTS, body=canonical({"seed": 1.0}) or b""))
    assert report["body"] == {"seed": 1}
    assert report["tenant"] == "key:web"
    assert len(str(report["key"])) == 64
