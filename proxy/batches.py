"""
Vectors of many inputs at once: those that are kept are given again, only the others are asked for.

Identical batches under way share one call, as all identical requests do. What is asked for is one
smaller request, and what an answer says was used is what that one took.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from proxy import vectors
from proxy.cache import Cache
from proxy.cache_key import key_of_all
from proxy.caching import Freshness
from proxy.errors import EVERYBODY_FAILED
from proxy.flights import Asked
from proxy.replies import Completion, Reply
from proxy.store.cache_port import Entry, Kind
from proxy.types import Call

Ask: TypeAlias = Callable[[Call], Awaitable[Reply]]


async def answer_each(cache: Cache, asked: Asked, ask: Ask) -> Reply:
    """
    Return the vectors of all inputs in their order, each kept, shared or told by a call.

    `ask` makes a call, which may be for some of them only. Raises what it raises, unless vectors
    that have expired may stand in for all that are missing.
    """
    found = await _found(cache, asked)
    fresh = _those(cache, asked, found, Freshness.FRESH)
    missing = tuple(key for key in dict.fromkeys(asked.inputs) if key not in fresh)
    if not missing:
        return _given(cache, asked, fresh, "hit")
    part = asked if len(missing) == len(asked.inputs) else _part(asked, missing)
    try:
        reply = await cache.fly(part, partial(ask, part.call), partial(_look, cache, part))
    except EVERYBODY_FAILED:
        stale = fresh | _those(cache, asked, found, Freshness.STALE)
        if not stale.keys() >= set(asked.inputs):
            raise
        return _given(cache, asked, stale, "stale")
    if part is asked or not isinstance(reply, Completion):
        return reply
    told = vectors.apart(reply.body, len(missing))
    if not told:  # this provider does not answer each input by itself: what is kept is of no use
        return await ask(asked.call)
    return _joined(cache, asked, fresh, dict(zip(missing, told, strict=True)), reply)


async def _found(cache: Cache, asked: Asked) -> dict[str, Entry]:
    entries = await cache.find_each(asked)
    return {key: entry for key, entry in entries.items() if entry.kind is Kind.VECTOR}


def _those(
    cache: Cache, asked: Asked, found: Mapping[str, Entry], state: Freshness
) -> dict[str, Entry]:
    return {key: entry for key, entry in found.items() if cache.state(asked, entry) is state}


async def _look(cache: Cache, asked: Asked) -> Reply | None:
    """Return the answer where all of it has been kept meanwhile."""
    fresh = _those(cache, asked, await _found(cache, asked), Freshness.FRESH)
    if not fresh.keys() >= set(asked.inputs):
        return None
    return _given(cache, asked, fresh, "hit")


def _part(asked: Asked, keys: tuple[str, ...]) -> Asked:
    """Return the smaller request, for these inputs alone."""
    call = asked.call
    inputs = dict(zip(asked.inputs, vectors.inputs_of(call.body), strict=True))
    body = {**call.body, "input": [inputs[key] for key in keys]}
    call = replace(call, body=body, size_bytes=0)
    return asked._replace(key=key_of_all(keys), call=call, inputs=keys)


def _given(cache: Cache, asked: Asked, entries: Mapping[str, Entry], how: str) -> Completion:
    oldest = min(entries.values(), key=lambda entry: entry.kept_at)
    cache.tell(asked.tally, oldest, how)
    told = [entries[key].payloads[0] for key in asked.inputs]
    raw = vectors.joined(told, oldest.payloads[1], vectors.NOTHING_ASKED)
    return Completion(raw, dropped=oldest.dropped)


def _joined(
    cache: Cache,
    asked: Asked,
    kept: Mapping[str, Entry],
    told: Mapping[str, bytes],
    reply: Completion,
) -> Completion:
    """Return what was kept and what the call has told as one answer."""
    if kept:
        cache.tell_part(asked.tally, kept.values())
    both = {**told, **{key: entry.payloads[0] for key, entry in kept.items()}}
    usage = reply.body.get("usage", vectors.NOTHING_ASKED)
    raw = vectors.joined([both[key] for key in asked.inputs], vectors.around(reply.body), usage)
    return Completion(raw, headers=reply.headers, dropped=reply.dropped)
