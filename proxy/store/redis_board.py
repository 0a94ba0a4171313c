"""
Which replica makes the call for a key, and what it has said so far: on the Redis of the cache.

The one that comes first holds the key for as long as it gives signs of life, several a second.
What it says is written down once another replica wants it, from the first word on, and read there
as it comes. Whoever reads notices within a second that the writer is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable
from contextlib import suppress
from secrets import token_hex
from typing import Any

import orjson

from proxy.clock import Clock
from proxy.ids import Ids
from proxy.store.board import Begun, Following, LeaderLost, Leading
from proxy.store.patience import TIMEOUT_S, Failed, Patience
from proxy.types import Json

LEADER_MS = 600  # without a sign of life after which a leader is gone
BEAT_S = 0.15
LOOK_MS = 150  # between looks whether a leader that says nothing is still there
TICK_S = 0.1  # a Redis that has nothing else to do ends a wait so much late
KEPT_MS = 30_000  # what was said, for those who came before the end
MANY = 100  # sayings that are read at once

# All keys of one flight have its key as their hash tag, and so are in one slot.
# KEYS: flight, wanted. ARGV: me, LEADER_MS, KEPT_MS. Returns nothing to the leader, else who leads.
TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return false end
local leader = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[2], leader, 'PX', ARGV[3])
return leader
"""
# The same, and KEYS: said. Returns 1 where somebody wants to hear it, 0 where nobody does, -1 to
# whoever leads no more. Long as a leader may be silent, what it has said stays from its first word.
BEAT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[3], ARGV[3])
return 1
"""
# KEYS: flight. ARGV: who leads. Returns for how many milliseconds it is taken to be alive, -1 for
# whoever leads no more.
LEFT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
return redis.call('PTTL', KEYS[1])
"""
# As for BEAT, and ARGV: what is said, as pairs for XADD.
SAY = """
for place = 4, #ARGV, 2 do redis.call('XADD', KEYS[3], '*', ARGV[place], ARGV[place + 1]) end
redis.call('PEXPIRE', KEYS[3], ARGV[3])
"""
# The same, with the last that is to be said. Then nobody leads.
LAND = f"""
local mine = redis.call('GET', KEYS[1]) == ARGV[1]
if redis.call('GET', KEYS[2]) == ARGV[1] then {SAY} end
if mine then redis.call('DEL', KEYS[1]) end
return mine and 1 or 0
"""


