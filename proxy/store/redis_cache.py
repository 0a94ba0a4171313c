"""
Answers kept in a Redis, for all replicas that use it.

Whatever is wrong with it is a miss: a value that is corrupt, foreign or too large, a Redis that is
slow, full or gone. After a failure it is not asked for a while, so that no request waits for it
again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from redis.exceptions import RedisError

from proxy.clock import Clock
from proxy.store.cache_port import Entry, pack, unpack
from proxy.store.patience import TIMEOUT_S, Failed, Patience
from proxy.store.redis_finder import Finder

PREFIX = "mobius:cache:"
MANY = 500  # keys that are looked at together
HEADROOM_BYTES = 64 * 1024  # of a value over its payloads


class RedisCache:
    """
    Keeps entries below a prefix; `most_bytes` is the most that the payloads of one may take.
    """

    def __init__(
        self,
        client: Any,
        clock: Clock,
        *,
        namespace: str,
        most_bytes: int,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._client = client
        self._prefix = f"{PREFIX}{namespace}:" if namespace else PREFIX
        self._most_bytes = most_bytes
        self._patience = Patience(clock, client.ping, timeout_s)
        # One byte more than it may take says that it takes too much.
        self._finder = Finder(client, self._patience, most_bytes=most_bytes + HEADROOM_BYTES)

    async def find(self, key: str) -> Entry | None:
        try:
            raw = await self._finder.find(self._place(key))
        except Failed:
            return None
        return await self._read(key, raw)

    async def find_each(self, keys: Sequence[str]) -> list[Entry | None]:
        # All of them are asked for before the first reply: the finder sends them together.
        return await asyncio.gather(*map(self.find, keys))

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        milliseconds = int(for_s * 1000)
        if milliseconds > 0:
            value = await pack(key, entry)
            with suppress(Failed):
                await self._patience.ask(
                    lambda: self._client.set(self._place(key), value, px=milliseconds)
                )

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        gone = 0
        with suppress(Failed, RedisError, OSError):
            if key is not None:
                return int(await self._patience.ask(lambda: self._client.unlink(self._place(key))))
            async for place in self._client.scan_iter(match=f"{self._prefix}*", count=MANY):
                if model is None or await self._is_of(place, model):
                    gone += int(await self._patience.ask(partial(self._client.unlink, place)))
        return gone

    async def aclose(self) -> None:
        await self._finder.aclose()
        with suppress(RedisError, OSError):
            await self._client.aclose()

    async def _read(self, key: str, raw: object) -> Entry | None:
        if not isinstance(raw, bytes) or len(raw) > self._most_bytes + HEADROOM_BYTES:
            return None
        return await unpack(key, raw, most_bytes=self._most_bytes)

    async def _is_of(self, place: bytes, model: str) -> bool:
        key = place.decode()[len(self._prefix) :]
        entry = await self._read(key, await self._finder.find(place.decode()))
        return entry is not None and entry.model == model

    def _place(self, key: str) -> str:
        return self._prefix + key
