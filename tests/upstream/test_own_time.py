"""What of a request is our own time: LiteLLM's and ours, not the waiting at the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from types import ModuleType
from typing import Any, cast

import httpx
import orjson
import pytest

from proxy.attempts import Attempts
from proxy.gateway import Gateway
from proxy.headroom import Headroom
from proxy.health import Health
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.policy import MobiusPolicy
from proxy.quota import Quota
from proxy.replies import ChunkStream
from proxy.resume import Resume
from proxy.snapshot import Snapshot
from proxy.store.memory import MemoryStore
from proxy.types import Ring, Surface, Tally, Trust
from proxy.upstream.sdk import Sdk
from proxy.upstream.unified import Unified
from proxy.upstream.wire import CurrentTransport, Transport, WireError
from proxy.waiting import Waiting
from tests.fakes import ANYBODY, FakeClock, FakeLedger, answer, ask, delta, finish, group, usage

# Each a sum of powers of two, so that no sum of them is another's, or inexact.
LITELLM_S, CLIENT_S, HEAD_S, READ_S = 0.25, 0.5, 4.0, 8.0
EVENTS = (delta("t0"), delta("t1"), finish(), usage())


async def elsewhere(clock: FakeClock, seconds: float) -> None:
    """Suspended for so long."""
    asyncio.get_running_loop().call_soon(clock.pass_, seconds)
    await asyncio.sleep(0)


class SlowBody(httpx.AsyncByteStream):
    """Each piece takes a while to come, and then the HTTP client a while to read."""

    def __init__(self, pieces: list[bytes], clock: FakeClock) -> None:
        self._pieces = pieces
        self._clock = clock

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            await elsewhere(self._clock, READ_S)
            self._clock.pass_(CLIENT_S)
            yield piece


class SlowProvider(httpx.AsyncHTTPTransport):
    """Answers with one status after the other, each after a while."""

    def __init__(self, clock: FakeClock, *statuses: int) -> None:
        self._clock = clock
        self._statuses = list(statuses)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._clock.pass_(CLIENT_S)
        await elsewhere(self._clock, HEAD_S)
        status = self._statuses.pop(0)
        if status != 200:
            return httpx.Response(status, stream=SlowBody([], self._clock))
        if not orjson.loads(request.content)["stream"]:
            body = SlowBody([orjson.dumps(answer())], self._clock)
            return httpx.Response(200, stream=body)
        pieces = [b"data: %s\n\n" % orjson.dumps(event) for event in EVENTS]
        pieces[-1] += b"data: [DONE]\n\n"
        headers = {"content-type": "text/event-stream"}
        body = SlowBody(pieces, self._clock)
        return httpx.Response(200, headers=headers, stream=body)


class SlowTransport(Transport):
    """Ours, with another provider behind it."""

    def __init__(self, clock: FakeClock, provider: SlowProvider) -> None:
        super().__init__(clock)
        self._provider = provider

    def _way(self, url: httpx.URL, trust: Trust | None) -> httpx.AsyncHTTPTransport:
        return self._provider


class FakeLiteLLM:
    """Takes its time before and after it asks; `transport` none: asks over no wire of ours."""

    error = WireError

    def __init__(self, clock: FakeClock, transport: Transport | None) -> None:
        self.transport = transport
        self._clock = clock

    async def ready(self) -> ModuleType:
        self._clock.pass_(LITELLM_S)
        return cast("ModuleType", self)

    async def acompletion(self, **arguments: Any) -> Any:
        if self.transport is None:
            await elsewhere(self._clock, HEAD_S)
            raise NotImplementedError
        client = httpx.AsyncClient(transport=CurrentTransport())
        stream = arguments.get("stream", False)
        request = client.build_request("POST", "http://provider/", json={"stream": stream})
        response = await client.send(request, stream=stream)
        self._clock.pass_(LITELLM_S)
        return response


class Whole:
    """A gateway over LiteLLM's stand-in and a provider that is slow."""

    def __init__(self, *statuses: int, wired: bool = True) -> None:
        self.clock = clock = FakeClock()
        transport = SlowTransport(clock, SlowProvider(clock, *statuses)) if wired else None
        sdk = cast("Sdk", FakeLiteLLM(clock, transport))
        self.metrics = Metrics(clock)
        ledger = FakeLedger()
        headroom = Headroom(clock)
        quota = Quota(MemoryStore(clock, ledger), ledger, self.metrics, headroom)
        attempts = Attempts(
            Unified(sdk, clock, limit_bytes=lambda: 100_000),
            Health(clock),
            self.metrics,
            quota,
            headroom=headroom,
            clock=clock,
            chance=lambda: 0.5,
        )
        log = Log(lambda line: None, clock)
        self.gateway = Gateway(
            attempts=attempts,
            resume=Resume(attempts, self.metrics, clock),
            quota=quota,
            metrics=self.metrics,
            log=log,
        )
        self.tally = Tally("req-1", Surface.CHAT, "unknown", False, clock.now())

    async def serve(self, *, stream: bool) -> None:
        ring = Ring("m", (group("m", "a"),))
        snapshot = Snapshot(policy=MobiusPolicy(laps=1), rings={"m": ring})
        call = ask(stream=stream)
        reply = await self.gateway.serve(call, ANYBODY, snapshot, self.tally)
        if isinstance(reply, ChunkStream):
            async for _chunk in reply:
                pass
            await reply.aclose()

    @property
    def own_s(self) -> float | None:
        labels = {"model": "m"}
        return self.metrics.registry.get_sample_value("mobius_overhead_seconds_sum", labels)


