from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType

import orjson
import pytest

from proxy import sse
from proxy.owed import Owed
from proxy.replies import Chunk, ChunkStream, Completion

CHUNKS = [Chunk.of_events([{"n": number}]) for number in range(4)]


class Bill:
    """Writes down what happens, in order; what is owed is one line of it."""

    def __init__(self) -> None:
        self.lines: list[object] = []
        self.heard: list[BaseException | None] = []
        self.asked = asyncio.Event()  # somebody has begun to pay
        self.may_pay = asyncio.Event()
        self.may_pay.set()

    def debt(self, name: str) -> Callable[..., Coroutine[None, None, None]]:
        async def pay(
            _kind: type[BaseException] | None,
            exc: BaseException | None,
            _traceback: TracebackType | None,
        ) -> None:
            self.asked.set()
            await self.may_pay.wait()
            self.heard.append(exc)
            self.lines.append(name)

        return pay

    def stack(self, *names: str) -> Owed:
        stack = Owed()
        for name in names:
            stack.push_async_exit(self.debt(name))
        return stack

    async def rest(self, ending: Exception | None = None) -> AsyncGenerator[Chunk, None]:
        """The chunks after the first two, and perhaps a failure; closing it is a line."""
        try:
            for chunk in CHUNKS[2:]:
                yield chunk
            if ending is not None:
                raise ending
        finally:
            self.lines.append("closed")

    def stream(self, ending: Exception | None = None) -> ChunkStream:
        return ChunkStream(CHUNKS[:2], self.rest(ending)).owe(self.stack("paid"))


async def read(stream: ChunkStream) -> list[Chunk]:
    return [chunk async for chunk in stream]


def test_a_stream_has_paid_once_before_its_reader_hears_that_it_ended() -> None:
    async def main() -> None:
        bill = Bill()
        stream = bill.stream()
        assert [await anext(stream) for _ in CHUNKS] == CHUNKS
        assert bill.lines == []
        assert await anext(stream, None) is None
        assert bill.lines == ["closed", "paid"]
        await stream.aclose()
        assert bill.lines == ["closed", "paid"]
        assert bill.heard == [None]

    asyncio.run(main())


def test_a_stream_that_breaks_pays_once_and_its_debts_hear_why() -> None:
    async def main() -> None:
        bill, failure = Bill(), ConnectionError("reset")
        stream = bill.stream(failure)
        with pytest.raises(ConnectionError):
            await read(stream)
        assert bill.lines == ["closed", "paid"]
        assert await read(stream) == []  # to read on does not turn a break into an end
        await stream.aclose()
        assert bill.lines == ["closed", "paid"]
        assert bill.heard == [failure]

    asyncio.run(main())


@pytest.mark.parametrize("chunks", range(5))
def test_a_stream_that_its_reader_leaves_pays_once_and_blames_nobody(chunks: int) -> None:
    async def main() -> None:
        bill = Bill()
        stream = bill.stream()
        for _ in range(chunks):
            await anext(stream)
        await stream.aclose()
        assert bill.lines[-1:] == ["paid"]
        assert bill.lines.count("closed") == (chunks > 2)  # nothing to close where nothing began
        assert isinstance(bill.heard[0], asyncio.CancelledError)

    # Having had the last chunk is not having had the end: it may still break.
    asyncio.run(main())


def test_a_reader_that_is_cancelled_while_it_waits_has_left() -> None:
    async def main() -> None:
        bill, waiting = Bill(), asyncio.Event()

        async def silent() -> AsyncGenerator[Chunk, None]:
            waiting.set()
            await asyncio.Event().wait()
            yield CHUNKS[0]

        stream = ChunkStream([], silent()).owe(bill.stack("paid"))
        reader = asyncio.create_task(read(stream))
        await waiting.wait()
        reader.cancel()
        await asyncio.wait((reader,))
        await stream.aclose()
        assert bill.lines == ["paid"]
        assert isinstance(bill.heard[0], asyncio.CancelledError)

    asyncio.run(main())


def test_closing_it_again_changes_nothing() -> None:
    async def main() -> None:
        bill = Bill()
        stream = bill.stream()
        await read(stream)
        await stream.aclose()
        await stream.aclose()
        await asyncio.gather(stream.aclose(), stream.aclose())
        assert bill.lines == ["closed", "paid"]

    asyncio.run(main())


def test_two_that_close_it_at_once_both_wait_until_it_is_paid() -> None:
    async def main() -> None:
        bill = Bill()
        bill.may_pay.clear()
        stream = bill.stream()
        both = [asyncio.create_task(stream.aclose()) for _ in range(2)]
        await bill.asked.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not any(task.done() for task in both)
        bill.may_pay.set()
        await asyncio.gather(*both)
        assert bill.lines == ["paid"]

    asyncio.run(main())


@pytest.mark.parametrize("times", [1, 3])
def test_a_task_that_is_cancelled_while_it_closes_pays_first(times: int) -> None:
    async def main() -> None:
        bill = Bill()
        bill.may_pay.clear()
        stream = bill.stream()
        closing = asyncio.create_task(read(stream))
        await bill.asked.wait()
        for _ in range(times):
            closing.cancel()
            await asyncio.sleep(0)
        assert not closing.done()
        bill.may_pay.set()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert bill.lines == ["closed", "paid"]
        assert bill.heard == [None]

    asyncio.run(main())


