"""
Values of many keys in few round trips: what is asked for meanwhile goes out with the next one.

A thousand requests at once are a dozen round trips on one connection, and the same key is asked for
once. No more of a value is read than is wanted, however large it is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError, ResponseError

from proxy.store.patience import Failed, Patience

MOST_KEYS = 100  # in one round trip


class Finder:
    """Reads at most `most_bytes` of each value. Of one that is longer one byte more is read."""

    def __init__(self, client: Any, patience: Patience, *, most_bytes: int) -> None:
        self._client = client
        self._patience = patience
        self._end = most_bytes  # the place of the last byte that is read, the first one being 0
        self._several = isinstance(client, RedisCluster)
        self._line: Any = None  # the connection, which nobody else uses
        self._timeout_s: float | None = None  # what it had before
        self._wanted: dict[str, asyncio.Future[bytes | None]] = {}
        self._task: asyncio.Task[None] | None = None

    async def find(self, place: str) -> bytes | None:
        """Return the value; None where there is none, or one that is no text. Raises Failed."""
        found = self._wanted.get(place)
        if found is None:
            found = self._wanted[place] = asyncio.get_running_loop().create_future()
        if self._task is None:
            self._task = asyncio.create_task(self._ask(), name="look up answers")
        # Shielded: others may wait for the same value, and this one may be leaving.
        return await asyncio.shield(found)

    async def aclose(self) -> None:
        """Hang up. Whoever still waits is told that it failed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._hang_up()

    async def _ask(self) -> None:
        asked: dict[str, asyncio.Future[bytes | None]] = {}
        try:
            while self._wanted:
                places = list(self._wanted)[:MOST_KEYS]
                asked = {place: self._wanted.pop(place) for place in places}
                try:
                    values = await self._patience.ask(partial(self._values, tuple(asked)))
                except Failed as exc:
                    _tell_failed(asked, exc)
                else:
                    for found, value in zip(asked.values(), values, strict=True):
                        found.set_result(value)
        finally:
            self._task = None
            _tell_failed(asked, Failed())
            _tell_failed(self._wanted, Failed())
            self._wanted.clear()

    async def _values(self, places: tuple[str, ...]) -> list[bytes | None]:
        if self._several:
            return await self._values_of_several(places)
        if self._line is not None:
            with suppress(ConnectionError):  # it may have been hung up on while nothing was asked
                return await self._values_on(self._line, places)
        return await self._values_on(await self._call(), places)

    async def _call(self) -> Any:
        self._line = line = await self._client.connection_pool.get_connection()
        self._timeout_s, line.socket_timeout = line.socket_timeout, None  # the patience is ours
        return line

    async def _values_on(self, line: Any, places: tuple[str, ...]) -> list[bytes | None]:
        # Not by way of the client: what it does beside asking takes longer than the asking.
        try:
            asking = b"".join(_asking(place.encode(), b"%d" % self._end) for place in places)
            await line.send_packed_command([asking], check_health=False)
            return [await _reply(line) for _ in places]
        except BaseException:
            # Replies may still be under way, which are not to be taken for those to come.
            await self._hang_up()
            raise

    async def _values_of_several(self, places: tuple[str, ...]) -> list[bytes | None]:
        pipeline = self._client.pipeline()  # asks each node for its own
        for place in places:
            pipeline.getrange(place, 0, self._end)
        found = await pipeline.execute(raise_on_error=False)
        for each in found:
            if isinstance(each, Exception) and not isinstance(each, ResponseError):
                raise each
        return [each if isinstance(each, bytes) and each else None for each in found]

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.socket_timeout = self._timeout_s
            with suppress(Exception):  # it is given up in any case
                await line.disconnect(nowait=True)
            with suppress(Exception):
                await self._client.connection_pool.release(line)


def _asking(place: bytes, end: bytes) -> bytes:
    """Return the command as it is sent: an array of four texts with their lengths."""
    words = (len(place), place, len(end), end)
    return b"*4\r\n$8\r\nGETRANGE\r\n$%d\r\n%b\r\n$1\r\n0\r\n$%d\r\n%b\r\n" % words


async def _reply(line: Any) -> bytes | None:
    try:
        value: bytes = await line.read_response()
    except ResponseError as exc:
        if not str(exc).startswith("WRONGTYPE"):
            raise
        return None
    return value or None


def _tell_failed(asked: dict[str, asyncio.Future[bytes | None]], why: Failed) -> None:
    for found in asked.values():
        if not found.done():
            found.set_exception(why)
            found.exception()  # whoever asked may have left
