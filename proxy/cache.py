"""
Identical requests cost one call: an answer that is kept is given again, and one that is under way
is shared.

Only whole answers are kept: every choice ended, and in a way that the file allows. Errors, answers
that were cut and streams that broke are not. Where answers are kept cannot fail a request: what
cannot be read is a miss.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import orjson

from proxy.caching import Freshness, freshness, may_be_kept
from proxy.clock import Clock
from proxy.errors import (
    DeadlineExceeded,
    NoTargetAvailable,
    ProviderAuthFailed,
    ProxyError,
    RateLimited,
)
from proxy.flights import Asked, Flight, Flights, Work, next_number
from proxy.relay import Relay
from proxy.replay import body_of, events_of, finish_reasons
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.store.cache_port import CacheStore, Entry, Kind
from proxy.types import Json

EVERYBODY_FAILED = (DeadlineExceeded, NoTargetAvailable, ProviderAuthFailed, RateLimited)
LAST_WAIT_S = 2.0
OF_THE_CACHE = "cache"  # the provider of a request that asked none: a metric label


@dataclass(slots=True)
class _Keeping:
    """What is being written: nobody waits for it, and it ends before the cache does."""

    tasks: set[asyncio.Task[None]] = field(default_factory=set)

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
        """Return once all that was to be kept is, or after two seconds."""
        tasks = {*self._keeping.tasks, *self._flights.tasks}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=LAST_WAIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def answer(self, asked: Asked, work: Work) -> Reply:
        """
        Return an answer that is kept or shared, else that of `work`, which makes the call.

        Raises what `work` raises, unless an answer that has expired may stand in for it.
        """
        entry = await self._store.find(asked.key) if asked.wishes.reads else None
        state = Freshness.GONE if entry is None else self._state(asked, entry)
        if entry is not None and state is Freshness.FRESH:
            return self._given(asked, entry, "hit")
        asked.tally.cache = "miss"
        try:
            return await self._fly(asked, work)
        except EVERYBODY_FAILED:
            if entry is None or state is not Freshness.STALE:
                raise
            return self._given(asked, entry, "stale")

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        """Drop one answer, those of a model, or all; return how many it were."""
        return await self._store.purge(key=key, model=model)

    async def _fly(self, asked: Asked, work: Work) -> Reply:
        number, shared = 1, _shares(asked)
        while True:
            flight = self._flights.find(asked.key) if shared else None
            mine = flight is None
            if flight is None:
                ask = self._relayed(asked, work) if shared else work
                flight = self._flights.begin(asked, ask, self._landed, number=number, shared=shared)
            try:
                return await self._board(flight, asked, mine=mine)
            except ProxyError as failure:
                again = None if mine else next_number(failure, flight.number)
                if again is None:
                    raise
                number = again

    def _relayed(self, asked: Asked, work: Work) -> Work:
        """Return the same work, done once for all replicas that share the cache."""
        relay = self._relay
        if relay is None:
            return work

        async def look() -> Reply | None:
            entry = await self._store.find(asked.key)
            if entry is None or self._state(asked, entry) is not Freshness.FRESH:
                return None
            return self._given(asked, entry, "hit")

        return lambda: relay.fly(asked.key, asked.tally, work, look)

    async def _board(self, flight: Flight, asked: Asked, *, mine: bool) -> Reply:
        """Return the flight's answer in the way that the request wants it."""
        start_s = self._clock.now()
        async with AsyncExitStack() as owed:
            owed.enter_context(flight.seat())
            try:
                reply = await flight.reply(asked.call)
                if isinstance(reply, ChunkStream) and not asked.call.stream:
                    reply = await _whole(reply)
            finally:
                if not mine:
                    asked.tally.upstream_s += self._clock.now() - start_s
            if not mine:
                asked.tally.cache = "shared"
                asked.tally.target, asked.tally.provider = flight.answered_by
            if isinstance(reply, Completion) and asked.call.stream:
                return _streamed(events_of(reply.body, usage=asked.call.wants_usage), reply.dropped)
            if isinstance(reply, ChunkStream):
                if mine:
                    stream = reply
                    owed.callback(lambda: flight.tell_wait(stream))
                return reply.owe(owed.pop_all())
            return reply

    def _landed(self, flight: Flight) -> None:
        """Keep the answer, if it is whole and may be kept, and let other replicas know."""
        asked = flight.asked
        entry = None if asked.wishes.no_store else self._entry_of(flight)
        if entry is not None or self._relay is not None:
            self._keeping.begin(self._keep(asked, entry, ok=flight.complete))

    async def _keep(self, asked: Asked, entry: Entry | None, *, ok: bool) -> None:
        # First kept, then told: who comes in between finds it, and makes no call of its own.
        if entry is not None and asked.tally.cache == "miss":
            for_s = entry.ttl_s + asked.caching.stale_if_error_s
            await self._store.keep(asked.key, entry, for_s=for_s)
        if self._relay is not None:
            await self._relay.land(asked.key, ok=ok)

    def _entry_of(self, flight: Flight) -> Entry | None:
        """Return the answer as it is kept; None for one that is not."""
        asked, whole = flight.asked, flight.whole
        payloads: tuple[bytes, ...]
        if not flight.complete:
            return None
        if whole is not None:
            kind, reasons, payloads = Kind.WHOLE, _reasons(whole), (whole.raw,)
        else:
            events = [event for chunk in flight.chunks for event in chunk.events]
            kind, reasons = Kind.STREAM, finish_reasons(events)
            payloads = tuple(orjson.dumps(event) for event in events)
        if not may_be_kept(reasons, asked.caching):
            return None
        ttl_s = asked.caching.ttl_s if asked.wishes.ttl_s is None else asked.wishes.ttl_s
        target, provider = flight.answered_by
        entry = Entry(
            kind,
            payloads,
            self._clock.wall(),
            ttl_s,
            asked.model,
            target,
            provider,
            flight.dropped,
        )
        return entry if entry.size_bytes <= asked.caching.max_entry_bytes else None

    def _age_s(self, entry: Entry) -> float:
        return max(0.0, self._clock.wall() - entry.kept_at)

    def _state(self, asked: Asked, entry: Entry) -> Freshness:
        return freshness(
            self._age_s(entry),
            entry.ttl_s,
            wishes=asked.wishes,
            stale_if_error_s=asked.caching.stale_if_error_s,
        )

    def _given(self, asked: Asked, entry: Entry, how: str) -> Reply:
        """Return what is kept, in the way that the request wants it."""
        tally, call = asked.tally, asked.call
        tally.cache, tally.cache_age_s = how, self._age_s(entry)
        tally.target, tally.provider = entry.target, OF_THE_CACHE
        if entry.kind is Kind.WHOLE and not call.stream:
            return Completion(entry.payloads[0], dropped=entry.dropped)
        if entry.kind is Kind.WHOLE:
            events = events_of(orjson.loads(entry.payloads[0]), usage=call.wants_usage)
            return _streamed(events, entry.dropped)
        events = [orjson.loads(payload) for payload in entry.payloads]
        if not call.stream:
            return Completion(orjson.dumps(body_of(events)), dropped=entry.dropped)
        shown = [each for each in events if call.wants_usage or each.get("choices")]
        return _streamed(shown, entry.dropped)


def _shares(asked: Asked) -> bool:
    """Say whether the request may be on the same flight as others."""
    return asked.wishes.reads and not asked.wishes.no_store


async def _whole(stream: ChunkStream) -> Completion:
    try:
        events = [event async for chunk in stream for event in chunk.events]
    finally:
        await stream.aclose()
    return Completion(orjson.dumps(body_of(events)), dropped=stream.dropped)


def _streamed(events: Sequence[Json], dropped: Sequence[str]) -> ChunkStream:
    return ChunkStream((Chunk.of_events(events),), _nothing(), dropped=dropped)


async def _nothing() -> AsyncGenerator[Chunk, None]:
    return
    yield


def _reasons(whole: Completion) -> list[object]:
    choices = whole.body.get("choices")
    return [choice.get("finish_reason") for choice in choices] if isinstance(choices, list) else []
