"""
Under which key an answer is kept: a digest of everything that can change it. Pure.

Of a body all fields count but those that only say how the answer travels. Two spellings of the same
JSON (order of keys, white space, `1.0` for `1`) have the same key; nothing else has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from proxy.types import Json, Ring, Target

# Raised when the same request is to be asked anew, because what is kept would be read otherwise.
FORMAT = 1
# A whole answer and a stream are the same answer; what of its options reaches a client is added or
# left out when it is sent.
NOT_OF_THE_ANSWER = frozenset({"model", "stream", "stream_options"})
WHOLE_NUMBERS = 2.0**63  # above it, a float has no whole number that JSON writers agree on


@dataclass(frozen=True, slots=True)
class KeyParts:
    """What goes into a key. `tenant` is who shares the answer: `key:web`, `team:product`, …"""

    surface: str
    tenant: str
    namespace: str
    model: str  # its group's own name: an alias is the same model
    ring: tuple[str, ...]  # a digest for each target that may answer, in the order of the file
    body: bytes  # canonical JSON


def key_of(parts: KeyParts) -> str:
    """Return the key, 64 hex digits."""
    texts = (parts.surface, parts.tenant, parts.namespace, parts.model)
    head = orjson.dumps([FORMAT, *texts, parts.ring])
    return hashlib.sha256(head + b"\n" + parts.body).hexdigest()


def canonical(body: Json) -> bytes:
    """Return the JSON of what of a body can change the answer, in its one spelling."""
    kept = {name: value for name, value in body.items() if name not in NOT_OF_THE_ANSWER}
    return orjson.dumps(_plain(kept), option=orjson.OPT_SORT_KEYS)


def ring_digests(ring: Ring) -> tuple[str, ...]:
    """Return the digests of the targets that may answer, those of special fallbacks last."""
    groups = (*ring.groups, *ring.oversized, *ring.content)
    return tuple(_digest(target) for group in groups for target in group.targets)


@lru_cache(maxsize=10_000)
def _digest(target: Target) -> str:
    # All that the file says of the target, not only its place: a default, a header or a parameter
    # that is dropped changes the answer too. Its secrets are in the digest; none can be read there.
    said = [target.identity, target.params, target.defaults, target.drop_params]
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
    if kind is float and value.is_integer() and abs(value) < WHOLE_NUMBERS:
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
        "format": FORMAT,
        "surface": parts.surface,
        "tenant": parts.tenant,
        "namespace": parts.namespace,
        "model": parts.model,
        "ring": _numbered(parts.ring),
        "body": orjson.loads(parts.body),
    }


def _numbered(digests: Iterable[str]) -> list[str]:
    return list(digests)
