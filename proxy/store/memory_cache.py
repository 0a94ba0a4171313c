"""Answers kept in this process: the longest unused go first when the bytes run out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from proxy.clock import Clock
from proxy.store.cache_port import Entry


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry, and the moment at which it is of no use any more, monotonic."""

    entry: Entry
    until_s: float
    size_bytes: int


class MemoryCache:
    def __init__(self, clock: Clock, *, most_bytes: int) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self.size_bytes = 0

    async def find(self, key: str) -> Entry | None:
        return self._get(key)

    async def find_each(self, keys: Sequence[str]) -> list[Entry | None]:
        return [self._get(key) for key in keys]

    def _get(self, key: str) -> Entry | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until_s <= self._clock.now():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return kept.entry

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        self._drop(key)
        size_bytes = entry.size_bytes + len(key)
        if size_bytes > self._most_bytes or for_s <= 0:
            return
        self._kept[key] = Kept(_compact(entry), self._clock.now() + for_s, size_bytes)
        self.size_bytes += size_bytes
        while self.size_bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        if key is not None:
            return int(self._drop(key))
        gone = [k for k, kept in self._kept.items() if model is None or kept.entry.model == model]
        return sum(self._drop(each) for each in gone)

    def _drop(self, key: str) -> bool:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size_bytes -= kept.size_bytes
        return kept is not None


def _compact(entry: Entry) -> Entry:
    """Return the entry without the room behind each payload: orjson leaves up to 4 KB there."""
    return replace(entry, payloads=tuple(bytes(memoryview(each)) for each in entry.payloads))
