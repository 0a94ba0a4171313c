"""
Under which key an answer is kept: a digest of everything that can change it. Pure.

Of a body all fields count but those that only say how the answer travels. Two spellings of the same
JSON (order of keys, white space, `1.0` for `1`) have the same key; nothing else has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import orjson

from proxy.types import Json, Ring, Target

T = TypeVar("T")

# Where answers are kept, requests come again byte for byte, and need not be read and spelt again.
# Bounded: what is read takes some ten times its bytes.
REMEMBERED = 128
REMEMBERED_BYTES = 8 * 1024  # of one

# Raised when the same request is to be asked anew, because what is kept would be read otherwise.
FORMAT = 3
# A whole answer and a stream are the same answer; what of its options reaches a client is added or
# left out when it is sent.
NOT_OF_THE_ANSWER = frozenset({"model", "stream", "stream_options"})
TOO_DEEP = (RecursionError, orjson.JSONEncodeError)
# Floats that can be written as a whole number: orjson reads one beyond these bounds as a float.
LEAST_WHOLE, MOST_WHOLE = -(2.0**63), 2.0**64


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What goes into a key. `tenant` is who shares the answer: `key:web`, `team:product`, …"""

    surface: str
    tenant: str
    namespace: str
    model: str  # its group's own name: an alias is the same model
    ring: tuple[str, ...]  # a digest for each target that may answer, in the order of the file
    body: bytes  # canonical JSON
    # What an answer is cut at, by the caller's limits and not by the body: another caller's is not.
    bound: tuple[int, int | None] | None = None
    headers: tuple[tuple[str, str], ...] = ()  # of the caller's own, that go on to a provider
    streamed: bool = False  # where a stream is another answer than a whole one
    inputs: tuple[bytes, ...] = ()  # canonical JSON of each, where each has an answer of its own


def key_of(parts: KeyParts) -> str:
    """Return the key, 64 hex digits; of several inputs one for all of them in their order."""
    return key_of_all(keys_of(parts))


def keys_of(parts: KeyParts) -> tuple[str, ...]:
    """Return the key of each input; where there are none, the one key."""
    texts = (parts.surface, parts.tenant, parts.namespace, parts.model)
    head = orjson.dumps(
        [FORMAT, *texts, parts.ring, parts.bound, parts.headers, parts.streamed, bool(parts.inputs)]
    )
    begun = hashlib.sha256(head + b"\n" + parts.body + b"\n")
    return tuple(_ended(begun.copy(), each) for each in parts.inputs) or (begun.hexdigest(),)


def key_of_all(keys: Iterable[str]) -> str:
    """Return one key for several; that of one is the same."""
    first, *others = keys
    return hashlib.sha256("\n".join((first, *others)).encode()).hexdigest() if others else first


def _ended(digest: hashlib._Hash, text: bytes) -> str:
    digest.update(text)
    return digest.hexdigest()


def canonical(body: Json) -> bytes | None:
    """
    Return the JSON of what of a body can change the answer, in its one spelling.

    None for one that is nested too deep to be written: it has no key.
    """
    kept = {name: value for name, value in body.items() if name not in NOT_OF_THE_ANSWER}
    try:
        return _spelt(kept)
    except TOO_DEEP:
        return None


def spelt_apart(body: Json, inputs: Sequence[object]) -> tuple[bytes, tuple[bytes, ...]] | None:
    """Return the body without its inputs, where there are any, and each of these; else None."""
    if not inputs:
        whole = canonical(body)
        return None if whole is None else (whole, ())
    rest = canonical({name: value for name, value in body.items() if name != "input"})
    try:
        each = tuple(map(_spelt, inputs))
    except TOO_DEEP:
        return None
    return None if rest is None else (rest, each)


def _spelt(value: object) -> bytes:
    return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)


def ring_digests(ring: Ring) -> tuple[str, ...]:
    """Return the digests of the targets that may answer, those of special fallbacks last."""
    return _digests(_This(ring))


class _This(Generic[T]):
    """A thing that is no other one. Equal ones need not be the same: to Python, true is 1."""

    __slots__ = ("thing",)

    def __init__(self, thing: T) -> None:
        self.thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _This) and self.thing is other.thing

    def __hash__(self) -> int:
        return id(self.thing)


@lru_cache(maxsize=100)
def _digests(this: _This[Ring]) -> tuple[str, ...]:
    ring = this.thing
    groups = (*ring.groups, *ring.oversized, *ring.content)
    return tuple(_digest(_This(target)) for group in groups for target in group.targets)


@lru_cache(maxsize=1000)
def _digest(this: _This[Target]) -> str:
    # All that the file says of the target, not only its place: a default, a header or a parameter
    # that is dropped changes the answer too. Its secrets are in the digest; none can be read there.
    target = this.thing
    said = [target.identity, dict(target.params), dict(target.defaults), target.drop_params]
    text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=repr)
    return hashlib.sha256(text).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Return the value with every number in its one spelling."""
    kind = value.__class__
    if kind is str or kind is int:
        return value
    if kind is dict:
        return {name: _plain(inner) for name, inner in value.items()}
    if kind is list:
        return [_plain(inner) for inner in value]
    if kind is float and value.is_integer() and LEAST_WHOLE <= value < MOST_WHOLE:
        return int(value)
    return value


def tenant_of(scope: str, *, key: str, team: str | None) -> str:
    """Return who shares answers with a key: itself, its team, or everybody."""
    match scope:
        case "shared":
            return "shared"
        case "team" if team is not None:
            return f"team:{team}"
        case _:
            return f"key:{key}"


def explain(parts: KeyParts) -> Mapping[str, object]:
    """Return what went into a key, for a person to compare."""
    return {
        "key": key_of(parts),
        **({"keys": keys_of(parts)} if len(parts.inputs) > 1 else {}),
        "format": FORMAT,
        "surface": parts.surface,
        "tenant": parts.tenant,
        "namespace": parts.namespace,
        "model": parts.model,
        "ring": list(parts.ring),
        "bound": parts.bound,
        "headers": dict(parts.headers),
        "streamed": parts.streamed,
        **({"inputs": [orjson.loads(each) for each in parts.inputs]} if parts.inputs else {}),
        "body": orjson.loads(parts.body),
    }
