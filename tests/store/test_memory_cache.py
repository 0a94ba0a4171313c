"""What the memory of answers takes is what it may take, whatever the answers are made of."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc

import orjson
import pytest

from proxy.clock import SystemClock
from proxy.store.cache_port import Entry, Kind
from proxy.store.memory_cache import MemoryCache

MB = 1024 * 1024
SHAPES = {
    "small": (1, ""),
    "whole": (1, "x" * 600),
    "stream": (60, "x" * 150),
    "vector": (2, "x" * 200),
}


def entry(number: int, shape: str) -> Entry:
    """An answer as it is made: its payloads fresh from the writer of JSON."""
    count, text = SHAPES[shape]
    said = [{"number": number, "place": place, "text": text} for place in range(count)]
    kind = {"stream": Kind.STREAM, "vector": Kind.VECTOR}.get(shape, Kind.WHOLE)
    payloads = tuple(orjson.dumps(each) for each in said)
    return Entry(kind, payloads, 1.8e9 + number, 600.0, "m", "m/openai/x", "openai")


async def fill(store: MemoryCache, count: int, shape: str) -> None:
    for number in range(count):
        await store.keep(f"{number:064x}", entry(number, shape), for_s=600)


@pytest.mark.parametrize(
    ("shape", "count"), [("small", 8000), ("whole", 6000), ("stream", 500), ("vector", 6000)]
)
def test_what_is_counted_is_what_is_taken(shape: str, count: int) -> None:
    store = MemoryCache(SystemClock(), most_bytes=2 * MB)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        asyncio.run(fill(store, count, shape))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1.9 * MB < store.size_bytes <= 2 * MB
    assert after - before <= 2.5 * MB


GROWTH = """
import asyncio, sys
from proxy.clock import SystemClock
from proxy.store.memory_cache import MemoryCache
from tests.store.test_memory_cache import fill

def rss_bytes():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

store = MemoryCache(SystemClock(), most_bytes=256 * 1024 * 1024)
idle = rss_bytes()
asyncio.run(fill(store, int(sys.argv[1]), sys.argv[2]))
print(rss_bytes() - idle)
"""


@pytest.mark.proof
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("shape", "count"), [("small", 1_000_000), ("whole", 1_000_000), ("stream", 100_000)]
)
def test_a_million_answers_take_no_more_than_320_mib(shape: str, count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(count), shape],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert int(done.stdout) <= 320 * MB, int(done.stdout) / MB
