"""
Identical requests cost one call: an answer that is kept is given again, and one that is under way
is shared.

Only whole answers are kept: every choice ended, and in a way that the file allows. Errors, answers
that were cut and streams that broke are not. Where answers are kept cannot fail a request: what
cannot be read is a miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import orjson

from proxy.caching import Freshness, freshness
from proxy.clock import Clock
from proxy.errors import EVERYBODY_FAILED, ProxyError
from proxy.flights import Asked, Flight, Flights, Look, Work, next_number
from proxy.grammar import GRAMMARS
from proxy.kept import entries_of, paced, raw_of, reply_of, streamed
from proxy.owed import Owed
from proxy.relay import Relay
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.store.cache_port import CacheStore, Entry
from proxy.types import Call, Tally

LAST_WAIT_S = 2.0
OF_THE_CACHE = "cache"  # the provider of a request that asked none: a metric label


@dataclass(slots=True)
class _Keeping:
    """What is being written: nobody waits for it, and it ends before the cache does."""

    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    # So that who comes after a call and before its answer is in the store makes no second call.
    entries: dict[str, Entry] = field(default_factory=dict)

    def begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class Cache:
    """Answers from `store`, or from the call that is under way, or from a new one."""

    def __init__(self, store: CacheStore, clock: Clock, relay: Relay | None = None) -> None:
        self._store = store
        self._relay = relay
        self._clock = clock
        self._flights = Flights()
        self._keeping = _Keeping()

    async def aclose(self) -> None:
        """Return once all that was to be kept is, or after a few seconds."""
        await _end({*self._keeping.tasks, *self._flights.tasks})
        await _end(self._keeping.tasks)  # calls that are cancelled tell so to other replicas

    async def answer(self, asked: Asked, work: Work) -> Reply:
        """
        Return an answer that is kept or shared, else that of `work`, which makes the call.

        Raises what `work` raises, unless an answer that has expired may stand in for it.
        """
        entry = await self._find(asked)
        state = Freshness.GONE if entry is None else self.state(asked, entry)
        if entry is not None and state is Freshness.FRESH:
            reply = self._given(asked, entry, "hit")
            if reply is not None:
                return reply
        try:
            return await self.fly(asked, work, partial(self._look, asked))
        except EVERYBODY_FAILED:
            reply = None
            if entry is not None and self.state(asked, entry) is Freshness.STALE:
                reply = self._given(asked, entry, "stale")
            if reply is None:
                raise
            return reply

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        """
        Drop one answer, those of a model, or all; return how many it were.

        What this process is being told meanwhile is not kept: it was asked before.
        """
        self._flights.purge(key=key, model=model)
        await asyncio.gather(*self._keeping.tasks, return_exceptions=True)
        return await self._store.purge(key=key, model=model)

    async def _find(self, asked: Asked) -> Entry | None:
        """Return what is kept, or about to be."""
        if not asked.wishes.reads:
            return None
        written = self._keeping.entries
        found = written.get(asked.key) or await self._store.find(asked.key)
        return found or written.get(asked.key)

    async def find_each(self, asked: Asked) -> dict[str, Entry]:
        """Return what is kept, or about to be, of the inputs; fresh or not."""
        if not asked.wishes.reads:
            return {}
        keys, written = tuple(dict.fromkeys(asked.inputs)), self._keeping.entries
        found = {key: written[key] for key in keys if key in written}
        kept = zip(keys, await self._store.find_each(keys), strict=True)
        found |= {key: entry for key, entry in kept if entry is not None}
        return found | {key: written[key] for key in keys if key in written}

    async def fly(self, asked: Asked, work: Work, look: Look) -> Reply:
        """
        Return the answer of the call that is under way, or of a new one that `work` makes.

        `look` finds what was kept since it was last looked for.
        """
        number, shared = 1, _shares(asked)
        asked.tally.cache = "miss"
        while True:
            flight = self._flights.find(asked.key) if shared else None
            mine = flight is None
            if flight is None:
                ask = self._relayed(asked, work, look) if shared else work
                flight = self._flights.begin(asked, ask, self._landed, number=number, shared=shared)
            try:
                return await self._board(flight, asked, mine=mine)
            except ProxyError as failure:
                # What this request has only listened to was the call of another replica.
                own = mine and asked.tally.cache == "miss"
                again = None if own else next_number(failure, flight.number)
                if again is None:
                    raise
                number, asked.tally.cache = again, "miss"

    def _relayed(self, asked: Asked, work: Work, look: Look) -> Work:
        """Return the same work, done once for all replicas that share the cache."""
        relay = self._relay
        if relay is None:
            return work
        return lambda: relay.fly(asked.key, asked.call, asked.tally, work, look)

    async def _look(self, asked: Asked) -> Reply | None:
        entry = await self._find(asked)
        if entry is None or self.state(asked, entry) is not Freshness.FRESH:
            return None
        reply = reply_of(entry, asked.call)
        if reply is not None:
            self.tell(asked.tally, entry, "hit")
        return reply

    async def _board(self, flight: Flight, asked: Asked, *, mine: bool) -> Reply:
        """Return the flight's answer in the way that the request wants it."""
        start_s = self._clock.now()
        async with Owed() as owed:
            seat = owed.enter_context(flight.seat())
            try:
                reply = await seat.reply(asked.call)
                if isinstance(reply, ChunkStream) and not asked.call.stream:
                    reply = await _whole(reply, asked.call)
            finally:
                if not mine:
                    asked.tally.upstream_s += self._clock.now() - start_s
            if not mine:
                asked.tally.cache = "shared"
                asked.tally.target, asked.tally.provider = flight.answered_by
            if isinstance(reply, Completion) and asked.call.stream:
                call = asked.call
                events = GRAMMARS[call.surface].events(reply.body, usage=call.wants_usage)
                return streamed(Chunk.of_events(events), reply.dropped, reply.headers)
            if isinstance(reply, ChunkStream):
                if mine:
                    stream = reply
                    owed.callback(lambda: flight.tell_wait(stream))
                return reply.owe(owed.pop_all())
            return reply

    def _landed(self, flight: Flight) -> None:
        """Keep the answer, if it is whole and may be kept, and let other replicas know."""
        entries: dict[str, Entry] = {}
        # Whatever is odd about an answer, it is for those who read it to find out: all that is said
        # of it here is that nobody else is given it. Others must be told that it is over.
        with suppress(Exception):
            entries = entries_of(flight, self._clock.wall())
        self._keeping.entries |= entries
        if entries or (flight.shared and self._relay is not None):
            self._keeping.begin(self._keep(flight, entries))

    async def _keep(self, flight: Flight, entries: Mapping[str, Entry]) -> None:
        # First kept, then told: who comes in between finds it, and makes no call of its own.
        asked, written = flight.asked, self._keeping.entries
        for key, entry in entries.items():
            for_s = entry.ttl_s + asked.caching.stale_if_error_s
            try:
                await self._store.keep(key, entry, for_s=for_s)
            finally:
                if written.get(key) is entry:
                    del written[key]
        # A call that is not shared is told to nobody: another one of the same key may be.
        if flight.shared and self._relay is not None:
            await self._relay.land(asked.key, ok=flight.whole_said)

    def _age_s(self, entry: Entry) -> float:
        return max(0.0, self._clock.wall() - entry.kept_at)

    def state(self, asked: Asked, entry: Entry) -> Freshness:
        """Return what an entry is good for to this request."""
        return freshness(
            self._age_s(entry),
            entry.ttl_s,
            wishes=asked.wishes,
            stale_if_error_s=asked.caching.stale_if_error_s,
        )

    def _given(self, asked: Asked, entry: Entry, how: str) -> Reply | None:
        """Return what is kept, in the way that the request wants it; None if it is no answer."""
        call, pace_s = asked.call, asked.caching.pace_s
        reply: Reply
        try:
            if call.stream and pace_s is not None:
                reply = paced(entry, call, pace_s, self._clock)
            else:
                raw = raw_of(entry, call)
                reply = Completion(raw, dropped=entry.dropped, streamed=call.stream)
        except ValueError:
            return None
        self.tell(asked.tally, entry, how)
        return reply

    def tell_part(self, tally: Tally, entries: Collection[Entry]) -> None:
        """Have it known that these are a part of the answer, of which the rest was asked for."""
        age_s = max(map(self._age_s, entries))
        tally.cache_age_s = max(age_s, tally.cache_age_s or 0.0)
        if tally.cache != "hit":  # another replica had just kept the rest
            tally.cache = "partial"

    def tell(self, tally: Tally, entry: Entry, how: str) -> None:
        """Have it known that the answer is this one."""
        tally.cache, tally.cache_age_s = how, self._age_s(entry)
        tally.target, tally.provider = entry.target, OF_THE_CACHE
        tally.kept_of = entry.provider


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Return when all of them have ended; those that take too long are cancelled."""
    if tasks:
        _, late = await asyncio.wait(tuple(tasks), timeout=LAST_WAIT_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


def _shares(asked: Asked) -> bool:
    """Say whether the request may be on the same flight as others."""
    return asked.wishes.reads and not asked.wishes.no_store


async def _whole(stream: ChunkStream, call: Call) -> Completion:
    try:
        events = [event async for chunk in stream for event in chunk.events]
    finally:
        await stream.aclose()
    whole = GRAMMARS[call.surface].whole(events)
    return Completion(orjson.dumps(whole), dropped=stream.dropped)
