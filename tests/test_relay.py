"""One call for several replicas that meet at a board; on fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest

from proxy.caching import CacheWishes
from proxy.errors import NoTargetAvailable, ProxyError
from proxy.relay import MOST_LOST, Relay
from proxy.replies import Chunk, ChunkStream, Completion
from proxy.store.board import Begun, Following, LeaderLost, Leading
from proxy.store.memory_cache import MemoryCache
from proxy.types import Call, Json
from tests.cache_place import MB, SAID, STREAM, WORDS, Place, Provider, read, run, turns, whole
from tests.fakes import FakeClock, ask, delta, finish, role, sent

LONG = [role(), *(delta("x" * 100) for _ in range(30)), finish()]
LONG_SAID = "x" * 3000


@dataclass
class Said(Following):
    """What one leader says, in the memory of both."""

    board: FakeBoard
    key: str
    begins_with: Begun | None = None
    lines: list[tuple[bytes, int]] = field(default_factory=list)
    landed: bool | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def begins(self, begun: Begun) -> None:
        self.begins_with = begun
        self._tell()

    def says(self, said: bytes, events: int) -> None:
        self.lines.append((said, events))
        self._tell()

    async def land(self, *, ok: bool) -> None:
        self.landed = ok
        self.board.leaders.pop(self.key, None)
        self._tell()

    async def begun(self) -> Begun:
        while self.begins_with is None and self.landed is None:
            await self.news.wait()
        if self.begins_with is None:
            raise LeaderLost
        return self.begins_with

    async def events(self) -> AsyncGenerator[list[Json], None]:
        place = 0
        while True:
            if place < len(self.lines):
                yield orjson.loads(self.lines[place][0])
                place += 1
            elif self.landed is None:
                await self.news.wait()
            elif self.landed:
                return
            else:
                raise LeaderLost

    async def whole(self) -> bytes:
        while not self.lines and self.landed is None:
            await self.news.wait()
        if not self.lines:
            raise LeaderLost
        return self.lines[0][0]

    def _tell(self) -> None:
        news, self.news = self.news, asyncio.Event()
        news.set()


class FakeBoard:
    def __init__(self) -> None:
        self.leaders: dict[str, Said] = {}

    async def take(self, key: str) -> Leading | Following | None:
        found = self.leaders.get(key)
        if found is not None:
            return found
        self.leaders[key] = Said(self, key)
        return Leader(self.leaders[key])


class Leader(Leading):
    """The same, as the leader sees it: `Said` alone would be a Following too."""

    def __init__(self, said: Said) -> None:
        self._said = said

    def begins(self, begun: Begun) -> None:
        self._said.begins(begun)

    def says(self, said: bytes, events: int) -> None:
        self._said.says(said, events)

    async def land(self, *, ok: bool) -> None:
        await self._said.land(ok=ok)


def replicas(count: int = 2, **caching: Any) -> tuple[list[Place], FakeBoard]:
    """Replicas that share a board and what is kept."""
    board, store = FakeBoard(), MemoryCache(FakeClock(), most_bytes=MB)
    return [Place(store, Relay(board), **caching) for _ in range(count)], board


@pytest.mark.parametrize("stream", [False, True])
def test_replicas_share_one_call(stream: bool) -> None:
    async def main() -> None:
        places, board = replicas(3)
        provider = Provider(WORDS if stream else whole(SAID))
        tasks = [
            task for place in places for task in place.start(provider, 20, call=ask(stream=stream))
        ]
        await turns()
        provider.go.set()
        assert {text for text, _ in await asyncio.gather(*tasks)} == {SAID}
        assert provider.calls == 1
        await turns()
        assert not board.leaders

    run(main)


@pytest.mark.parametrize("wants_usage", [False, True])
def test_who_listens_elsewhere_reads_the_usage_only_if_it_asked_for_it(wants_usage: bool) -> None:
    async def main() -> None:
        (one, two), _ = replicas()
        provider = Provider(WORDS)
        call = replace(STREAM, wants_usage=wants_usage)
        tasks = [
            asyncio.create_task(events_read(place, provider, call)) for place in (one, two, two)
        ]
        await turns()
        provider.go.set()
        assert await asyncio.gather(*tasks[1:]) == [WORDS if wants_usage else WORDS[:-1]] * 2
        await tasks[0]
        assert provider.calls == 1

    run(main)


async def events_read(place: Place, provider: Provider, call: Call) -> list[Json]:
    reply = await place.cache.answer(place.asked(call), provider)
    assert isinstance(reply, ChunkStream)
    try:
        return sent([chunk async for chunk in reply])
    finally:
        await reply.aclose()


def test_a_call_of_ones_own_ends_no_call_that_is_shared() -> None:
    """One that said `no-cache` has the same key, and lands while the shared one goes on."""

    async def main() -> None:
        (one, two), _ = replicas()
        provider = Provider(WORDS, whole("own"))
        provider.paced = True
        provider.go.set()
        tasks = one.start(provider, call=STREAM)
        await turns()
        provider.steps.release()
        provider.steps.release()
        await turns()
        tasks += two.start(provider, call=STREAM)
        await turns()
        assert await one.ask(provider, wishes=CacheWishes(no_cache=True)) == ("own", "miss")
        await turns()
        for _ in WORDS:
            provider.steps.release()
            await turns()
        assert {text for text, _ in await asyncio.gather(*tasks)} == {SAID}
        assert provider.calls == 2

    run(main)


def test_an_answer_that_is_too_large_to_be_kept_is_read_to_its_end_elsewhere() -> None:
    async def main() -> None:
        (one, two), _ = replicas(max_entry_bytes=500)
        provider = Provider(LONG)
        provider.go.set()
        provider.paced = True
        tasks = one.start(provider, call=STREAM)
        await turns()
        provider.steps.release()
        await turns()
        tasks += two.start(provider, call=STREAM)
        await turns()
        for _ in LONG:
            provider.steps.release()
            await turns()
        assert {text for text, _ in await asyncio.gather(*tasks)} == {LONG_SAID}
        assert provider.calls == 1

    run(main)


def test_a_leader_that_fails_is_replaced_by_another_replica() -> None:
    async def main() -> None:
        (one, two), _ = replicas()
        provider = Provider(NoTargetAvailable("gone"), whole(SAID))
        (first,) = one.start(provider)
        await turns()
        (second,) = two.start(provider)
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert isinstance(outcomes[0], NoTargetAvailable)
        assert outcomes[1] == (SAID, "miss")
        assert provider.calls == 2

    run(main)


def test_who_waits_for_a_whole_answer_outlives_a_stream_that_breaks_elsewhere() -> None:
    async def main() -> None:
        (_, two), board = replicas()
        provider = Provider(whole(SAID))
        provider.go.set()
        leading = await board.take("k")
        assert isinstance(leading, Leading)
        (task,) = two.start(provider)
        await turns()
        leading.begins(Begun("m/openai/x", "openai", True))
        leading.says(orjson.dumps([role(), delta("t0 ")]), 2)
        await turns()
        assert provider.calls == 0
        await leading.land(ok=False)
        assert await task == (SAID, "miss")
        assert provider.calls == 1

    run(main)


def test_what_the_target_would_not_have_understood_is_told_elsewhere_too() -> None:
    async def main() -> None:
        for stream in (False, True):
            (one, two), _ = replicas()
            answer: Any = whole(SAID) if not stream else one_chunk()
            answer.dropped = ("seed",)
            provider = Provider(answer)
            calls = [place.asked(ask(stream=stream)) for place in (one, two)]
            asking = [
                asyncio.create_task(place.cache.answer(asked, provider))
                for place, asked in zip((one, two), calls, strict=True)
            ]
            await turns()
            provider.go.set()
            replies = await asyncio.gather(*asking)
            assert [reply.dropped for reply in replies] == [("seed",), ("seed",)]
            assert [asked.tally.cache for asked in calls] == ["miss", "shared"]
            for reply in replies:
                assert await read(reply) == SAID

    run(main)


def one_chunk() -> ChunkStream:
    return ChunkStream((Chunk.of_events(WORDS),), _nothing())


async def _nothing() -> AsyncGenerator[Chunk, None]:
    return
    yield


class NobodyLeads(FakeBoard):
    """A place where every leader is lost at once."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    async def take(self, key: str) -> Leading | Following | None:
        self.asked += 1
        said = Said(self, key)
        await said.land(ok=False)
        return said


