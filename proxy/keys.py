"""
Under which keys the answers to a request are kept.

Where answers are kept, requests come again byte for byte. What such a one is kept under is looked
up, and not spelt and hashed again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

from proxy.access import tenant_for
from proxy.allowance import Allowance
from proxy.cache_key import (
    REMEMBERED,
    REMEMBERED_BYTES,
    KeyParts,
    key_of_all,
    keys_of,
    ring_digests,
    spelt_apart,
)
from proxy.cacheable import row_of
from proxy.snapshot import Snapshot
from proxy.types import Call, Caller, Ring
from proxy.vectors import inputs_of


class Keys(NamedTuple):
    """Of one request: the key of its answer, and one for each input that has its own."""

    whole: str
    inputs: tuple[str, ...] = ()


class KnownKeys:
    """Gives the keys of requests, and remembers those of the last small ones."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        # With each of them what its place is made of, so that nothing else has the same address.
        self._known: OrderedDict[tuple[object, ...], tuple[Keys, Any]] = OrderedDict()

    def of(
        self, call: Call, caller: Caller, ring: Ring, snapshot: Snapshot, allowance: Allowance
    ) -> Keys | None:
        """Return the keys of a request; None where it has none."""
        # A ring that is none of the file's is made for one request, and does not come again.
        if (
            not 0 < call.size_bytes <= REMEMBERED_BYTES
            or snapshot.rings.get(call.model) is not ring
        ):
            return _keys(call, caller, ring, snapshot, allowance)
        if self._snapshot is not snapshot:
            self._snapshot = snapshot
            self._known.clear()
        # A body that comes again is the very same object; equal ones need not be the same: to
        # Python, true is 1.
        headers = tuple(sorted(call.headers.items())) if call.headers else ()
        place = (
            call.surface,
            call.stream,
            call.wishes.cache.namespace,
            headers,
            id(call.body),
            id(caller),
            id(ring),
        )
        known = self._known.get(place)
        if known is not None:
            self._known.move_to_end(place)
            return known[0]
        keys = _keys(call, caller, ring, snapshot, allowance)
        if keys is not None:
            self._known[place] = (keys, (call.body, caller, ring))
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return keys


def _keys(
    call: Call, caller: Caller, ring: Ring, snapshot: Snapshot, allowance: Allowance
) -> Keys | None:
    parts = key_parts(call, caller, ring, snapshot, allowance)
    if parts is None:
        return None
    each = keys_of(parts)
    return Keys(key_of_all(each), each if parts.inputs else ())


def key_parts(
    call: Call, caller: Caller, ring: Ring, snapshot: Snapshot, allowance: Allowance | None = None
) -> KeyParts | None:
    """Return what the key of an answer to `call` is made of; None for one that has no key."""
    caching, model = snapshot.caching, ring.groups[0].name  # of an alias, what it stands for
    row = row_of(call.surface)
    said = spelt_apart(call.body, inputs_of(call.body) if row.each else ())
    if said is None:
        return None
    if allowance is None:
        allowance = snapshot.allowances.of(caller, user=call.user, model=model)
    most = allowance.most_tokens[1] if allowance.most_tokens else None
    bounded = bool(allowance.spending or most)
    return KeyParts(
        surface=call.surface,
        tenant=tenant_for(caller, snapshot),
        namespace=call.wishes.cache.namespace or caching.namespace,
        model=model,
        ring=ring_digests(ring),
        body=said[0],
        bound=(snapshot.policy.quota.default_max_tokens, most) if bounded else None,
        headers=tuple(sorted(call.headers.items())),
        streamed=call.stream and row.apart,
        inputs=said[1],
    )
