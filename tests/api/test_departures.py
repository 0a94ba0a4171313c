"""A client may leave at any moment: what it asked for is given up at once, and paid for once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.types import Message

from proxy.api.conversation import DEPARTURE, SOON_S
from proxy.errors import NoTargetAvailable
from proxy.replies import Reply
from proxy.types import Call, Tally
from tests.api.fakes import COMPLETION, STREAMED, Edge, Upstream, events, replies

pytestmark = pytest.mark.anyio

COMMENT = b": keepalive\n\n"


class Waiting:
    """A gateway that waits for `go`, and takes a moment to clean up when it is cancelled."""

    def __init__(self, reply: Reply = COMPLETION) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.may_clean_up = asyncio.Event()
        self.cleaned_up = False
        self._reply = reply

    async def serve(self, call: Call, tally: Tally) -> Reply:
        self.asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            await self.may_clean_up.wait()
            self.cleaned_up = True
            raise
        return self._reply


async def test_a_client_that_leaves_before_the_answer_cancels_the_call_and_hears_nothing() -> None:
    gateway = Waiting()
    edge = Edge(gateway.serve)
    client = edge.post()
    request = client.start()
    await gateway.asked.wait()
    client.leave()
    await gateway.cancelled.wait()
    assert not request.done()
    assert edge.drain.in_flight == 1
    gateway.may_clean_up.set()
    await request
    assert gateway.cleaned_up
    assert client.sent == []
    assert edge.drain.in_flight == 0


async def test_a_departure_that_the_server_tells_of_ends_the_request_without_a_task() -> None:
    gateway = Waiting()
    gateway.may_clean_up.set()
    edge = Edge(gateway.serve)
    client = edge.post()
    told: list[Callable[[], object]] = []
    forgotten: list[bool] = []

    def watch(work: Callable[[], object]) -> Callable[[], None]:
        told.append(work)
        return lambda: forgotten.append(True)

    client._scope["extensions"] = {DEPARTURE: {"watch": watch}}
    before = asyncio.all_tasks()
    request = client.start()
    await gateway.asked.wait()
    await asyncio.sleep(SOON_S * 2)
    assert asyncio.all_tasks() - before == {request}
    told[0]()
    await request
    assert (client.sent, edge.drain.in_flight) == ([], 0)
    assert (len(told), forgotten) == (1, [True])  # and nobody is told of it after the end


async def test_a_client_that_leaves_a_silent_stream_closes_it() -> None:
    source = Upstream(b'{"n":1}', asyncio.Event())
    client = Edge(replies(source.stream)).post(STREAMED)
    request = client.start()
    await source.silent.wait()
    client.leave()
    await request
    assert (source.closed, source.settled) == (1, 1)
    assert client.bodies == [b'data: {"n":1}\n\n']


async def test_a_client_that_leaves_while_its_body_is_read_is_forgotten() -> None:
    edge = Edge(replies(COMPLETION))
    client = edge.post()
    client._pieces = []
    client.leave()
    await client.run()
    assert client.sent == []
    assert edge.gateway.calls == []
    assert edge.meters.reasons == []


async def test_a_client_that_cannot_be_written_to_has_left() -> None:
    source = Upstream(b'{"n":1}', b'{"n":2}', b'{"n":3}')
    client = Edge(replies(source.stream)).post(STREAMED)

    async def broken(message: Message) -> None:
        if b"2" in message.get("body", b""):
            raise OSError("reset")

    client.on_send = broken
    await client.run()
    assert client.bodies == [b'data: {"n":1}\n\n']
    assert (source.closed, source.settled) == (1, 1)


async def test_a_departure_right_at_the_end_does_not_cut_the_settlement_short() -> None:
    source = Upstream(b'{"n":1}')
    source.settling = asyncio.Event()
    edge = Edge(replies(source.stream))
    client = edge.post(STREAMED)
    request = client.start()
    await client.has(2)
    await source.settles.wait()
    client.leave()
    request.cancel()
    await asyncio.wait({request}, timeout=0)
    assert edge.drain.in_flight == 1
    source.settling.set()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (source.closed, source.settled) == (1, 1)
    assert edge.drain.in_flight == 0


async def test_a_server_that_is_stopped_closes_its_streams() -> None:
    source = Upstream(b'{"n":1}', asyncio.Event())
    request = Edge(replies(source.stream)).post(STREAMED).start()
    await source.silent.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert (source.closed, source.settled) == (1, 1)


async def test_a_slow_reader_holds_the_source_back() -> None:
    source = Upstream(b'{"n":1}', b'{"n":2}', asyncio.Event())
    client = Edge(replies(source.stream)).post(STREAMED)
    reads = asyncio.Event()

    async def slow(message: Message) -> None:
        if b"1" in message.get("body", b""):
            await reads.wait()

    client.on_send = slow
    request = client.start()
    await client.has(1)
    assert not source.silent.is_set()
    reads.set()
    await source.silent.wait()
    client.leave()
    await request
    assert len(client.bodies) == 2


async def test_a_stream_that_waits_is_kept_alive_with_comments() -> None:
    source = Upstream(b'{"n":1}')
    gateway = Waiting(source.stream)
    edge = Edge(gateway.serve)
    client = edge.post(STREAMED)
    request = client.start()
    await edge.clock.advance(14)
    assert client.sent == []
    await edge.clock.advance(1)
    await client.has(2)
    await edge.clock.advance(15)
    await client.has(3)
    gateway.go.set()
    await request
    assert client.status == 200
    assert client.bodies == [COMMENT, COMMENT, b'data: {"n":1}\n\n', b"data: [DONE]\n\n"]


async def test_a_stream_that_falls_silent_is_kept_alive_between_its_events() -> None:
    door = asyncio.Event()
    source = Upstream(b'{"n":1}', door, b'{"n":2}')
    edge = Edge(replies(source.stream))
    client = edge.post(STREAMED)
    request = client.start()
    await source.silent.wait()
    await edge.clock.advance(15)
    await client.has(3)
    door.set()
    await request
    assert client.bodies == [
        b'data: {"n":1}\n\n',
        COMMENT,
        b'data: {"n":2}\n\n',
        b"data: [DONE]\n\n",
    ]


async def test_a_failure_after_a_comment_is_an_error_event() -> None:
    go = asyncio.Event()

    async def serve(call: Call, tally: Tally) -> Reply:
        await go.wait()
        raise NoTargetAvailable("all down")

    edge = Edge(serve)
    client = edge.post(STREAMED)
    request = client.start()
    await edge.clock.advance(15)
    await client.has(2)
    go.set()
    await request
    assert client.status == 200
    assert events(client.bodies)[0]["error"]["code"] == "no_target_available"
    assert b"[DONE]" not in b"".join(client.bodies)


async def test_a_client_that_leaves_a_waiting_stream_is_noticed_by_its_comment() -> None:
    gateway = Waiting()
    gateway.may_clean_up.set()
    edge = Edge(gateway.serve)
    client = edge.post(STREAMED)

    async def broken(message: Message) -> None:
        raise OSError("reset")

    client.on_send = broken
    request = client.start()
    await edge.clock.advance(15)
    await request
    assert gateway.cleaned_up


async def test_no_comment_is_sent_while_a_frame_waits_for_its_reader() -> None:
    source = Upstream(b'{"n":1}')
    edge = Edge(replies(source.stream))
    client = edge.post(STREAMED)
    reads, blocked = asyncio.Event(), asyncio.Event()

    async def slow(message: Message) -> None:
        if b"1" in message.get("body", b""):
            blocked.set()
            await reads.wait()

    client.on_send = slow
    request = client.start()
    await blocked.wait()
    await edge.clock.advance(15)
    await edge.clock.advance(1)
    reads.set()
    await request
    assert client.bodies == [b'data: {"n":1}\n\n', b"data: [DONE]\n\n"]


async def test_a_whole_answer_is_never_preceded_by_comments() -> None:
    gateway = Waiting()
    edge = Edge(gateway.serve)
    client = edge.post()
    request = client.start()
    await gateway.asked.wait()
    assert not edge.clock._asleep.is_set()
    gateway.go.set()
    await request
    assert client.bodies == [COMPLETION.raw]


@pytest.mark.parametrize("end", ["leave", "cancel", "abort", "leave and cancel", "leave and abort"])
async def test_whenever_a_request_ends_it_is_settled_exactly_once(end: str) -> None:
    async def pause() -> None:
        await asyncio.sleep(0)

    async def slowly(message: Message) -> None:
        await pause()

    for steps in range(40):
        source = Upstream(b'{"n":1}', b'{"n":2}', b'{"n":3}')
        edge = Edge(replies(source.stream))
        client = edge.post(STREAMED)
        client.on_send = slowly
        request = client.start()
        for _ in range(steps):
            await pause()
        if "leave" in end:
            client.leave()
            await pause()
        if "cancel" in end:
            request.cancel()
        if "abort" in end:
            edge.drain.abort()
        await asyncio.wait({request})
        assert source.settled == len(edge.gateway.calls)
        assert edge.drain.in_flight == 0
        assert b"".join(client.bodies).count(b"[DONE]") <= 1
