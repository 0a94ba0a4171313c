"""
Answers kept on this machine's disk, over restarts: the `diskcache` library, and only bytes of ours.

It works in a thread of its own, so that no request but the one that asks waits for the disk. What
cannot be read is a miss, what cannot be written is not kept; a disk that hangs is not asked for a
while.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from diskcache import Cache, Disk

from proxy.clock import Clock
from proxy.store.cache_port import CannotKeep, Entry, pack, unpack
from proxy.store.patience import Failed, Patience

MANY = 20  # keys that are looked up together, within the time that one may take
PATIENCE_S = 0.1  # with another process that writes
CLOSING_S = 1.0
MOST_ON_DISK_BYTES = 4 * 1024**3
MODE_PICKLE = 4  # of diskcache
FILES = ("cache.db", "cache.db-wal", "cache.db-shm")  # of diskcache

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
        """Raises CannotKeep where nothing can be kept in that folder."""
        self._most_bytes = most_bytes
        self._patience = Patience(clock, self._turn_of_thread)
        self._turn = asyncio.Lock()
        # One thread: the library has a connection for each, and closes that of its caller only.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="answers on disk")
        self._looking: dict[str, asyncio.Task[object]] = {}
        try:
            self._cache = self._pool.submit(_opened, Path(folder)).result()
        except (OSError, sqlite3.Error) as exc:
            self._pool.shutdown(wait=False)
            why = exc.strerror if isinstance(exc, OSError) else str(exc)
            raise CannotKeep(
                f"answers cannot be kept in {folder} ({why or type(exc).__name__}): let this user "
                "write there, or name another folder in cache_params.disk_cache_dir"
            ) from exc

    async def find(self, key: str) -> Entry | None:
        # What many ask for at once is looked up once.
        found = self._looking.get(key)
        if found is None:
            found = self._looking[key] = asyncio.create_task(
                self._ask(lambda: self._get(key), None)
            )
            found.add_done_callback(lambda _: self._looking.pop(key))
        return await self._read(key, await asyncio.shield(found))

    async def find_each(self, keys: Sequence[str]) -> list[Entry | None]:
        found: list[Entry | None] = []
        for start in range(0, len(keys), MANY):
            some = keys[start : start + MANY]
            raws = await self._ask(partial(list, map(self._get, some)), [None] * len(some))
            found += [await self._read(*each) for each in zip(some, raws, strict=True)]
        return found

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        if for_s > 0:
            value = await pack(key, entry)
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
        with suppress(sqlite3.Error, OSError, TimeoutError):
            self._pool.submit(self._cache.close).result(CLOSING_S)
        self._pool.shutdown(wait=False)

    async def _read(self, key: str, raw: object) -> Entry | None:
        if not isinstance(raw, bytes):
            return None
        return await unpack(key, raw, most_bytes=self._most_bytes)

    def _get(self, key: str) -> object:
        try:
            return self._cache.get(key)
        except ValueError:  # a pickle, or no text where there should be one
            return None

    def _turn_of_thread(self) -> Awaitable[None]:
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: None)

    async def _ask(self, work: Callable[[], T], otherwise: T) -> T:
        loop = asyncio.get_running_loop()
        async with self._turn:  # so that who has to wait for others does not blame the disk
            try:
                return await self._patience.ask(lambda: loop.run_in_executor(self._pool, work))
            except Failed:
                return otherwise


def _opened(folder: Path) -> Any:
    """Return the cache in this folder. What is there and is none is moved out of the way."""
    try:
        return _open(folder)
    except sqlite3.DatabaseError as exc:
        if isinstance(exc, sqlite3.OperationalError):  # it cannot be reached: no word on its health
            raise
    for name in FILES:
        with suppress(FileNotFoundError):
            (folder / name).replace(folder / f"{name}.damaged")
    return _open(folder)


def _open(folder: Path) -> Any:
    return Cache(
        str(folder),
        timeout=PATIENCE_S,
        disk=BytesOnly,
        size_limit=MOST_ON_DISK_BYTES,
        eviction_policy="least-recently-used",
    )
