"""
Who made which response, and for whom: what OpenAI's Responses are found again by.

Kept by a digest of the id, so that whoever reads a store learns no id that opens anything. Here in
the memory of this process: the latest, for as long as OpenAI keeps a response.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from proxy.clock import Clock

KEEP_S = 30 * 86_400  # OpenAI's guide "Conversation state": responses are kept for 30 days
MOST_HERE = 20_000  # some 8 MB


class Origin(NamedTuple):
    """Where a response is kept, and whose it is."""

    credential: str  # of the target: any other of the same account knows it too
    tenant: str  # who may go on from it
    target: str  # the label of the one that made it
    made_at: int  # seconds since 1970


class OriginStore(Protocol):
    """
    Keeps origins under keys that `key_of` makes. No method raises: what cannot be asked knows of
    none, and what it cannot be told it does not know.
    """

    async def find(self, key: str) -> Origin | None: ...

    async def keep(self, keys: Sequence[str], origin: Origin) -> None: ...

    async def forget(self, key: str) -> None: ...


def key_of(id: str) -> str:
    return hashlib.sha256(id.encode(errors="replace")).hexdigest()[:32]


class MemoryOrigins:
    """Those of this process."""

    def __init__(self, clock: Clock, *, most: int = MOST_HERE) -> None:
        self._clock = clock
        self._most = most
        self._held: OrderedDict[str, Origin] = OrderedDict()

    async def find(self, key: str) -> Origin | None:
        found = self._held.get(key)
        return None if found is None or is_past(found, self._clock.wall()) else found

    async def keep(self, keys: Sequence[str], origin: Origin) -> None:
        for key in keys:
            self._held.pop(key, None)
            self._held[key] = origin
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    async def forget(self, key: str) -> None:
        self._held.pop(key, None)


def is_past(origin: Origin, wall_s: float) -> bool:
    """Say whether no provider is expected to keep it any more."""
    return origin.made_at + KEEP_S <= wall_s
