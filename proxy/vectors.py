"""
Vectors of many inputs, each of which is an answer of its own. Pure.

A vector is kept as its JSON without its place, so that it can stand at another one in an answer
that is put together of bytes: nobody reads the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from proxy.types import Json

MOST_INPUTS = 2048  # OpenAI's own limit; a list that is longer is one answer
NOTHING_ASKED: Json = {"prompt_tokens": 0, "total_tokens": 0}  # for, and so nothing paid


def inputs_of(body: Json) -> list[object]:
    """
    Return the inputs of a request, each a text or a list of tokens.

    None of them where it is not clear what they are: then the request has one answer.
    """
    value = body.get("input")
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or len(value) > MOST_INPUTS:
        return []
    numbers = sum(isinstance(each, int | float) for each in value)
    if numbers:
        return [value] if numbers == len(value) else []
    return value


def apart(body: Json, count: int) -> list[bytes]:
    """Return each vector of an answer, in the order of the inputs; none that is not one of each."""
    items = body.get("data")
    if not isinstance(items, list) or len(items) != count:
        return []
    if not all(isinstance(item, dict) and item.get("embedding") for item in items):
        return []
    places = [item.get("index") for item in items]
    if len(set(map(repr, places))) == 1:
        places = list(range(count))  # some providers count none of them
    if sorted(map(repr, places)) != sorted(map(repr, range(count))):
        return []
    vectors = dict(zip(places, map(_without_place, items), strict=True))
    return [vectors[place] for place in range(count)]


def around(body: Json) -> bytes:
    """Return what an answer says of all its vectors."""
    said = {name: value for name, value in body.items() if name not in ("data", "usage")}
    return orjson.dumps({"object": "list", **said})


def joined(vectors: Sequence[bytes], said: bytes, usage: object) -> bytes:
    """Return an answer of these vectors; `said` is what is `around` them."""
    items = b",".join(b'{"index":%d,%s' % (at, each[1:]) for at, each in enumerate(vectors))
    return b'%s,"data":[%s],"usage":%s}' % (said[:-1], items, orjson.dumps(usage))


def _without_place(item: Json) -> bytes:
    return orjson.dumps({name: value for name, value in item.items() if name != "index"})
