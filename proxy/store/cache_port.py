"""What the cache asks of where answers are kept, and an answer as it is kept."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate, pairwise
from typing import Any, Protocol

import orjson

MAGIC = b"mobius1\n"
LONGEST_LINE = 64  # the checksum and the length of what comes before the payloads
COMPRESSED_ABOVE_BYTES = 4096
# Packing a megabyte takes ten milliseconds, for which no other request is to wait.
ASIDE_ABOVE_BYTES = 64 * 1024
# What Python takes beside the bytes themselves, for an entry and for each payload of it.
OVERHEAD_BYTES = 640
PAYLOAD_BYTES = 56


class Kind(StrEnum):
    """How an answer came, which is how its payloads are to be read."""

    WHOLE = "whole"  # one payload: the JSON of the body
    STREAM = "stream"  # two: its events as they are sent, and those that tell its usage, likewise
    VECTOR = "vector"  # two: the JSON of one of its list, and that of what stands around the list


PAYLOADS = {Kind.WHOLE: 1, Kind.STREAM: 2, Kind.VECTOR: 2}


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
    dropped: tuple[str, ...] = ()  # the parameters that the target would not have understood

    @property
    def size_bytes(self) -> int:
        """How much memory it takes."""
        payloads = PAYLOAD_BYTES * len(self.payloads) + sum(map(len, self.payloads))
        return OVERHEAD_BYTES + payloads


class CannotKeep(Exception):
    """Answers cannot be kept where the file says; the message says what to do."""


class CacheStore(Protocol):
    """
    Keeps entries by key. What cannot be read is a miss, what cannot be written is not kept.

    No method raises, and none holds a request for longer than a tenth of a second.
    """

    async def find(self, key: str) -> Entry | None: ...

    async def find_each(self, keys: Sequence[str]) -> list[Entry | None]:
        """Return what is kept under each key."""
        ...

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        """Have the entry kept for so long, which may be longer than it is fresh."""
        ...

    async def purge(self, *, key: str | None = None, model: str | None = None) -> int:
        """Drop one entry, those of a model, or all; return how many it were."""
        ...


async def pack(key: str, entry: Entry) -> bytes:
    """Return what `packed` does, without keeping the event loop for long."""
    if entry.size_bytes <= ASIDE_ABOVE_BYTES:
        return packed(key, entry)
    return await asyncio.to_thread(packed, key, entry)


async def unpack(key: str, raw: bytes, *, most_bytes: int) -> Entry | None:
    """Return what `unpacked` does, likewise."""
    if len(raw) <= ASIDE_ABOVE_BYTES:
        return unpacked(key, raw, most_bytes=most_bytes)
    return await asyncio.to_thread(unpacked, key, raw, most_bytes=most_bytes)


def packed(key: str, entry: Entry) -> bytes:
    """Return the entry as bytes that `unpacked` reads, for this key and no other."""
    lengths = [len(payload) for payload in entry.payloads]
    texts = [entry.model, entry.target, entry.provider, *entry.dropped]
    body = b"".join(entry.payloads)
    compressed = len(body) > COMPRESSED_ABOVE_BYTES
    if compressed:
        body = zlib.compress(body, level=1)
    facts = orjson.dumps([key, entry.kind, entry.kept_at, entry.ttl_s, texts, lengths, compressed])
    checksum = zlib.crc32(body, zlib.crc32(facts))
    return b"%s%d %d\n%s%s" % (MAGIC, checksum, len(facts), facts, body)


def unpacked(key: str, raw: bytes, *, most_bytes: int) -> Entry | None:
    """
    Return the entry, or None for what is corrupt, foreign, of another format or too large.

    What is kept under another key is foreign too: a value may have been copied, and a connection
    may have mixed up its replies.
    """
    if not raw.startswith(MAGIC):
        return None
    try:
        line, _, rest = raw[len(MAGIC) : len(MAGIC) + LONGEST_LINE].partition(b"\n")
        checksum, length = map(int, line.split(b" "))
        start = len(raw) if not rest else len(MAGIC) + len(line) + 1
        if not 0 <= length <= len(raw) - start or zlib.crc32(memoryview(raw)[start:]) != checksum:
            return None
        facts, body = orjson.loads(raw[start : start + length]), raw[start + length :]
        return _read(key, facts, body, most_bytes)
    except (ValueError, TypeError, OverflowError, zlib.error):
        return None


def _read(key: str, facts: list[Any], body: bytes, most_bytes: int) -> Entry | None:
    """Return the entry. Raises ValueError, TypeError, OverflowError, zlib.error."""
    own, kind, kept_at, ttl_s, texts, lengths, compressed = facts
    numbers = isinstance(kept_at, int | float) and isinstance(ttl_s, int | float)
    if own != key or not numbers or not _all(texts, str) or not _all(lengths, int):
        return None
    if sum(lengths) > most_bytes or min(lengths, default=0) < 0:
        return None
    if compressed:
        body = _inflated(body, sum(lengths))
    ends = list(accumulate(lengths, initial=0))
    if ends[-1] != len(body) or len(lengths) != PAYLOADS[Kind(kind)]:
        return None
    payloads = tuple(body[start:end] for start, end in pairwise(ends))
    model, target, provider, *dropped = texts
    return Entry(
        Kind(kind), payloads, float(kept_at), float(ttl_s), model, target, provider, tuple(dropped)
    )


def _all(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _inflated(body: bytes, size: int) -> bytes:
    """Return at most one byte more than `size`: a value that says too little is not read whole."""
    return zlib.decompressobj().decompress(body, size + 1)
