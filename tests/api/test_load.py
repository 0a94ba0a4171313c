"""Too many requests, and the end of the server."""

from __future__ import annotations

import asyncio

import pytest

from proxy.api.load import Drain
from proxy.errors import Overloaded, ShuttingDown
from tests.api.fakes import CHAT, COMPLETION, STREAMED, Edge, Upstream, events, replies, snapshot
from tests.api.test_departures import Waiting

pytestmark = pytest.mark.anyio


async def test_a_request_over_the_limit_is_told_so_at_once() -> None:
    gateway = Waiting()
    edge = Edge(gateway.serve, snapshot(limits={"in_flight": 1}))
    first = edge.post().start()
    await gateway.asked.wait()
    refused = await edge.post().run()
    assert refused.status == 503
    assert refused.error["code"] == "server_is_overloaded"
    assert refused.headers["retry-after"] == "2"
    assert edge.meters.reasons == ["server_is_overloaded"]
    gateway.go.set()
    assert (await first).status == 200
    gateway.go.set()
    assert (await edge.post().run()).status == 200


async def test_retry_after_is_spread_between_one_and_three_seconds() -> None:
    for chance, wait_s in ((0.0, 1.0), (0.999, 2.998)):
        drain = Drain(chance=lambda chance=chance: chance)  # type: ignore[misc]
        with pytest.raises(Overloaded) as refused:
            async with drain.enter(0):
                pass
        assert refused.value.retry_after_s == pytest.approx(wait_s)


async def test_requests_are_served_while_draining() -> None:
    edge = Edge(replies(COMPLETION))
    edge.drain.begin()
    assert (await edge.post().run()).status == 200


async def test_after_the_grace_a_stream_gets_an_error_event_and_is_settled() -> None:
    source = Upstream(b'{"n":1}', asyncio.Event())
    edge = Edge(replies(source.stream))
    client = edge.post(STREAMED)
    request = client.start()
    await source.silent.wait()
    assert not await edge.drain.wait_idle(0)
    assert edge.drain.abort() == 1
    assert await edge.drain.wait_idle(10)
    await request
    assert events(client.bodies)[-1]["error"]["code"] == "server_shutting_down"
    assert b"[DONE]" not in b"".join(client.bodies)
    assert client.sent[-1]["more_body"] is False
    assert (source.closed, source.settled) == (1, 1)


async def test_after_the_grace_a_request_that_waits_gets_its_503() -> None:
    gateway = Waiting()
    gateway.may_clean_up.set()
    edge = Edge(gateway.serve)
    client = edge.post()
    request = client.start()
    await gateway.asked.wait()
    assert edge.drain.abort() == 1
    await request
    assert gateway.cleaned_up
    assert client.status == 503
    assert client.error["code"] == "server_shutting_down"


async def test_after_the_grace_nothing_new_is_begun() -> None:
    edge = Edge(replies(COMPLETION))
    assert edge.drain.abort() == 0
    client = await edge.post(CHAT).run()
    assert client.error["code"] == "server_shutting_down"
    assert edge.gateway.calls == []


async def test_a_server_without_requests_is_idle() -> None:
    drain = Drain(chance=lambda: 0.0)
    assert await drain.wait_idle(0)
    assert drain.abort() == 0


async def test_the_first_to_end_a_conversation_is_the_one_that_is_heard() -> None:
    drain = Drain(chance=lambda: 0.0)

    async def hold() -> None:
        async with drain.enter(1) as conversation:
            conversation.end(ValueError("first"))
            drain.abort()
            await asyncio.Event().wait()

    with pytest.raises(ValueError, match="first"):
        await hold()


async def test_somebody_else_s_cancellation_stays_one() -> None:
    drain = Drain(chance=lambda: 0.0)
    entered = asyncio.Event()

    async def hold() -> None:
        async with drain.enter(1):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await entered.wait()
    task.cancel()
    drain.abort()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert drain.in_flight == 0


async def test_a_conversation_that_is_over_cannot_be_ended() -> None:
    drain = Drain(chance=lambda: 0.0)
    async with drain.enter(1) as conversation:
        pass
    conversation.end(ShuttingDown("late"))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_fault_beside_a_conversation_ends_it() -> None:
    async def faulty() -> None:
        raise KeyError("beside")

    async def hold() -> None:
        async with Drain(chance=lambda: 0.0).enter(1) as conversation:
            conversation.beside(faulty)
            await asyncio.Event().wait()

    with pytest.raises(KeyError, match="beside"):
        await hold()