def test_only_the_waiting_for_the_provider_s_socket_is_upstream() -> None:
    whole = Whole(200)
    asyncio.run(whole.serve(stream=False))
    assert whole.tally.upstream_s == HEAD_S + READ_S
    assert whole.own_s == 2 * LITELLM_S + 2 * CLIENT_S


def test_every_read_of_a_stream_is_upstream_and_nothing_between_them() -> None:
    whole = Whole(200)
    asyncio.run(whole.serve(stream=True))
    reads = len(EVENTS)
    assert whole.tally.upstream_s == HEAD_S + reads * READ_S
    assert whole.own_s == 2 * LITELLM_S + (1 + reads) * CLIENT_S


def test_an_attempt_that_failed_is_counted_likewise_and_the_wait_after_it_is_nobody_s() -> None:
    whole = Whole(500, 200)
    asyncio.run(whole.serve(stream=False))
    assert whole.tally.retries == 1
    assert whole.tally.waits_s > 0
    assert whole.tally.upstream_s == 2 * HEAD_S + READ_S
    assert whole.own_s == pytest.approx(3 * LITELLM_S + 3 * CLIENT_S)


def test_a_call_that_goes_over_no_wire_of_ours_is_all_upstream() -> None:
    whole = Whole(wired=False)
    with pytest.raises(Exception, match="no target"):
        asyncio.run(whole.serve(stream=False))
    assert whole.tally.upstream_s >= HEAD_S
    assert whole.own_s == 0.0


# What is awaited through a Waiting


async def _through(waiting: Waiting, work: Awaitable[object]) -> object:
    return await waiting.through(work)


def test_it_ends_as_it_would_have_without() -> None:
    clock = FakeClock()
    waiting = Waiting(clock.now)

    async def returns() -> str:
        await elsewhere(clock, 1.0)
        clock.pass_(0.5)
        return "done"

    async def fails() -> None:
        await elsewhere(clock, 2.0)
        raise LookupError

    assert asyncio.run(_through(waiting, returns())) == "done"
    with pytest.raises(LookupError):
        asyncio.run(_through(waiting, fails()))
    assert waiting.total_s == 3.0


def test_what_catches_its_cancellation_goes_on() -> None:
    clock = FakeClock()
    waiting = Waiting(clock.now)

    async def stubborn() -> str:
        try:
            clock_runs = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(clock.pass_, 4.0)
            await clock_runs
        except asyncio.CancelledError:
            await elsewhere(clock, 8.0)
        return "in the end"

    async def main() -> object:
        task = asyncio.create_task(_through(waiting, stubborn()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        return await task

    assert asyncio.run(main()) == "in the end"
    assert waiting.total_s == 12.0


def test_until_it_is_used_its_clock_is_the_ordinary_one() -> None:
    clock = FakeClock()
    waiting = Waiting(clock.now)
    assert waiting.now() == clock.now()
    asyncio.run(_through(waiting, elsewhere(clock, 2.0)))
    clock.pass_(30.0)
    assert waiting.now() == 2.0
