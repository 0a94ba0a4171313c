"""
Answers kept on this machine's disk, over restarts: the `diskcache` library, and only bytes of ours.

It works in threads, so that no request but the one that asks waits for the disk. What cannot be
read is a miss, what cannot be written is not kept.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from diskcache import Cache, Disk, Timeout

from proxy.clock import Clock
from proxy.store.cache_port import Entry, packed, unpacked

PATIENCE_S = 0.1  # with another process that writes
MOST_ON_DISK_BYTES = 4 * 1024**3
MODE_PICKLE = 4  # of diskcache

T = TypeVar("T")


class Foreign(ValueError):
    """The value is not one of ours."""


class BytesOnly(Disk):  # type: ignore[misc]  # diskcache has no annotations
    """A disk that never unpickles: whoever can write a file there could run code here."""

    def fetch(self, mode: int, filename: str, value: Any, read: bool) -> Any:
        if mode == MODE_PICKLE:
            raise Foreign
        return super().fetch(mode, filename, value, read)


class DiskCache:
    """Keeps entries in files of `folder`; `most_bytes` is the most that one may take."""

    def __init__(self, folder: str, clock: Clock, *, most_bytes: int) -> None:
        self._clock = clock
        self._most_bytes = most_bytes
        self._cache = Cache(
            folder,
            timeout=PATIENCE_S,
            disk=BytesOnly,
            size_limit=MOST_ON_DISK_BYTES,
            eviction_policy="least-recently-used",
        )

    async def find(self, key: str) -> Entry | None:
        raw = await self._ask(lambda: self._cache.get(key), None)
        if not isinstance(raw, bytes):
            return None
        return unpacked(key, raw, most_bytes=self._most_bytes)

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        if for_s > 0:
            value = packed(key, entry)
            await self._ask(
                lambda: self._cache.set(key, value, expire=for_s, tag=entry.model), False
            )

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        if key is not None:
            return int(await self._ask(lambda: self._cache.delete(key), False))
        if model is not None:
            return int(await self._ask(lambda: self._cache.evict(model), 0))
        return int(await self._ask(self._cache.clear, 0))

    def close(self) -> None:
        with suppress(sqlite3.Error, OSError):
            self._cache.close()

    async def _ask(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return await asyncio.to_thread(work)
        except (sqlite3.Error, OSError, Timeout, Foreign):
            return otherwise
