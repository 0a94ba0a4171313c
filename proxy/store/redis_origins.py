"""
Who made which response, in a Redis for all replicas that use it.

The latest are kept, no more than `MOST`: limits are counted in the same Redis, which must not be
filled. One that is slow or gone knows of none, and is not asked for a while.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson
from redis.exceptions import RedisError

from proxy.clock import Clock
from proxy.store.origins import KEEP_S, Origin, is_past
from proxy.store.patience import Failed, Patience

MOST = 200_000  # some 60 MB
OF, AT = "mobius:{responses}:of", "mobius:{responses}:at"  # one slot of a Cluster

# KEYS: of, at. ARGV: the origin, when it was made, who is too old, MOST, KEEP_S, and the keys. A
# few of the oldest go with each that comes.
KEEP = """
for place = 6, #ARGV do
  redis.call('HSET', KEYS[1], ARGV[place], ARGV[1])
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[place])
end
local few = 10 + #ARGV
local out = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[3], 'LIMIT', 0, few)
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[4])
if #out == 0 and over > 0 then
  out = redis.call('ZRANGE', KEYS[2], 0, math.min(over, few) - 1)
end
for _, key in ipairs(out) do
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
end
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('EXPIRE', KEYS[2], ARGV[5])
"""
FORGET = "redis.call('HDEL', KEYS[1], ARGV[1]) redis.call('ZREM', KEYS[2], ARGV[1])"


class RedisOrigins:
    """Those of all replicas; `aclose` closes the client."""

    def __init__(self, client: Any, clock: Clock, *, most: int = MOST) -> None:
        self._client = client
        self._clock = clock
        self._most = most
        self._patience = Patience(clock, client.ping)

    async def find(self, key: str) -> Origin | None:
        try:
            raw = await self._patience.ask(lambda: self._client.hget(OF, key))
            credential, tenant, target, made_at = orjson.loads(raw or b"null")
            found = Origin(str(credential), str(tenant), str(target), int(made_at))
        except (Failed, ValueError, TypeError):
            return None
        return None if is_past(found, self._clock.wall()) else found

    async def keep(self, keys: Sequence[str], origin: Origin) -> None:
        past = int(self._clock.wall()) - KEEP_S
        facts = (orjson.dumps(list(origin)), origin.made_at, past, self._most, KEEP_S)
        with suppress(Failed):
            await self._patience.ask(lambda: self._client.eval(KEEP, 2, OF, AT, *facts, *keys))

    async def forget(self, key: str) -> None:
        with suppress(Failed):
            await self._patience.ask(lambda: self._client.eval(FORGET, 2, OF, AT, key))

    async def aclose(self) -> None:
        with suppress(RedisError, OSError):
            await self._client.aclose()
