"""Who is on board of a shared call, what each reads of it, and who is told how it failed."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from proxy.errors import LimitReached, NoTargetAvailable, UpstreamFailure
from proxy.flights import Flight
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.retry import Kind
from tests.cache_place import SAID, STREAM, WORDS, Place, Provider, read, run, turns, whole
from tests.fakes import ask, delta, finish, role

BROKEN = UpstreamFailure("cut", kind=Kind.BROKEN)
LONG = [role(), *(delta(f"t{number} " * 50) for number in range(40)), finish()]
LONG_SAID = "".join(f"t{number} " * 50 for number in range(40))


class SlowToEnd(Provider):
    """Takes until `over` is set to close a call that was cancelled."""

    def __init__(self, *outcomes: Any) -> None:
        super().__init__(*outcomes)
        self.over = asyncio.Event()

    async def __call__(self) -> Reply:
        try:
            return await super().__call__()
        except asyncio.CancelledError:
            await self.over.wait()
            raise


def test_nobody_boards_a_call_that_is_being_cancelled() -> None:
    async def main() -> None:
        place, provider = Place(), SlowToEnd(whole("lost"), whole(SAID))
        (first,) = place.start(provider)
        await turns()
        first.cancel()
        await asyncio.wait([first])
        (second,) = place.start(provider)
        await turns()
        provider.go.set()
        assert await second == (SAID, "miss")
        assert provider.calls == 2
        provider.over.set()
        await turns()

    run(main)


def test_who_has_not_begun_to_read_misses_nothing_of_a_large_answer() -> None:
    async def main() -> None:
        place, provider = Place(max_entry_bytes=1000), Provider(LONG)
        provider.go.set()
        fast, slow = [await place.cache.answer(place.asked(STREAM), provider) for _ in range(2)]
        assert await read(fast) == LONG_SAID
        assert await read(slow) == LONG_SAID
        assert provider.calls == 1

    run(main)


def test_a_slow_reader_and_a_fast_one_read_the_same() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(LONG)
        provider.go.set()
        fast, slow = [await place.cache.answer(place.asked(STREAM), provider) for _ in range(2)]
        assert isinstance(slow, ChunkStream)
        first = await anext(slow)
        assert await read(fast) == LONG_SAID
        rest = [chunk async for chunk in slow]
        await slow.aclose()
        assert len([first, *rest]) == len(LONG)

    run(main)


@pytest.mark.parametrize("raw", [b"not JSON", b"[]", b'{"choices": [3]}', b'{"choices": 3}'])
def test_all_are_answered_whatever_the_answer_is(raw: bytes) -> None:
    async def main() -> None:
        place, provider = Place(), Provider(Completion(raw))
        tasks = [
            asyncio.create_task(place.cache.answer(place.asked(ask()), provider)) for _ in range(3)
        ]
        await turns()
        provider.go.set()
        replies = await asyncio.gather(*tasks)
        assert [each.raw for each in replies if isinstance(each, Completion)] == [raw] * 3
        await turns()
        assert place.store.size_bytes == 0

    run(main)


def test_a_failure_that_many_are_told_holds_on_to_none_of_them() -> None:
    async def main() -> None:
        down = NoTargetAvailable("nobody is there")
        place, provider = Place(), Provider(down, down)
        tasks = place.start(provider, 200)
        await turns()
        provider.go.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(list(traceback.walk_tb(down.__traceback__))) < 20

    run(main)


def test_a_stream_that_breaks_is_told_to_readers_and_tried_again_for_whoever_waits() -> None:
    async def main() -> None:
        place = Place()
        provider = Provider([role(), delta("t0"), BROKEN], WORDS)
        provider.paced = True
        provider.go.set()
        (reader,) = place.start(provider, call=STREAM)
        await turns()
        (waits,) = place.start(provider, call=ask())
        for _ in range(3 + len(WORDS)):
            provider.steps.release()
            await turns()
        outcomes = await asyncio.gather(reader, waits, return_exceptions=True)
        assert isinstance(outcomes[0], UpstreamFailure)
        assert outcomes[1] == (SAID, "miss")
        assert provider.calls == 2

    run(main)


@pytest.mark.parametrize("read_before", range(len(WORDS)))
def test_the_first_may_leave_at_any_word(read_before: int) -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS)
        provider.paced = True
        provider.go.set()
        first, *others = place.start(provider, 4, call=STREAM)
        for _ in range(read_before):
            provider.steps.release()
            await turns()
        first.cancel()
        await asyncio.wait([first])
        others += place.start(provider, 2, call=ask())
        for _ in WORDS:
            provider.steps.release()
            await turns()
        assert {text for text, _ in await asyncio.gather(*others)} == {SAID}
        assert (provider.calls, provider.closed) == (1, 1)

    run(main)


def test_a_call_that_all_leave_before_its_answer_is_cancelled() -> None:
    async def main() -> None:
        place, provider = Place(), SlowToEnd(whole())
        provider.over.set()
        tasks = place.start(provider, 3)
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await turns()
        assert not place.cache._flights.tasks
        assert place.store.size_bytes == 0

    run(main)


def test_who_waits_for_a_call_that_is_cancelled_from_elsewhere_is_answered() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(whole("lost"), whole(SAID))
        tasks = place.start(provider, 3)
        await turns()
        (call,) = place.cache._flights.tasks
        call.cancel()
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, NoTargetAvailable) for each in outcomes) == 1
        assert {each[0] for each in outcomes if isinstance(each, tuple)} == {SAID}

    run(main)


def test_callers_with_limits_of_their_own_are_each_told_of_theirs() -> None:
    async def main() -> None:
        place = Place()
        provider = Provider(*(LimitReached("yours") for _ in range(300)))
        tasks = place.start(provider, 300)
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, LimitReached) for each in outcomes)
        assert provider.calls == 300

    run(main)


def test_what_the_provider_says_beside_a_stream_reaches_its_reader() -> None:
    async def main() -> None:
        async def chunks() -> AsyncGenerator[Chunk, None]:
            for event in WORDS:
                yield Chunk.of_events([event])

        async def work() -> Reply:
            facts = {"x-ratelimit-remaining-requests": "7"}
            return ChunkStream((), chunks(), headers=facts, dropped=("seed",))

        place = Place()
        reply = await place.cache.answer(place.asked(STREAM), work)
        assert reply.headers == {"x-ratelimit-remaining-requests": "7"}
        assert reply.dropped == ("seed",)
        assert await read(reply) == SAID

    run(main)


def test_a_call_that_is_cancelled_before_it_began_leaves_nothing_behind() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(whole(SAID), whole(SAID))
        provider.go.set()
        flights = place.cache._flights
        seen: list[Flight] = []
        flight = flights.begin(place.asked(ask()), provider, seen.append, number=1, shared=True)
        with flight.seat():
            pass
        await turns()
        assert seen == [flight]
        assert not flight.whole_said
        assert len(flights) == 0
        assert not flights._under_way
        assert provider.calls == 0

    run(main)


def test_what_was_asked_before_a_purge_is_not_kept_after_it() -> None:
    async def main() -> None:
        for purge, kept in (
            ({}, False),
            ({"key": "k"}, False),
            ({"model": "m"}, False),
            ({"key": "other"}, True),
            ({"model": "other"}, True),
        ):
            place, provider = Place(), Provider(whole("old"), whole("new"))
            (before,) = place.start(provider)
            await turns()
            assert await place.cache.purge(**purge) == 0
            (after,) = place.start(provider)
            await turns()
            provider.go.set()
            assert await before == ("old", "miss")
            assert await after == (("old", "shared") if kept else ("new", "miss"))
            await turns()
            assert await place.ask(provider) == ("old" if kept else "new", "hit")

    run(main)
