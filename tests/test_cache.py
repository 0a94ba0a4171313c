"""One call for identical requests, before, while and after it is made; on fakes, no sleeping."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from proxy.caching import CacheWishes
from proxy.errors import LimitReached, NoTargetAvailable, ProxyError, Refused, UpstreamFailure
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.store.cache_port import Entry
from proxy.store.cache_port import Kind as EntryKind
from proxy.store.memory_cache import MemoryCache
from proxy.types import Call, Json
from tests.cache_place import (
    MB,
    SAID,
    STREAM,
    WORDS,
    Place,
    Provider,
    events_of,
    read,
    run,
    turns,
    whole,
)
from tests.fakes import FakeClock, ask, delta, finish, role, sent


@pytest.mark.parametrize("first", [ask(), STREAM])
@pytest.mark.parametrize("second", [ask(), STREAM])
def test_what_is_kept_is_given_in_either_way(first: Call, second: Call) -> None:
    async def main() -> None:
        place = Place()
        provider = Provider(WORDS if first.stream else whole(SAID))
        provider.go.set()
        assert await place.ask(provider, first) == (SAID, "miss")
        await turns()
        assert await place.ask(provider, second) == (SAID, "hit")
        assert provider.calls == 1

    run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_a_thousand_at_once_are_one_call(stream: bool) -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS if stream else whole(SAID))
        tasks = place.start(provider, 1000, call=ask(stream=stream))
        await turns()
        provider.go.set()
        answers = await asyncio.gather(*tasks)
        assert {text for text, _ in answers} == {SAID}
        assert sorted({how for _, how in answers}) == ["miss", "shared"]
        assert provider.calls == 1

    run(main)


def test_the_two_ways_share_one_call() -> None:
    async def main() -> None:
        for first in (ask(), STREAM):
            place, provider = Place(), Provider(WORDS if first.stream else whole(SAID))
            tasks = place.start(provider, call=first)
            await turns()
            tasks += place.start(provider, 3, call=ask()) + place.start(provider, 3, call=STREAM)
            provider.go.set()
            assert {text for text, _ in await asyncio.gather(*tasks)} == {SAID}
            assert provider.calls == 1

    run(main)


def test_who_comes_late_reads_from_the_first_word_on() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS)
        provider.paced = True
        provider.go.set()
        tasks = place.start(provider, call=STREAM)
        for _ in WORDS:
            await turns()
            tasks += place.start(provider, call=STREAM)
            await turns()
            provider.steps.release()
        assert {text for text, _ in await asyncio.gather(*tasks)} == {SAID}
        assert provider.calls == 1

    run(main)


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_may_leave_and_the_others_have_their_answer(stream: bool) -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS if stream else whole(SAID))
        first, *others = place.start(provider, 3, call=ask(stream=stream))
        await turns()
        first.cancel()
        await turns()
        provider.go.set()
        assert {text for text, _ in await asyncio.gather(*others)} == {SAID}
        assert provider.calls == 1

    run(main)


def test_when_all_have_left_the_call_is_cancelled_and_nothing_is_kept() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS)
        provider.paced = True
        provider.go.set()
        tasks = place.start(provider, 3, call=STREAM)
        await turns()
        provider.steps.release()
        provider.steps.release()
        await turns()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await turns()
        assert provider.closed == 1
        assert place.store.size_bytes == 0

    run(main)


def test_nobody_is_asked_faster_than_the_fastest_reader_reads() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS)
        provider.paced = True
        provider.go.set()
        for _ in WORDS:
            provider.steps.release()
        reply = await place.cache.answer(place.asked(STREAM), provider)
        assert isinstance(reply, ChunkStream)
        await turns()
        assert provider.steps._value >= len(WORDS) - 2  # what nobody wants is not read
        assert await read(reply) == SAID

    run(main)


def test_a_failure_is_tried_once_more_and_then_told_to_all() -> None:
    async def main() -> None:
        down = NoTargetAvailable("nobody is there")
        place, provider = Place(), Provider(down, down)
        tasks = place.start(provider, 10)
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, NoTargetAvailable) for each in outcomes)
        assert provider.calls == 2

    run(main)


def test_another_takes_over_from_one_that_failed() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(NoTargetAvailable("gone"), whole(SAID))
        tasks = place.start(provider, 10)
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, NoTargetAvailable) for each in outcomes) == 1
        assert {each[0] for each in outcomes if not isinstance(each, BaseException)} == {SAID}
        assert provider.calls == 2

    run(main)


def test_a_refusal_of_the_request_is_told_to_all_at_once() -> None:
    async def main() -> None:
        refused = Refused(UpstreamFailure("bad", kind=Kind.CALLER, provider_status=400), status=400)
        place, provider = Place(), Provider(refused)
        tasks = place.start(provider, 5)
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, Refused) for each in outcomes)
        assert provider.calls == 1

    run(main)


def test_a_limit_of_one_caller_is_told_to_nobody_else() -> None:
    async def main() -> None:
        place = Place()
        provider = Provider(LimitReached("yours"), LimitReached("yours"), whole(SAID))
        tasks = place.start(provider, 6)
        await turns()
        provider.go.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, LimitReached) for each in outcomes) == 2
        assert sum(each == (SAID, "shared") for each in outcomes) == 3
        assert provider.calls == 3

    run(main)


@pytest.mark.parametrize(
    ("outcome", "call"),
    [
        (whole(reason="length"), ask()),
        (whole(reason="content_filter"), ask()),
        ([role(), delta("a"), finish(reason="length")], STREAM),
        ([role(), delta("a")], STREAM),
        ([role(), delta("a"), UpstreamFailure("cut", kind=Kind.BROKEN)], STREAM),
        (NoTargetAvailable("gone"), ask()),
        (whole("x" * 2000), ask()),
    ],
)
def test_what_is_not_whole_or_too_large_is_not_kept(outcome: Any, call: Call) -> None:
    async def main() -> None:
        place, provider = Place(max_entry_bytes=1500), Provider(outcome)
        provider.go.set()
        with suppress(ProxyError):
            await place.ask(provider, call)
        await turns()
        assert place.store.size_bytes == 0

    run(main)


def test_an_answer_expires_and_may_stand_in_for_failures_a_while() -> None:
    async def main() -> None:
        place = Place(ttl_s=10.0, stale_if_error_s=60.0)
        gone = NoTargetAvailable("gone")
        provider = Provider(whole(SAID), whole("new"), gone, gone)
        provider.go.set()
        assert await place.ask(provider) == (SAID, "miss")
        await turns()
        place.clock.pass_(9)
        assert await place.ask(provider) == (SAID, "hit")
        place.clock.pass_(9)
        assert await place.ask(provider) == ("new", "miss")
        await turns()
        place.clock.pass_(30)
        asked = place.asked(ask())
        assert await read(await place.cache.answer(asked, provider)) == "new"
        assert (asked.tally.cache, asked.tally.cache_age_s) == ("stale", 30.0)
        place.clock.pass_(60)
        with pytest.raises(NoTargetAvailable):
            await place.ask(provider)
        assert provider.calls == 4

    run(main)


def test_what_a_request_says_is_heeded() -> None:
    async def main() -> None:
        place = Place()
        provider = Provider(*(whole(f"t{number}") for number in range(5)))
        provider.go.set()
        assert await place.ask(provider, wishes=CacheWishes(no_store=True)) == ("t0", "miss")
        await turns()
        assert await place.ask(provider) == ("t1", "miss")
        await turns()
        assert await place.ask(provider, wishes=CacheWishes(no_store=True)) == ("t1", "hit")
        assert await place.ask(provider, wishes=CacheWishes(no_cache=True)) == ("t2", "miss")
        await turns()
        assert await place.ask(provider) == ("t2", "hit")
        place.clock.pass_(5)
        assert await place.ask(provider, wishes=CacheWishes(max_age_s=6)) == ("t2", "hit")
        assert await place.ask(provider, wishes=CacheWishes(max_age_s=4, ttl_s=1)) == ("t3", "miss")
        await turns()
        place.clock.pass_(2)
        assert await place.ask(provider) == ("t4", "miss")

    run(main)


def test_each_reads_the_usage_only_if_it_asked_for_it() -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS)
        provider.go.set()
        plain, counted = STREAM, replace(STREAM, wants_usage=True)
        replies = [
            await place.cache.answer(place.asked(call), provider) for call in (plain, counted)
        ]
        kept = []
        for reply in replies:
            assert isinstance(reply, ChunkStream)
            kept.append(sent([chunk async for chunk in reply]))
            await reply.aclose()
        await turns()
        for call in (plain, counted):
            kept.append(events_of(await place.cache.answer(place.asked(call), provider)))
        assert ["usage" in str(events) for events in kept[1:]] == [True, False, True]
        assert provider.calls == 1

    run(main)


def test_what_everybody_has_read_of_a_large_answer_is_forgotten() -> None:
    async def main() -> None:
        words = [role(), *(delta("x" * 500) for _ in range(40)), finish()]
        place, provider = Place(max_entry_bytes=2000), Provider(words)
        provider.go.set()
        asked = place.asked(STREAM)
        reply = await place.cache.answer(asked, provider)
        assert isinstance(reply, ChunkStream)
        flight = place.cache._flights._flights["k"]
        most = 0
        async for _ in reply:
            most = max(most, len(flight.chunks))
        await reply.aclose()
        assert most < 10
        assert place.cache._flights.find("k") is None
        assert place.store.size_bytes == 0

    run(main)


class SlowStore(MemoryCache):
    """Keeps what it is given once `go` is set."""

    go: asyncio.Event

    async def keep(self, key: str, entry: Entry, *, for_s: float) -> None:
        await self.go.wait()
        await super().keep(key, entry, for_s=for_s)


def test_what_is_being_kept_is_found() -> None:
    async def main() -> None:
        store = SlowStore(FakeClock(), most_bytes=MB)
        store.go = asyncio.Event()
        place, provider = Place(store), Provider(whole(SAID))
        provider.go.set()
        assert await place.ask(provider) == (SAID, "miss")
        assert await place.ask(provider) == (SAID, "hit")
        assert await place.ask(provider, STREAM) == (SAID, "hit")
        store.go.set()
        await turns()
        assert not place.cache._keeping.entries
        assert await place.ask(provider) == (SAID, "hit")
        assert provider.calls == 1

    run(main)


@pytest.mark.parametrize(
    ("kind", "payloads", "call"),
    [
        (EntryKind.STREAM, (b"junk",), STREAM),
        (EntryKind.STREAM, (b"junk", b""), ask()),
        (EntryKind.STREAM, (b"data: []\n\n", b""), ask()),
        (EntryKind.STREAM, (b'data: {"choices": []}\n\n', b"data: 3\n\n"), ask()),
        (EntryKind.WHOLE, (b"junk",), STREAM),
    ],
)
def test_what_is_kept_and_is_no_answer_is_a_miss(
    kind: EntryKind, payloads: tuple[bytes, ...], call: Call
) -> None:
    async def main() -> None:
        place, provider = Place(), Provider(WORDS)
        provider.go.set()
        junk = Entry(kind, payloads, place.clock.wall(), 60.0, "m", "a", "openai")
        await place.store.keep("k", junk, for_s=60)
        assert await place.ask(provider, call) == (SAID, "miss")

    run(main)


def test_a_stream_is_given_again_event_by_event() -> None:
    """Also those that say nothing to most readers, such as Azure's first one."""
    first = {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}

    async def main() -> None:
        place, provider = Place(), Provider([first, *WORDS])
        provider.go.set()
        await place.ask(provider, STREAM)
        await turns()
        for call, events in (
            (STREAM, [first, *WORDS[:-1]]),
            (replace(STREAM, wants_usage=True), [first, *WORDS]),
        ):
            reply = await place.cache.answer(place.asked(call), provider)
            assert events_of(reply) == events

    run(main)