def test_who_loses_one_leader_after_the_other_asks_itself() -> None:
    async def main() -> None:
        board = NobodyLeads()
        place, provider = Place(relay=Relay(board)), Provider(whole(SAID))
        provider.go.set()
        assert await place.ask(provider) == (SAID, "miss")
        assert board.asked == MOST_LOST

    run(main)


def test_a_stream_that_has_said_nothing_of_an_answer_yet_can_be_replaced() -> None:
    async def main() -> None:
        (_, two), board = replicas()
        provider = Provider(WORDS)
        provider.go.set()
        leading = await board.take("k")
        assert isinstance(leading, Leading)
        (task,) = two.start(provider, call=STREAM)
        await turns()
        leading.begins(Begun("m/openai/x", "openai", True))
        leading.says(orjson.dumps([role()]), 1)
        await turns()
        await leading.land(ok=False)
        assert await task == (SAID, "miss")

    run(main)


@pytest.mark.parametrize("raw", [b"junk", b"[]", b'{"choices": [3]}'])
def test_an_answer_that_is_none_leaves_no_leader_behind(raw: bytes) -> None:
    async def main() -> None:
        (one, _), board = replicas()
        provider = Provider(Completion(raw))
        provider.go.set()
        reply = await one.cache.answer(one.asked(ask()), provider)
        assert isinstance(reply, Completion)
        assert reply.raw == raw
        await turns()
        assert not board.leaders

    run(main)


def test_a_replica_that_ends_tells_the_others() -> None:
    async def main() -> None:
        (one, _), board = replicas()
        (task,) = one.start(Provider(whole(SAID)))
        await turns()
        assert board.leaders
        await one.cache.aclose()
        assert not board.leaders
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], ProxyError)

    run(main)