def test_a_source_that_fails_while_it_is_closed_leaves_no_debt() -> None:
    async def main() -> None:
        bill = Bill()

        async def sticky() -> AsyncGenerator[Chunk, None]:
            try:
                yield CHUNKS[0]
            finally:
                raise ConnectionError("closing")

        stream = ChunkStream([], sticky()).owe(bill.stack("paid"))
        await anext(stream)
        with pytest.raises(ConnectionError, match="closing"):
            await stream.aclose()
        assert bill.lines == ["paid"]

    asyncio.run(main())


def test_the_connection_is_closed_first_and_the_oldest_debt_paid_first() -> None:
    async def main() -> None:
        bill = Bill()
        stream = bill.stream().owe(bill.stack("inner", "innermost")).owe(bill.stack("last"))
        await read(stream)
        await stream.aclose()
        assert bill.lines == ["closed", "paid", "innermost", "inner", "last"]
        assert bill.heard == [None] * 4

    asyncio.run(main())


def test_a_debt_that_fails_does_not_keep_the_others_from_being_paid() -> None:
    async def main() -> None:
        bill, broken = Bill(), Owed()

        def fail() -> None:
            raise OSError("the disk is full")

        broken.callback(fail)
        stream = bill.stream().owe(broken).owe(bill.stack("last"))
        await read(stream)
        with pytest.raises(OSError, match="full"):
            await stream.aclose()
        assert bill.lines == ["closed", "paid", "last"]

    asyncio.run(main())


def test_every_tap_sees_every_chunk_before_the_reader_does() -> None:
    async def main() -> None:
        bill = Bill()
        stream = bill.stream()
        stream.tap(lambda chunk: bill.lines.append(("first tap", chunk)))
        stream.tap(lambda chunk: bill.lines.append(("second tap", chunk)))
        async for chunk in stream:
            bill.lines.append(("reader", chunk))
        seen = [(who, chunk) for chunk in CHUNKS for who in ("first tap", "second tap", "reader")]
        assert bill.lines == [*seen, "closed", "paid"]
        await stream.aclose()

    asyncio.run(main())


def test_a_tap_that_fails_breaks_the_stream() -> None:
    async def main() -> None:
        bill, failure = Bill(), ValueError("not JSON")

        def tap(chunk: Chunk) -> None:
            if chunk is CHUNKS[1]:
                raise failure

        stream = bill.stream().tap(tap)
        assert await anext(stream) is CHUNKS[0]
        with pytest.raises(ValueError, match="not JSON"):
            await anext(stream)
        await stream.aclose()
        assert bill.heard == [failure]

    asyncio.run(main())


def test_the_time_waited_for_the_provider_is_summed() -> None:
    async def main() -> None:
        bill = Bill()
        moments = iter(range(0, 1000, 10))
        stream = ChunkStream(CHUNKS[:2], bill.rest(), now=lambda: float(next(moments)))
        await read(stream)
        assert stream.waited_s == 30  # two chunks and the end; the first two were in hand
        await stream.aclose()

    asyncio.run(main())


def test_a_chunk_is_parsed_when_it_is_asked_for_and_only_once() -> None:
    unread = Chunk.of_payloads([b"not JSON", b"{}"])
    assert unread.raw == b"data: not JSON\n\ndata: {}\n\n"
    chunk = Chunk.of_payloads([b'{"a": 1}', b'{"b": 2}'])
    assert chunk.events == ({"a": 1}, {"b": 2})
    assert chunk.events is chunk.events


@pytest.mark.parametrize("payload", [b"not JSON", b"[1]", b'"text"', b"1", b"null", b""])
def test_an_event_that_is_no_object_cannot_be_read(payload: bytes) -> None:
    chunk = Chunk.of_payloads([b"{}", payload])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"."):
            _ = chunk.events


def test_events_are_sent_as_frames() -> None:
    chunk = Chunk.of_events([{"a": "ü\n"}, {}])
    assert chunk.raw == 'data: {"a":"ü\\n"}\n\ndata: {}\n\n'.encode()
    assert chunk.events == ({"a": "ü\n"}, {})


def test_a_hidden_event_is_not_sent_and_still_known() -> None:
    chunk = Chunk.of_payloads([b'{"a": 1}', b'{"a": 1}', b'{"b": 2}'])
    shown = chunk.without([chunk.events[1]])
    assert shown.raw == b'data: {"a":1}\n\ndata: {"b":2}\n\n'
    assert shown.events is chunk.events
    assert chunk.without(chunk.events).raw == b""


def test_a_completion_is_parsed_when_it_is_asked_for_and_only_once() -> None:
    completion = Completion(b'{"a": 1}', headers={"x-ratelimit-limit-requests": "5"})
    assert completion.body == {"a": 1}
    assert completion.body is completion.body
    known = {"b": 2}
    assert Completion(orjson.dumps(known), known).body is known


def test_an_event_without_its_name_gets_it_from_its_type() -> None:
    named = sse.ServerEvent(b"n", b'{"type":"a"}')
    nameless = [sse.ServerEvent(b"", data) for data in (b'{"type":"a"}', b"7", b"{", b"{}")]
    raw = Chunk.of_named([named, *nameless]).raw
    assert raw == (
        b'event: n\ndata: {"type":"a"}\n\nevent: a\ndata: {"type":"a"}\n\n'
        b"data: 7\n\ndata: {\n\ndata: {}\n\n"
    )