@pytest.mark.parametrize("wants_usage", [False, True])
def test_a_stream_may_be_given_again_at_a_pace(wants_usage: bool) -> None:
    async def main() -> None:
        place, provider = Place(pace_s=0.25), Provider(WORDS)
        provider.go.set()
        assert await place.ask(provider, STREAM) == (SAID, "miss")
        await turns()
        assert place.clock.slept == []
        asked = place.asked(replace(STREAM, wants_usage=wants_usage))
        expected = WORDS if wants_usage else WORDS[:-1]
        reply = await place.cache.answer(asked, provider)
        assert isinstance(reply, ChunkStream)
        begun_s, came = place.clock.now(), []
        async for chunk in reply:
            came.append((place.clock.now() - begun_s, sent([chunk])))
        await reply.aclose()
        assert came == [(0.25 * number, [event]) for number, event in enumerate(expected)]
        assert asked.tally.cache == "hit"
        assert reply.waited_s == 0.25 * (len(expected) - 1)  # which is no time of ours
        assert await place.ask(provider) == (SAID, "hit")
        assert len(place.clock.slept) == len(expected) - 1  # a whole answer waits for nothing

    run(main)


def test_a_reader_may_leave_a_paced_stream() -> None:
    async def main() -> None:
        place, provider = Place(pace_s=0.25), Provider(whole(SAID))
        provider.go.set()
        await place.ask(provider)
        await turns()
        reply = await place.cache.answer(place.asked(STREAM), provider)
        assert isinstance(reply, ChunkStream)
        assert "t0" in str(sent([await anext(reply)]))
        await reply.aclose()
        assert place.clock.slept == []

    run(main)


def test_an_expired_answer_stands_in_for_a_stream_that_breaks_for_whoever_waits() -> None:
    async def main() -> None:
        place = Place(ttl_s=10.0, stale_if_error_s=60.0)
        broken = UpstreamFailure("cut", kind=Kind.BROKEN)
        cut: list[Json | Exception] = [role(), delta("x"), broken]
        provider = Provider(whole(SAID), cut, cut)
        provider.go.set()
        assert await place.ask(provider) == (SAID, "miss")
        await turns()
        place.clock.pass_(30)
        provider.paced = True
        (reader,) = place.start(provider, call=STREAM)
        await turns()
        (waits,) = place.start(provider, call=ask())
        for _ in range(6):
            provider.steps.release()
            await turns()
        outcomes = await asyncio.gather(reader, waits, return_exceptions=True)
        assert isinstance(outcomes[0], UpstreamFailure)
        assert outcomes[1] == (SAID, "stale")

    run(main)
