"""The path of a request whose answer is kept, in part or whole; on fakes."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.cache import Cache
from proxy.caching import Caching
from proxy.gateway import Gateway
from proxy.log import Log
from proxy.policy import MobiusPolicy
from proxy.replies import Completion
from proxy.resume import Resume
from proxy.snapshot import Snapshot
from proxy.store.memory_cache import MemoryCache
from proxy.types import Call, Surface, Tally
from tests.fakes import ANYBODY, Bench


class Cached:
    """A gateway with a cache, for vectors of texts; of a request it tells what the provider saw."""

    def __init__(self, *answers: Any) -> None:
        self.bench = Bench({"a": list(answers)})
        self.gateway = Gateway(
            attempts=self.bench.attempts,
            resume=Resume(self.bench.attempts, self.bench.metrics, self.bench.clock),
            quota=self.bench.quota,
            cache=Cache(MemoryCache(self.bench.clock, most_bytes=10**6), self.bench.clock),
            metrics=self.bench.metrics,
            log=Log(self.bench.log_lines.append, self.bench.clock),
        )
        self.snapshot = Snapshot(
            policy=MobiusPolicy(), rings=self.bench.rings, caching=Caching(enabled=True)
        )

    async def ask(self, *texts: str) -> tuple[str, list[Any]]:
        body = {"model": "m", "input": list(texts)}
        call = Call("m", False, body, surface=Surface.EMBEDDINGS)
        tally = Tally("r", call.surface, "unknown", False, 0.0)
        before = len(self.bench.upstream.calls)
        reply = await self.gateway.serve(call, ANYBODY, self.snapshot, tally)
        assert isinstance(reply, Completion)
        assert len(reply.body["data"]) == len(texts)
        for _ in range(10):
            await asyncio.sleep(0)  # it is kept meanwhile
        return tally.cache, [each.call.body["input"] for each in self.bench.upstream.calls[before:]]


def vectors(count: int) -> dict[str, Any]:
    data = [{"object": "embedding", "index": n, "embedding": [0.5]} for n in range(count)]
    usage = {"prompt_tokens": 10 * count, "total_tokens": 10 * count}
    return {"object": "list", "data": data, "model": "x", "usage": usage}


def test_for_inputs_that_are_kept_nothing_is_set_aside_and_nothing_is_paid() -> None:
    cached = Cached(vectors(2), vectors(1))
    long, other = "a" * 4000, "b" * 4000

    async def main() -> None:
        assert await cached.ask(long, other) == ("miss", [[long, other]])
        assert await cached.ask(long, "short", other) == ("partial", [["short"]])
        assert await cached.ask("short", long) == ("hit", [])

    asyncio.run(main())
    first, second = cached.bench.ledger.opened
    assert second.prompt_tokens < 100 < first.prompt_tokens
    assert [row.usage.prompt_tokens for row in cached.bench.ledger.closed] == [20, 10]
    assert len(cached.bench.ledger.admitted) == 3
