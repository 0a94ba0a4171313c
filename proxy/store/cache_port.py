"""What the cache asks of where answers are kept, and an answer as it is kept."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import orjson

MAGIC = b"mobius1\n"
COMPRESSED_ABOVE_BYTES = 4096
OVERHEAD_BYTES = 512  # of an entry in memory, beside its payloads


class Kind(StrEnum):
    """How an answer came, which is how its payloads are to be read."""

    WHOLE = "whole"  # one payload: the JSON of the body
    STREAM = "stream"  # one for each event


@dataclass(frozen=True, slots=True)
class Entry:
    """A whole answer. `kept_at` is in seconds since 1970."""

    kind: Kind
    payloads: tuple[bytes, ...]
    kept_at: float
    ttl_s: float
    model: str  # the name that it was asked for by
    target: str  # the label of the target that gave it
    provider: str

    @property
    def size_bytes(self) -> int:
        return OVERHEAD_BYTES + sum(map(len, self.payloads))


class CacheStore(Protocol):
    """
    Keeps entries by key. What cannot be read is a miss, what cannot be written is not kept.

    No method raises, and none holds a request for longer than a tenth of a second.
    """

    async def find(self, key: str) -> Entry | None: ...

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        """Have the entry kept for so long, which may be longer than it is fresh."""
        ...

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        """Drop one entry, those of a model, or all; return how many it were."""
        ...


def packed(entry: Entry) -> bytes:
    """Return the entry as bytes that `unpacked` reads."""
    lengths = [len(payload) for payload in entry.payloads]
    head = [entry.kind, entry.kept_at, entry.ttl_s, entry.model, entry.target, entry.provider]
    body = b"".join(entry.payloads)
    compressed = len(body) > COMPRESSED_ABOVE_BYTES
    if compressed:
        body = zlib.compress(body, level=1)
    facts = orjson.dumps([*head, lengths, compressed, zlib.crc32(body)])
    return b"%s%d\n%s%s" % (MAGIC, len(facts), facts, body)


def unpacked(raw: bytes, *, most_bytes: int) -> Entry | None:
    """Return the entry, or None for what is corrupt, foreign, of another format or too large."""
    if not raw.startswith(MAGIC):
        return None
    try:
        length, _, rest = raw[len(MAGIC) :].partition(b"\n")
        facts, body = orjson.loads(rest[: int(length)]), rest[int(length) :]
        kind, kept_at, ttl_s, model, target, provider, lengths, compressed, checksum = facts
        if zlib.crc32(body) != checksum or sum(lengths) > most_bytes:
            return None
        if compressed:
            body = _inflated(body, sum(lengths))
        payloads, place = [], 0
        for each in lengths:
            payloads.append(body[place : place + each])
            place += each
        if place != len(body):
            return None
        entry = Entry(
            Kind(kind), tuple(payloads), float(kept_at), float(ttl_s), model, target, provider
        )
    except (ValueError, TypeError, zlib.error):
        return None
    return entry


def _inflated(body: bytes, size: int) -> bytes:
    """Return at most one byte more than `size`: a value that says too little is not read whole."""
    return zlib.decompressobj().decompress(body, size + 1)
