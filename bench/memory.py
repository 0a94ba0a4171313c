"""
What a stream holds in memory while it is under way: many at once, each of them long.

The provider writes them slowly enough that all are open at once, which is checked, and fast enough
that nobody waits for minutes: a few events together. The client keeps nothing but a checksum.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from bench import cast
from bench.cast import Server, Start
from bench.child import Child
from bench.client import Connection, connected
from bench.load import Case, measure, settled_cpu_s
from bench.payload import LONG, LONG_EVENTS, LONG_PACE_S, Kind, WrongAnswer

STREAMS = 500
WARM_UP = 16  # connections
WARM_UP_S = 0.5
HANGS_S = 60.0
_LENGTH = sum(map(len, LONG))
_CHECKSUM = zlib.crc32(b"".join(LONG))


@dataclass(frozen=True, slots=True)
class MemorySample:
    """One server: resident before the streams, and the most of it while they were under way."""

    server: str
    streams: int
    events: int
    before_mib: float
    peak_mib: float

    @property
    def stream_kib(self) -> float:
        """What one stream held at most."""
        return (self.peak_mib - self.before_mib) * 1024 / self.streams


async def measure_memory(
    starting: AbstractContextManager[tuple[Child, Start]],
) -> MemorySample:
    """Return what a server's streams hold. Raises WrongAnswer when a byte is another."""
    with starting as (child, _):
        # What the first requests make once is no stream's.
        server, warm_up = Server(child.name, child), Case(Kind.STREAM, WARM_UP)
        asking = cast.request(warm_up.kind)
        await measure(0, warm_up, server, asking, seconds=WARM_UP_S, least_cpu_s=0.0)
        before_mib = child.memory_mib()
        async with asyncio.timeout(HANGS_S), connected(child.port, STREAMS, LongReader) as readers:
            await settled_cpu_s(child)  # uvloop accepts one connection a turn: else they come late
            await asyncio.gather(*(_read(reader, each) for each, reader in enumerate(readers)))
            check(readers)
        return MemorySample(child.name, STREAMS, LONG_EVENTS, before_mib, child.peak_memory_mib())


async def _read(reader: LongReader, number: int) -> None:
    # People do not ask in step: what the provider writes is spread over its pace.
    await asyncio.sleep(number * LONG_PACE_S / STREAMS)
    await reader.ask(cast.request(Kind.LONG))


class LongReader(Connection):
    """Knows of a body how long it was, its checksum, and when it began and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.length_bytes = self.checksum = 0
        self.first_s = self.last_s = 0.0

    def on_body(self, piece: bytes) -> None:
        self.last_s = time.monotonic()
        self.first_s = self.first_s or self.last_s
        self.length_bytes += len(piece)
        self.checksum = zlib.crc32(piece, self.checksum)


def check(readers: Sequence[LongReader]) -> None:
    """Raise WrongAnswer unless all have the provider's bytes, and had them at the same time."""
    for reader in readers:
        if (reader.length_bytes, reader.checksum) != (_LENGTH, _CHECKSUM):
            raise WrongAnswer(f"{reader.length_bytes} other bytes instead of the {_LENGTH}")
    if max(reader.first_s for reader in readers) >= min(reader.last_s for reader in readers):
        raise WrongAnswer("the first stream had ended before the last one began")
