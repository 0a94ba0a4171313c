"""A cache on fakes: a provider that waits until it is let go, and requests that read its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any

import orjson

from proxy import sse
from proxy.aggregate import aggregate
from proxy.cache import Cache
from proxy.caching import NO_WISHES, CacheWishes, Caching
from proxy.flights import Asked
from proxy.relay import Relay
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.store.cache_port import CacheStore
from proxy.store.memory_cache import MemoryCache
from proxy.types import Call, Json, Surface, Tally
from tests.fakes import FakeClock, answer, ask, delta, finish, role, sent, usage

WORDS = [role(), delta("t0 "), delta("t1 "), delta("t2"), finish(), usage()]
SAID = "t0 t1 t2"
MB = 1024 * 1024


class Provider:
    """What is called: it waits until it is let go, and counts."""

    def __init__(self, *outcomes: Reply | Exception | Sequence[Json | Exception]) -> None:
        self._outcomes = list(outcomes)
        self.calls = 0
        self.closed = 0
        self.go = asyncio.Event()
        self.steps = asyncio.Semaphore(0)
        self.paced = False

    async def __call__(self) -> Reply:
        self.calls += 1
        outcome = self._outcomes.pop(0)
        await self.go.wait()
        if isinstance(outcome, Exception):
            raise outcome
        if isinstance(outcome, Completion | ChunkStream):
            return outcome
        return ChunkStream((), self._chunks(outcome))

    async def _chunks(self, events: Iterable[Json | Exception]) -> AsyncGenerator[Chunk, None]:
        try:
            for event in events:
                if self.paced:
                    await self.steps.acquire()
                if isinstance(event, Exception):
                    raise event
                yield Chunk.of_events([event])
        finally:
            self.closed += 1


class Place:
    def __init__(
        self, store: CacheStore | None = None, relay: Relay | None = None, **caching: Any
    ) -> None:
        self.clock = FakeClock()
        self.store = MemoryCache(self.clock, most_bytes=MB)
        self.cache = Cache(store or self.store, self.clock, relay)
        self.caching = Caching(enabled=True, **caching)

    def asked(self, call: Call, wishes: CacheWishes = NO_WISHES, key: str = "k") -> Asked:
        tally = Tally("req", Surface.CHAT, "m", call.stream, 0.0)
        return Asked(key, call, "m", self.caching, wishes, tally)

    async def ask(
        self,
        work: Callable[[], Awaitable[Reply]],
        call: Call | None = None,
        wishes: CacheWishes = NO_WISHES,
    ) -> tuple[str, str]:
        """What the caller read, and what the cache did."""
        asked = self.asked(call or ask(), wishes)
        reply = await self.cache.answer(asked, work)
        return await read(reply), asked.tally.cache

    def start(self, work: Provider, count: int = 1, **more: Any) -> list[asyncio.Task[Any]]:
        return [asyncio.create_task(self.ask(work, **more)) for _ in range(count)]


async def read(reply: Reply) -> str:
    if isinstance(reply, Completion):
        if reply.streamed:
            return str(aggregate(events_of(reply))["choices"][0]["message"]["content"])
        return str(reply.body["choices"][0]["message"]["content"])
    try:
        events = sent([chunk async for chunk in reply])
    finally:
        await reply.aclose()
    return str(aggregate(events)["choices"][0]["message"]["content"])


def events_of(reply: Reply) -> list[Json]:
    """The events of an answer that is given again as a stream, without the mark of its end."""
    assert isinstance(reply, Completion)
    assert reply.streamed
    events = sse.Reader().feed(reply.raw)
    assert events.pop().data == sse.DONE
    return [orjson.loads(event.data) for event in events]


def whole(text: str = "t0", reason: str = "stop") -> Completion:
    body = {**answer(), "choices": [{"index": 0, "message": {"content": text}}]}
    body["choices"][0]["finish_reason"] = reason
    return Completion(orjson.dumps(body), body)


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main()
        await turns()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(bounded())


STREAM = ask(stream=True)
