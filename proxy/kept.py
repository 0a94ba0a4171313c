"""An answer as it is kept, and as it is given again. What is no answer of ours is none."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from itertools import islice

import orjson

from proxy import vectors
from proxy.caching import may_be_kept
from proxy.clock import Clock
from proxy.flights import Flight
from proxy.grammar import GRAMMARS, Grammar
from proxy.replay import events_in, frames_of
from proxy.replies import NO_HEADERS, Chunk, ChunkStream, Completion, Reply
from proxy.store.cache_port import Entry, Kind
from proxy.types import Call, Json


def entries_of(flight: Flight, wall_s: float) -> dict[str, Entry]:
    """Return what is kept of an answer, by key; nothing of one that is not whole."""
    asked, whole = flight.asked, flight.whole
    ours = asked.tally.cache == "miss"  # another replica keeps what it has made
    if not flight.complete or not ours or asked.wishes.no_store:
        return {}
    grammar = GRAMMARS[asked.call.surface]
    events = [e for chunk in flight.chunks for e in chunk.events] if whole is None else [whole.body]
    if not may_be_kept(grammar.reasons(events), asked.caching):
        return {}
    ttl_s = asked.caching.ttl_s if asked.wishes.ttl_s is None else asked.wishes.ttl_s
    facts = (wall_s, ttl_s, asked.model, *flight.answered_by, flight.dropped)
    found: dict[str, Entry] = {}
    if whole is None:
        found[asked.key] = Entry(Kind.STREAM, _ready(events, grammar), *facts)
    elif not asked.inputs:
        found[asked.key] = Entry(Kind.WHOLE, (whole.raw,), *facts)
    else:
        said = vectors.around(whole.body)
        apart = vectors.apart(whole.body, len(asked.inputs))
        for key, vector in zip(asked.inputs, apart, strict=bool(apart)):
            found[key] = Entry(Kind.VECTOR, (vector, said), *facts)
    most_bytes = asked.caching.max_entry_bytes
    return {key: entry for key, entry in found.items() if entry.size_bytes <= most_bytes}


def _ready(events: Sequence[Json], grammar: Grammar) -> tuple[bytes, bytes]:
    """Return the events as they are sent, and those that only some ask for."""
    usage = [event for event in events if grammar.only_usage(event)]
    said = [event for event in events if not grammar.only_usage(event)]
    return frames_of(said, named=grammar.named), frames_of(usage, named=grammar.named)


def raw_of(entry: Entry, call: Call) -> bytes:
    """
    Return all the bytes that `call` is answered with. Raises ValueError where it is no answer.

    What is wanted in the way it came is not even looked at.
    """
    grammar = GRAMMARS[call.surface]
    if entry.kind is not Kind.STREAM:
        raw = entry.payloads[0]
        if not call.stream:
            return raw
        events = grammar.events(orjson.loads(raw), usage=call.wants_usage)
        return frames_of(events, named=grammar.named) + grammar.done
    said, usage = entry.payloads
    if not call.stream:
        return orjson.dumps(grammar.whole(events_in(said + usage)))
    return b"".join((said, usage, grammar.done) if call.wants_usage else (said, grammar.done))


def events_of(entry: Entry, call: Call) -> Sequence[Json]:
    """Return the events of the same answer as a stream. Raises ValueError likewise."""
    if entry.kind is not Kind.STREAM:
        whole = orjson.loads(entry.payloads[0])
        return GRAMMARS[call.surface].events(whole, usage=call.wants_usage)
    said, usage = entry.payloads
    return events_in(said + usage if call.wants_usage else said)


def paced(entry: Entry, call: Call, pace_s: float, clock: Clock) -> ChunkStream:
    """
    Return the answer as a stream with so much time between its events.

    Raises ValueError where it is no answer.
    """
    events = iter(events_of(entry, call))
    first = [Chunk.of_events([event]) for event in islice(events, 1)]

    async def rest() -> AsyncGenerator[Chunk, None]:
        for event in events:
            await clock.sleep(pace_s)
            yield Chunk.of_events([event])

    return ChunkStream(first, rest(), now=clock.now, dropped=entry.dropped)


def reply_of(entry: Entry, call: Call) -> Reply | None:
    """Return the answer as it came, to be shared by all who ask; None if it is none."""
    try:
        if entry.kind is not Kind.STREAM:
            whole = Completion(entry.payloads[0], dropped=entry.dropped)
            return whole if isinstance(whole.body, dict) else None
        said, usage = map(events_in, entry.payloads)
    except ValueError:
        return None
    chunk = Chunk.of_events([*said, *usage])
    return streamed(chunk if call.wants_usage else chunk.without(usage), entry.dropped)


def streamed(
    chunk: Chunk, dropped: Sequence[str], headers: Mapping[str, str] = NO_HEADERS
) -> ChunkStream:
    """Return all of an answer as a stream of one chunk."""
    return ChunkStream((chunk,), _nothing(), headers=headers, dropped=dropped)


async def _nothing() -> AsyncGenerator[Chunk, None]:
    return
    yield
