"""The contract of a stream: when it has begun, when it has ended, and how it may break."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from itertools import repeat
from typing import Any

import pytest

from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.replies import Chunk, ChunkStream
from proxy.retry import Kind
from proxy.types import Json, Surface, TargetTimeouts
from proxy.upstream.stream import PREAMBLE_LIMIT_BYTES, Progress, Waits, begin
from tests.fakes import (
    Fails,
    FakeClock,
    Gate,
    Passes,
    Source,
    delta,
    finish,
    role,
    sent,
    usage,
)

PATIENCE_S = 5.0  # for a test that would otherwise wait for ever
ERROR = {"error": {"message": "it broke at sk-secret-secret", "type": "server_error"}}


class Listener:
    """A source, and what a client hears of it."""

    def __init__(
        self,
        *pieces: Any,
        choices: int = 1,
        wants_usage: bool = False,
        idle_s: float = 60.0,
        stream_s: float = 1800.0,
        usage_s: float = 0.01,
    ) -> None:
        self.clock = FakeClock()
        self.source = Source(pieces, self.clock)
        self.chunks = self.source.chunks()  # held: nothing is closed by being forgotten
        self.progress = Progress(GRAMMARS[Surface.CHAT], choices=choices, wants_usage=wants_usage)
        self.timeouts = TargetTimeouts(idle_s=idle_s, stream_s=stream_s)
        self.waits = Waits(usage_s=usage_s, done_s=0.005)
        self.heard: list[Json] = []
        self.failure: UpstreamFailure | None = None

    async def begin(self) -> ChunkStream:
        return await begin(
            self.chunks,
            self.progress,
            self.timeouts,
            self.clock,
            headers={"x-ratelimit-limit-requests": "9"},
            dropped=("seed",),
            waits=self.waits,
        )

    async def _listen(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            stream = await self.begin()
            try:
                async for chunk in stream:
                    self.heard += sent([chunk])
            except UpstreamFailure as failure:
                self.failure = failure
            finally:
                await stream.aclose()
                assert self.source.closed == 1

    def listen(self) -> list[Json]:
        """Hear it to its good end."""
        asyncio.run(self._listen())
        assert self.failure is None, self.failure
        return self.heard

    def breaks(self) -> UpstreamFailure:
        """Hear it to its bad end, which is said to the listener."""
        asyncio.run(self._listen())
        assert self.failure is not None
        assert self.failure.kind is Kind.BROKEN
        return self.failure

    def fails(self) -> UpstreamFailure:
        """Find that it never begins."""

        async def main() -> None:
            with pytest.raises(UpstreamFailure) as caught:
                await self.begin()
            assert self.source.closed == 1
            self.failure = caught.value

        asyncio.run(main())
        assert self.failure is not None
        return self.failure


# Before the first content


CONTENT: list[Json] = [
    {"content": "t0"},
    {"refusal": "no"},
    {"reasoning_content": "hm"},
    {"tool_calls": [{"index": 0, "id": "call-1", "function": {"name": "f"}}]},
    {"audio": {"data": "AAAA"}},
]


@pytest.mark.parametrize("said", CONTENT)
def test_a_stream_has_begun_with_its_first_content_of_any_kind(said: Json) -> None:
    first = {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}

    async def main() -> None:
        listener = Listener(role(), first, ValueError("not read yet"))
        stream = await listener.begin()
        assert listener.source.given == 2
        assert sent([await anext(stream), await anext(stream)]) == [role(), first]
        await stream.aclose()

    asyncio.run(main())


def test_a_finish_is_a_beginning_too() -> None:
    assert Listener(role(), finish()).listen() == [role(), finish()]


def test_what_came_with_the_stream_is_kept_on_it() -> None:
    async def main() -> None:
        stream = await Listener(delta("t0")).begin()
        assert stream.headers == {"x-ratelimit-limit-requests": "9"}
        assert stream.dropped == ("seed",)
        await stream.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [role()],
        [usage()],
        [{"choices": []}],
        [role(), b"{"],
        [b"3"],
        [b"null"],
        [role(), ERROR],
    ],
)
def test_what_ends_or_cannot_be_read_before_content_is_an_ordinary_failure(
    pieces: list[Any],
) -> None:
    assert Listener(*pieces).fails().kind is Kind.TRANSIENT


@pytest.mark.parametrize("kind", [Kind.RATE_LIMITED, Kind.UNREACHABLE, Kind.OVERSIZED])
def test_a_failure_of_the_source_before_content_keeps_its_kind(kind: Kind) -> None:
    assert Listener(role(), Fails(kind, retry_after_s=3.0)).fails().kind is kind


def test_an_error_event_that_comes_first_says_what_kind_it_is() -> None:
    error = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    assert Listener(role(), error).fails().kind is Kind.OVERSIZED


@pytest.mark.parametrize("pieces", [[[role(), delta("t0"), ERROR]], [role(), delta("t0"), ERROR]])
def test_where_the_reads_of_a_socket_fall_decides_nothing(pieces: list[Any]) -> None:
    listener = Listener(*pieces)
    listener.breaks()
    assert listener.heard == [role(), delta("t0")]
    assert Listener([role(), ERROR, delta("t0")]).fails().kind is Kind.TRANSIENT


def test_what_follows_the_finish_breaks_no_answer() -> None:
    for last in (ERROR, b"{"):
        assert Listener(delta("t0"), finish(), last).listen() == [delta("t0"), finish()]


def test_a_preamble_has_a_limit() -> None:
    listener = Listener(*repeat({"choices": [], "padding": "x" * 100_000}, 100))
    assert listener.fails().kind is Kind.TRANSIENT
    assert listener.source.given * 100_000 < PREAMBLE_LIMIT_BYTES + 200_000


def test_a_first_content_larger_than_the_limit_of_a_preamble_is_content() -> None:
    long = delta("x" * (PREAMBLE_LIMIT_BYTES + 1))
    assert Listener(long, finish()).listen() == [long, finish()]


def test_a_beginning_that_is_cancelled_closes_the_source() -> None:
    async def main() -> None:
        gate = Gate()
        listener = Listener(role(), gate)
        await gate.cancel(listener.begin())
        assert listener.source.closed == 1

    asyncio.run(main())


# The end


def test_an_answer_ends_with_its_source() -> None:
    pieces = [role(), delta("t0"), delta("t1"), finish()]
    assert Listener(*pieces).listen() == pieces


def test_a_finish_without_done_is_a_complete_answer_after_a_wait_for_the_usage() -> None:
    assert Listener(delta("t0"), finish(), Gate()).listen() == [delta("t0"), finish()]


def test_after_finish_and_usage_nothing_more_is_waited_for() -> None:
    listener = Listener(delta("t0"), finish(), usage(), Gate(), wants_usage=True, usage_s=60.0)
    assert listener.listen() == [delta("t0"), finish(), usage()]


def test_a_usage_is_waited_for_at_most_a_second() -> None:
    assert Waits().usage_s == 1.0
    assert Waits().done_s <= 0.05


def test_what_trickles_in_after_the_finish_does_not_prolong_the_wait() -> None:
    empty: Json = {"choices": []}
    pieces = [delta("t0"), finish(), Passes(40.0), empty, Passes(40.0), empty, Gate()]
    assert Listener(*pieces, usage_s=50.0).listen() == [delta("t0"), finish(), empty, empty]


@pytest.mark.parametrize("broken", [Kind.TRANSIENT, Kind.UNREACHABLE])
def test_a_connection_that_breaks_after_the_finish_breaks_no_answer(broken: Kind) -> None:
    assert Listener(delta("t0"), finish(), broken).listen() == [delta("t0"), finish()]


def test_a_late_usage_is_shown_to_who_asked_for_it_and_hidden_from_who_did_not() -> None:
    pieces = [delta("t0"), finish(), usage()]
    assert Listener(*pieces, wants_usage=True).listen() == pieces
    hidden = Listener(*pieces)
    assert hidden.listen() == pieces[:-1]


def test_a_hidden_usage_is_still_known_to_whoever_counts() -> None:
    async def main() -> list[Json]:
        stream = await Listener(delta("t0"), finish(), usage()).begin()
        events = [event async for chunk in stream for event in chunk.events]
        await stream.aclose()
        return events

    assert asyncio.run(main())[-1] == usage()


def test_a_usage_beside_content_is_never_hidden() -> None:
    both = {**finish(), "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    assert Listener(delta("t0"), both).listen() == [delta("t0"), both]


def test_a_hidden_usage_does_not_hide_what_came_in_the_same_read() -> None:
    assert Listener(delta("t0"), [finish(), usage()]).listen() == [delta("t0"), finish()]


# More than one choice


def test_a_stream_of_many_choices_ends_when_all_have_finished() -> None:
    pieces = [delta("a"), finish(), delta("b", 1), finish(1)]
    assert Listener(*pieces, Gate(), choices=2).listen() == pieces


@pytest.mark.parametrize("cut", [lambda: Kind.TRANSIENT, Gate])
@pytest.mark.parametrize(
    "pieces",
    [
        [delta("a"), finish()],  # the second has not even begun
        [delta("a"), delta("b", 1), finish(1)],
    ],
)
def test_a_stream_that_is_cut_before_every_choice_has_finished_is_broken(
    pieces: list[Json], cut: Callable[[], Any]
) -> None:
    listener = Listener(*pieces, cut(), choices=2, idle_s=0.02)
    listener.breaks()
    assert listener.heard == pieces


def test_a_choice_that_has_begun_must_finish_whatever_was_asked_for() -> None:
    Listener(delta("a"), delta("b", 1), finish()).breaks()


def test_a_provider_that_gives_fewer_choices_and_ends_has_answered() -> None:
    pieces = [delta("a"), finish()]
    assert Listener(*pieces, choices=2).listen() == pieces


# After the first content


BREAKS: list[tuple[str, Any]] = [
    ("the end without a finish reason", None),
    ("a reset", Kind.TRANSIENT),
    ("a rate limit", Kind.RATE_LIMITED),
    ("bytes that are no JSON", b'{"choices": [{"delta": {"content": "t'),
    ("JSON that is no object", b"[]"),
    ("an error event", ERROR),
]


@pytest.mark.parametrize("cut", [each for _, each in BREAKS], ids=[name for name, _ in BREAKS])
def test_whatever_happens_after_content_is_a_break_that_the_reader_hears_of(cut: Any) -> None:
    listener = Listener(delta("t0"), delta("t1"), *([] if cut is None else [cut]))
    listener.breaks()
    assert listener.heard == [delta("t0"), delta("t1")]


def test_an_error_event_brings_the_providers_words_redacted() -> None:
    failure = Listener(delta("t0"), ERROR).breaks()
    assert failure.provider_message == "it broke at [redacted]"
    assert failure.provider_type == "server_error"


@pytest.mark.parametrize("last", [ERROR, b"{"])
def test_tokens_that_came_in_one_read_with_the_break_are_not_lost(last: Any) -> None:
    listener = Listener(delta("t0"), [delta("t1"), delta("t2"), last, delta("t3")])
    listener.breaks()
    assert listener.heard == [delta("t0"), delta("t1"), delta("t2")]


def test_a_stall_is_a_break() -> None:
    failure = Listener(delta("t0"), Gate(), idle_s=0.02).breaks()
    assert failure.message == "the stream stalled"


def test_a_stream_has_a_time_limit_as_a_whole() -> None:
    pieces: list[Any] = [delta("t0"), Passes(9.98), delta("t1"), Gate(), delta("t2")]
    listener = Listener(*pieces, stream_s=10.0)
    listener.breaks()
    assert listener.heard == [delta("t0"), delta("t1")]


def test_the_time_before_the_first_content_is_part_of_the_whole() -> None:
    Listener(Passes(10.0), delta("t0"), Gate(), stream_s=10.0).breaks()


# The reader


@pytest.mark.parametrize("read_chunks", [0, 1, 2])
def test_a_reader_who_leaves_closes_the_source_at_once(read_chunks: int) -> None:
    async def main() -> None:
        # Closed, that is, and not collected: the loop would close what is forgotten.
        sys.set_asyncgen_hooks(finalizer=lambda forgotten: None)
        listener = Listener(delta("t0"), delta("t1"), delta("t2"))
        stream = await listener.begin()
        for _ in range(read_chunks):
            await anext(stream)
        await stream.aclose()
        assert listener.source.closed == 1
        await stream.aclose()
        assert listener.source.closed == 1

    asyncio.run(main())


def test_nothing_is_read_ahead_of_the_reader() -> None:
    async def main() -> None:
        listener = Listener(*map(delta, "abcd"))
        stream = await listener.begin()
        given: list[int] = []
        async for _ in _first(stream, 3):
            given.append(listener.source.given)
        await stream.aclose()
        assert given == [1, 2, 3]

    asyncio.run(main())


async def _first(stream: ChunkStream, count: int) -> AsyncGenerator[Chunk, None]:
    for _ in range(count):
        yield await anext(stream)


# Odd events


ODD: list[Callable[[], Json]] = [
    lambda: {"choices": "none"},
    lambda: {"choices": [None, 7]},
    lambda: {"choices": [{"index": "first", "delta": {}}]},
    lambda: {"choices": [{"delta": None, "finish_reason": None}]},
    lambda: {"usage": None, "choices": []},
    dict,
]


@pytest.mark.parametrize("odd", ODD)
def test_an_event_of_an_odd_form_is_passed_on_and_changes_nothing(odd: Callable[[], Json]) -> None:
    assert Listener(delta("t0"), odd(), finish()).listen() == [delta("t0"), odd(), finish()]
    Listener(delta("t0"), odd()).breaks()
