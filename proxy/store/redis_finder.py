"""
Values of many keys by few commands: what is asked for meanwhile goes out with the next.

A thousand requests at once are a dozen commands on one connection, and the same key is asked for
once.
"""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import zip_longest
from typing import Any

from redis.asyncio import RedisCluster

from proxy.store.patience import Failed, Patience

MOST_KEYS = 100  # in one command


class Finder:
    def __init__(self, client: Any, patience: Patience) -> None:
        # Of a Cluster each node is asked for its own.
        self._mget = client.mget_nonatomic if isinstance(client, RedisCluster) else client.mget
        self._patience = patience
        self._wanted: dict[str, asyncio.Future[Any]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, place: str) -> Any:
        """Return the value, None where there is none. Raises Failed."""
        found = self._wanted.get(place)
        if found is None:
            found = self._wanted[place] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._ask(), name="look up answers")
        # Shielded: others may wait for the same value, and this one may be leaving.
        return await asyncio.shield(found)

    async def _ask(self) -> None:
        try:
            while self._wanted:
                places = list(self._wanted)[:MOST_KEYS]
                asked = {place: self._wanted.pop(place) for place in places}
                try:
                    values = await self._patience.ask(partial(self._mget, places))
                except Failed as exc:
                    for found in asked.values():
                        found.set_exception(exc)
                        found.exception()  # whoever asked may have left
                else:
                    for found, value in zip_longest(asked.values(), values[: len(places)]):
                        found.set_result(value)
        finally:
            self._task = None