class RedisBoard:
    """
    `most_bytes` is how much of an answer is held for those who may still come.

    Of a Redis that may take longer, signs of life may too.
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
        self._most_bytes = most_bytes
        self._prefix = f"mobius:flight:{namespace}:" if namespace else "mobius:flight:"
        self._patience = Patience(clock, client.ping, timeout_s)
        self._ids = Ids(token_hex(8))
        self._leader_ms = LEADER_MS + int(max(0.0, timeout_s - TIMEOUT_S) * 1000)

    async def take(self, key: str) -> Leading | Following | None:
        me = self._ids.next()
        places = self._places(key, me)
        try:
            leader: bytes | None = await self._patience.ask(
                lambda: self._client.eval(TAKE, 2, *places[:2], me, self._leader_ms, KEPT_MS)
            )
        except Failed:
            return None
        if leader is None:
            return RedisLeading(
                self._client,
                self._patience,
                places,
                me,
                most_bytes=self._most_bytes,
                leader_ms=self._leader_ms,
            )
        name = leader.decode()
        return RedisFollowing(self._client, self._patience, self._places(key, name), name)

    def _places(self, key: str, leader: str) -> tuple[str, str, str]:
        tag = f"{self._prefix}{{{key}}}"
        return f"{tag}:flight", f"{tag}:wanted", f"{tag}:said:{leader}"


class RedisLeading(Leading):
    """
    Holds the key, and writes down what is said once it is wanted.

    It gives up the lead, and goes on for its own process alone, when what it has said is too large
    to be held for others, cannot be written, or when somebody else has taken the key.
    """

    def __init__(
        self,
        client: Any,
        patience: Patience,
        places: tuple[str, str, str],
        me: str,
        *,
        most_bytes: int,
        leader_ms: int,
    ) -> None:
        self._client = client
        self._patience = patience
        self._places = places
        self._me = me
        self._leader_ms = leader_ms
        self._most_bytes = most_bytes
        self._unsaid: list[tuple[bytes, bytes]] = []  # fields and values
        self._unsaid_bytes = 0
        self._heard = asyncio.Event()
        self._wanted = False
        self._gave_up = False
        self._over = False
        self._beats = asyncio.create_task(self._beat(), name="lead a flight")

    def begins(self, begun: Begun) -> None:
        facts = [begun.target, begun.provider, begun.streamed, begun.dropped]
        self._say(b"begun", orjson.dumps(facts))

    def says(self, said: bytes, events: int) -> None:
        self._say(b"events" if events else b"whole", said)

    def _say(self, name: bytes, value: bytes) -> None:
        if self._gave_up:
            return
        self._unsaid.append((name, value))
        self._unsaid_bytes += len(value)
        if self._unsaid_bytes > self._most_bytes and not self._wanted:
            self._give_up()
        self._heard.set()

    def _give_up(self) -> None:
        self._gave_up = self._over = True
        self._unsaid, self._unsaid_bytes = [], 0

    async def land(self, *, ok: bool) -> None:
        # Not cancelled: what is being written must be written before the end of it.
        self._over = True
        self._heard.set()
        await asyncio.gather(self._beats, return_exceptions=True)
        said = [*self._unsaid, (b"end", b"ok" if ok and not self._gave_up else b"lost")]
        with suppress(Failed):
            await self._evaluate(LAND, said)

    async def _beat(self) -> None:
        """Give a sign of life several times a second; write at once what somebody waits for."""
        while not self._over:
            with suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await self._woken(said=self._wanted)
            if self._wanted and self._unsaid:
                await self._write()
            if not self._over:
                with suppress(Failed):
                    beat = await self._evaluate(BEAT)
                    self._wanted = self._wanted or beat == 1
                    if beat == -1:
                        self._give_up()

    async def _woken(self, *, said: bool) -> None:
        """Return when it is over, or when something was said, if that matters."""
        while not self._over:
            self._heard.clear()
            if said and self._unsaid:
                return
            await self._heard.wait()

    async def _write(self) -> None:
        """Write down what was said and is not written yet."""
        unsaid, self._unsaid, self._unsaid_bytes = self._unsaid, [], 0
        try:
            await self._evaluate(SAY, unsaid)
        except Failed:
            # Whether it is written is not known, and once more would be twice.
            self._give_up()

    def _evaluate(self, script: str, said: Iterable[tuple[bytes, bytes]] = ()) -> Awaitable[Any]:
        words = [word for pair in said for word in pair]
        arguments = (*self._places, self._me, self._leader_ms, KEPT_MS, *words)
        return self._patience.ask(lambda: self._client.eval(script, 3, *arguments))


class RedisFollowing(Following):
    """Reads what another process says."""

    def __init__(
        self, client: Any, patience: Patience, places: tuple[str, str, str], leader: str
    ) -> None:
        self._client = client
        self._patience = patience
        self._places = places
        self._leader = leader
        self._last = b"0"
        self._read: list[tuple[bytes, bytes]] = []

    async def begun(self) -> Begun:
        name, value = await self._next()
        if name != b"begun":
            raise LeaderLost
        try:
            target, provider, streamed, dropped = orjson.loads(value)
            return Begun(str(target), str(provider), bool(streamed), tuple(map(str, dropped)))
        except (ValueError, TypeError) as exc:
            raise LeaderLost from exc

    async def events(self) -> AsyncGenerator[list[Json], None]:
        while True:
            name, value = await self._next()
            if name == b"end" and value == b"ok":
                return
            if name != b"events":
                raise LeaderLost
            yield _events(value)

    async def whole(self) -> bytes:
        name, value = await self._next()
        if name != b"whole":
            raise LeaderLost
        return value

    async def _next(self) -> tuple[bytes, bytes]:
        """Return what is said next, once it is. Raises LeaderLost."""
        wait_ms: int | None = LOOK_MS
        try:
            while not self._read:
                if await self._look(wait_ms):
                    continue
                if wait_ms is None:
                    raise LeaderLost
                left_ms = await self._left_ms()
                # At the very moment at which it counts as gone; then once more what it has said.
                wait_ms = min(LOOK_MS, left_ms + 1) if left_ms >= 0 else None
        except Failed as exc:
            raise LeaderLost from exc
        return self._read.pop(0)

    async def _look(self, wait_ms: int | None) -> bool:
        """Wait a moment for something to be said, and say whether anything was."""
        streams = {self._places[2]: self._last}
        found = await self._patience.ask(
            lambda: self._client.xread(streams, count=MANY, block=wait_ms),
            longer_s=0.0 if wait_ms is None else wait_ms / 1000 + TICK_S,
        )
        for _, lines in found or ():
            for line, fields in lines:
                self._last = line
                self._read += fields.items()
        return bool(found)

    async def _left_ms(self) -> int:
        place, leader = self._places[0], self._leader
        return int(await self._patience.ask(lambda: self._client.eval(LEFT, 1, place, leader)))


def _events(value: bytes) -> list[Json]:
    """Return the events. Raises LeaderLost for what no leader has said."""
    try:
        events = orjson.loads(value)
    except ValueError as exc:
        raise LeaderLost from exc
    if not isinstance(events, list) or not all(isinstance(each, dict) for each in events):
        raise LeaderLost
    return events
