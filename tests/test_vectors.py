"""Vectors of many inputs, taken apart and put together again."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.vectors import MOST_INPUTS, NOTHING_ASKED, apart, around, inputs_of, joined


def item(number: float, index: object = None) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": [number, 0.25]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", ["a"]),
        ("", [""]),
        (["a", "b", "a"], ["a", "b", "a"]),
        ([1, 2, 3], [[1, 2, 3]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([[1, 2], "a"], [[1, 2], "a"]),
        ([{"image": "x"}], [{"image": "x"}]),
        ([1, "a"], []),
        (["a"] * (MOST_INPUTS + 1), []),
        ([], []),
        (None, []),
        ({"a": 1}, []),
    ],
)
def test_what_the_inputs_of_a_request_are(value: object, expected: list[Any]) -> None:
    assert inputs_of({"input": value}) == expected


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0, 1, 2], [0, 1, 2]),
        ([2, 0, 1], [1, 2, 0]),
        ([None, None, None], [0, 1, 2]),
        ([0, 0, 0], [0, 1, 2]),
        ([0, 1, 1], []),
        ([1, 2, 3], []),
        ([0, 1, "2"], []),
        ([True, 0, 2], []),
    ],
)
def test_each_vector_is_that_of_its_input(places: list[object], expected: list[int]) -> None:
    body = {"data": [item(number, place) for number, place in enumerate(places)]}
    found = [orjson.loads(each) for each in apart(body, 3)]
    assert [each["embedding"][0] for each in found] == expected
    assert all("index" not in each for each in found)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        [item(0, 0)],
        [item(0, 0), item(1, 1), item(2, 2)],
        [item(0, 0), {"index": 1}],
        [item(0, 0), {"index": 1, "embedding": []}],
        [item(0, 0), "junk"],
    ],
)
def test_an_answer_that_has_not_one_of_each_is_not_taken_apart(data: object) -> None:
    assert apart({"data": data}, 2) == []


def test_what_was_taken_apart_is_put_together_at_other_places() -> None:
    body = {"object": "list", "data": [item(0, 0), item(1, 1)], "model": "x", "usage": {"n": 1}}
    one, two = apart(body, 2)
    assert orjson.loads(joined([one, two], around(body), body["usage"])) == body
    turned = orjson.loads(joined([two, one, two], around({}), NOTHING_ASKED))
    assert turned == {
        "object": "list",
        "data": [item(1, 0), item(0, 1), item(1, 2)],
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
