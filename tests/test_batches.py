"""Vectors of many inputs at once: only those that are not kept are asked for; on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from proxy.batches import answer_each
from proxy.cache_key import key_of_all
from proxy.caching import CacheWishes
from proxy.errors import NoTargetAvailable
from proxy.flights import Asked
from proxy.relay import Relay
from proxy.replies import Completion, Reply
from proxy.store.cache_port import Entry
from proxy.store.memory_cache import MemoryCache
from proxy.types import Call, Json, Surface
from tests.cache_place import MB, Place, run, turns
from tests.fakes import FakeClock, ask
from tests.test_relay import FakeBoard


def number_of(text: object) -> float:
    """The vector of a text, of one number."""
    return float(sum(map(ord, str(text))))


@dataclass
class Embedder:
    """Answers with a vector per input, and remembers what it was asked for."""

    failing: bool = False
    short: bool = False
    size: int = 1
    asked: list[list[str]] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, call: Call) -> Reply:
        inputs = call.body["input"]
        inputs = inputs if isinstance(inputs, list) else [inputs]
        self.asked.append(inputs)
        await self.go.wait()
        if self.failing:
            raise NoTargetAvailable("gone")
        data = [
            {"object": "embedding", "index": at, "embedding": [number_of(text)] * self.size}
            for at, text in enumerate(inputs)
        ]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        body = {"object": "list", "data": data[: 1 if self.short else None], "model": "x"}
        return Completion(orjson.dumps({**body, "usage": usage}), headers={"x": "1"})


class Batch:
    """A cache, and requests for vectors of texts."""

    def __init__(self, place: Place | None = None, **caching: Any) -> None:
        self.place = place or Place(**caching)
        self.embedder = Embedder()
        self.embedder.go.set()

    def asked(self, texts: Sequence[str], wishes: CacheWishes = CacheWishes()) -> Asked:  # noqa: B008
        call = ask(body={"model": "m", "input": list(texts)}, surface=Surface.EMBEDDINGS)
        asked = self.place.asked(call, wishes, key_of_all(texts))
        return asked._replace(inputs=tuple(texts))

    async def ask(self, *texts: str, **wishes: Any) -> tuple[Json, str]:
        """The answer, and what the cache did."""
        asked = self.asked(texts, CacheWishes(**wishes))
        reply = await answer_each(self.place.cache, asked, self.embedder)
        assert isinstance(reply, Completion)
        found = reply.body["data"]
        assert [each["index"] for each in found] == list(range(len(texts)))
        assert [each["embedding"][0] for each in found] == [number_of(text) for text in texts]
        await turns()
        return reply.body, asked.tally.cache


def test_only_what_is_missing_is_asked_for() -> None:
    async def main() -> None:
        batch = Batch()
        assert (await batch.ask("a", "b"))[1] == "miss"
        body, how = await batch.ask("c", "b", "d", "a")
        assert (how, body["usage"]["prompt_tokens"], body["model"]) == ("partial", 2, "x")
        body, how = await batch.ask("d", "a")
        assert (how, body["usage"]) == ("hit", {"prompt_tokens": 0, "total_tokens": 0})
        assert (await batch.ask("b"))[1] == "hit"
        assert batch.embedder.asked == [["a", "b"], ["c", "d"]]

    run(main)


def test_the_same_input_twice_is_asked_for_once() -> None:
    async def main() -> None:
        batch = Batch()
        body, how = await batch.ask("a", "b", "a")
        assert (how, body["usage"]["prompt_tokens"]) == ("miss", 2)
        assert batch.embedder.asked == [["a", "b"]]

    run(main)


def test_what_is_asked_for_whole_is_answered_as_it_came() -> None:
    async def main() -> None:
        batch = Batch()
        reply = await answer_each(batch.place.cache, batch.asked(["a", "b"]), batch.embedder)
        assert isinstance(reply, Completion)
        assert reply.raw == (await batch.embedder(batch.asked(["a", "b"]).call)).raw  # type: ignore[union-attr]

    run(main)


def test_an_old_vector_is_asked_for_again_and_the_oldest_tells_the_age() -> None:
    async def main() -> None:
        batch = Batch(ttl_s=10.0)
        await batch.ask("a")
        batch.place.clock.pass_(6)
        await batch.ask("b")
        batch.place.clock.pass_(3)
        asked = batch.asked(["a", "b", "c"])
        await answer_each(batch.place.cache, asked, batch.embedder)
        assert (asked.tally.cache, asked.tally.cache_age_s) == ("partial", 9.0)
        batch.place.clock.pass_(3)
        assert (await batch.ask("a", "b", "c"))[1] == "partial"
        assert batch.embedder.asked == [["a"], ["b"], ["c"], ["a"]]

    run(main)


def test_what_a_request_says_is_heeded() -> None:
    async def main() -> None:
        batch = Batch()
        assert (await batch.ask("a", "b", no_store=True))[1] == "miss"
        assert (await batch.ask("a", "b"))[1] == "miss"
        assert (await batch.ask("a", "b", no_cache=True))[1] == "miss"
        assert (await batch.ask("a", "b", no_store=True))[1] == "hit"
        assert (await batch.ask("a", "c", no_store=True))[1] == "partial"
        assert (await batch.ask("c"))[1] == "miss"

    run(main)


def test_vectors_that_are_being_kept_are_found() -> None:
    async def main() -> None:
        class Slow(MemoryCache):
            go = asyncio.Event()

            async def find_each(self, keys: Sequence[str]) -> list[Entry | None]:
                found = await super().find_each(keys)
                self.go.set()
                await turns()  # in which it is kept, and no longer said to be on its way
                return found

            async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
                await self.go.wait()
                await super().keep(key, entry, for_s=for_s)

        store = Slow(FakeClock(), most_bytes=MB)
        batch = Batch(Place(store))
        first = asyncio.create_task(batch.ask("a", "b"))
        await turns()
        store.go.clear()
        await first
        assert (await batch.ask("b", "a"))[1] == "hit"
        assert batch.embedder.asked == [["a", "b"]]

    run(main)


def test_identical_batches_at_once_are_one_call_also_where_a_part_is_kept() -> None:
    async def main() -> None:
        batch = Batch()
        await batch.ask("a")
        batch.embedder.go.clear()
        tasks = [asyncio.create_task(batch.ask("a", "b", "c")) for _ in range(50)]
        await turns()
        batch.embedder.go.set()
        found = await asyncio.gather(*tasks)
        assert {how for _, how in found} == {"partial"}
        assert batch.embedder.asked == [["a"], ["b", "c"]]

    run(main)


def test_replicas_share_one_call_for_a_batch() -> None:
    async def main() -> None:
        store, board = MemoryCache(FakeClock(), most_bytes=MB), FakeBoard()
        one, two = (Batch(Place(store, Relay(board))) for _ in range(2))
        two.embedder = one.embedder
        one.embedder.go.clear()
        tasks = [asyncio.create_task(each.ask("a", "b")) for each in (one, two) for _ in range(5)]
        await turns()
        one.embedder.go.set()
        assert {how for _, how in await asyncio.gather(*tasks)} == {"miss", "shared"}
        assert (await two.ask("b", "a"))[1] == "hit"
        assert one.embedder.asked == [["a", "b"]]

    run(main)


def test_another_replica_has_kept_it_since_it_was_looked_for() -> None:
    """Who comes to lead looks once more before it makes a call."""

    async def main() -> None:
        class Late(MemoryCache):
            finds = 0

            async def find_each(self, keys: Sequence[str]) -> list[Any]:
                Late.finds += 1
                found = await super().find_each(keys)
                return [None] * len(keys) if Late.finds == 1 else found

        store = Late(FakeClock(), most_bytes=MB)
        first = Batch(Place(store))
        Late.finds = 1
        await first.ask("a", "b")
        Late.finds = 0
        second = Batch(Place(store, Relay(FakeBoard())))
        assert (await second.ask("a", "b"))[1] == "hit"
        assert second.embedder.asked == []

    run(main)


def test_a_failure_is_told_unless_expired_vectors_can_stand_in() -> None:
    async def main() -> None:
        batch = Batch(ttl_s=10.0, stale_if_error_s=60.0)
        await batch.ask("a")
        batch.place.clock.pass_(30)
        await batch.ask("b")
        batch.embedder.failing = True
        assert (await batch.ask("a", "b"))[1] == "stale"
        with pytest.raises(NoTargetAvailable):
            await batch.ask("a", "b", "c")

    run(main)


def test_an_answer_that_has_not_a_vector_for_each_is_not_kept() -> None:
    async def main() -> None:
        batch = Batch()
        batch.embedder.short = True
        reply = await answer_each(batch.place.cache, batch.asked(["a", "b"]), batch.embedder)
        assert isinstance(reply, Completion)
        assert len(reply.body["data"]) == 1
        await turns()
        assert batch.place.store.size_bytes == 0

    run(main)


def test_one_that_fits_no_part_is_asked_for_whole() -> None:
    async def main() -> None:
        batch = Batch()
        await batch.ask("a")
        batch.embedder.short = True
        asked = batch.asked(["a", "b", "c"])
        await answer_each(batch.place.cache, asked, batch.embedder)
        assert asked.tally.cache == "miss"
        assert batch.embedder.asked == [["a"], ["b", "c"], ["a", "b", "c"]]

    run(main)


def test_a_batch_may_be_larger_than_an_entry() -> None:
    async def main() -> None:
        batch = Batch(max_entry_bytes=2000)
        batch.embedder.size = 150
        texts = [f"t{number}" for number in range(20)]
        await batch.ask(*texts)
        assert (await batch.ask(*texts))[1] == "hit"
        batch.embedder.size = 1000
        await batch.ask("large", "larger")
        assert (await batch.ask("large", "larger"))[1] == "miss"

    run(main)


def test_one_vector_can_be_dropped_also_while_it_is_asked_for() -> None:
    async def main() -> None:
        batch = Batch()
        await batch.ask("a", "b")
        assert await batch.place.cache.purge(key="a") == 1
        assert (await batch.ask("a", "b"))[1] == "partial"
        batch.embedder.go.clear()
        task = asyncio.create_task(batch.ask("c", "d"))
        await turns()
        await batch.place.cache.purge(key="c")
        batch.embedder.go.set()
        await task
        assert (await batch.ask("c", "d"))[1] == "miss"

    run(main)
