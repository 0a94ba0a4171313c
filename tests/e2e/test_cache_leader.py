"""Whoever makes the call for many is gone: everybody else has a whole answer, by one call more."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import openai
import pytest

from tests.e2e.quota_place import secret
from tests.e2e.test_cache import SAID, calls, config
from tests.e2e.test_cache_life import ONCE, in_flight
from tests.harness import Mobius, redis_server, wait_until
from tests.providers import Answer, FakeOpenAI, Gate

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

# Where the provider has come to: how many tokens it has sent when it waits. None: not even headers.
STAGES: dict[str, int | None] = {"asked": None, "headers": 0, "midway": 2, "last": 5}
RACING_S = 0.03  # in which an answer is told, ended and kept
ENOUGH_S = 30.0


@dataclass(frozen=True)
class Run:
    """How a leader is lost. `racing`: while the provider says the rest."""

    stage: str
    stream: bool
    killed: bool
    racing: bool = False
    company: bool = False  # somebody else at the leader's replica
    whole_first: bool = False  # who wants a whole answer was at the other replica first


@dataclass
class Reader:
    """One request, and what became of it."""

    server: Mobius
    stream: bool
    said: list[str] = field(default_factory=list)
    failed: Exception | None = None
    ended_s: float = 0.0

    async def read(self, text: str) -> None:
        """Never raises what the service is to blame for; `failed` says it."""
        async with self.server.async_openai(secret("web")) as client:
            try:
                await self._read(client, text)
            except openai.OpenAIError as exc:
                self.failed = exc
        self.ended_s = time.monotonic()

    async def _read(self, client: openai.AsyncOpenAI, text: str) -> None:
        question: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
        if not self.stream:
            answer = await client.chat.completions.create(**question)
            self.said.append(answer.choices[0].message.content or "")
            return
        async for event in await client.chat.completions.create(**question, stream=True):
            self.said += [each.delta.content for each in event.choices if each.delta.content]

    def check(self) -> None:
        """It has all of the answer, or was told that there is no more after what it had."""
        if self.failed is None:
            assert "".join(self.said) == SAID
        else:
            assert self.stream, self.failed
            assert self.said, self.failed


class Stand:
    """Two replicas on one Redis, before one provider."""

    def __init__(self, one: Mobius, two: Mobius, provider: FakeOpenAI) -> None:
        self._one, self._two, self._provider = one, two, provider
        self._number = 0
        self.took_s: list[float] = []  # from the loss of the leader to the answer of each follower

    async def warm_up(self, server: Mobius) -> None:
        """Have LiteLLM import what it needs: its first call stops all else for half a second."""
        first = Reader(server, stream=False)
        await first.read(f"warm up {server.pid}")
        assert first.failed is None

    async def lose(self, run: Run, pause_s: float = 0.0) -> None:
        """Lose one leader, and see that nobody else suffers."""
        if self._one.exit_code is not None:
            await asyncio.to_thread(self._one.start)
            await self.warm_up(self._one)
        self._number += 1
        text, gate = f"{self._number} {run}", Gate()
        self._provider.script(Answer(gate=gate, gate_after_tokens=STAGES[run.stage]))
        before = calls(self._provider)
        async with asyncio.timeout(ENOUGH_S):
            leader = asyncio.create_task(Reader(self._one, run.stream).read(text))
            await self._until(lambda: calls(self._provider) == before + 1)
            others, reading = await self._follow(run, text)
            if run.racing:
                gate.open()
                await asyncio.sleep(pause_s)
            lost_s = time.monotonic()
            if run.killed:
                await asyncio.to_thread(self._one.kill)
            leader.cancel()
            gate.open()
            await asyncio.gather(leader, *reading, return_exceptions=True)
        for each in others:
            if each.server is self._two or not run.killed:
                each.check()
                self.took_s.append(each.ended_s - lost_s)
        assert calls(self._provider) <= before + 2
        await self._again(run, text)

    async def _follow(self, run: Run, text: str) -> tuple[list[Reader], list[asyncio.Task[None]]]:
        """Have others on board, one after the other."""
        others = [Reader(self._two, stream) for stream in (not run.whole_first, run.whole_first)]
        others += [Reader(self._one, run.stream)] if run.company else []
        reading = []
        for number, each in enumerate(others, 1):
            reading.append(asyncio.create_task(each.read(text)))
            # On a machine that is busy elsewhere a leader may be silent for so long that it counts
            # as lost already: then they are answered before it is.
            await self._until(lambda: self._settled(reading, number))  # noqa: B023
        return others, reading

    def _settled(self, reading: list[asyncio.Task[None]], number: int) -> bool:
        done = sum(task.done() for task in reading)
        return self._in_flight() == number + 1 - done

    async def _again(self, run: Run, text: str) -> None:
        """Whoever comes now has a whole answer, at the replica that is still there."""
        late = Reader(self._two, run.stream)
        await late.read(text)
        late.check()
        assert late.failed is None
        self._provider.always(Answer())  # what of the script was not asked for is not asked for now

    def _in_flight(self) -> float:
        return in_flight(self._one) + in_flight(self._two)

    async def _until(self, true: Any) -> None:
        await asyncio.to_thread(wait_until, true)


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with ExitStack() as opened:
        provider = opened.enter_context(FakeOpenAI())
        server = opened.enter_context(redis_server())
        cache = {"type": "redis", "url": server.url}
        settings = config(provider.base_url, cache=cache, **ONCE)
        one = opened.enter_context(Mobius(settings))
        two = opened.enter_context(Mobius(settings))
        found = Stand(one, two, provider)
        for replica in (one, two):
            asyncio.run(found.warm_up(replica))
        yield found


@pytest.mark.parametrize(
    ("stage", "stream", "company"),
    [*product(STAGES, (False, True), (False,)), ("asked", False, True), ("midway", True, True)],
)
def test_a_leader_whose_client_leaves_is_replaced(
    stand: Stand, stage: str, stream: bool, company: bool
) -> None:
    asyncio.run(stand.lose(Run(stage, stream, killed=False, company=company)))


@pytest.mark.parametrize(("stage", "stream"), [("asked", False), ("midway", True)])
def test_a_leader_that_is_killed_is_replaced(stand: Stand, stage: str, stream: bool) -> None:
    asyncio.run(stand.lose(Run(stage, stream, killed=True, whole_first=True)))


@pytest.mark.proof
@pytest.mark.timeout(3600)
def test_two_hundred_leaders_are_lost_and_nobody_suffers(stand: Stand) -> None:
    either = (False, True)
    ways = [Run(*way) for way in product(STAGES, either, either, either, either, either)]
    chance = random.Random(4)  # noqa: S311
    runs = ways + chance.choices(ways, k=200 - len(ways))
    chance.shuffle(runs)
    told = len(stand.took_s)
    for number, run in enumerate(runs):
        asyncio.run(stand.lose(run, pause_s=chance.uniform(0, RACING_S)))
        took_s = ", ".join(f"{each:.2f}" for each in stand.took_s[told:])
        told = len(stand.took_s)
        sys.stderr.write(f"{number + 1} {run}: {took_s}\n")
    assert len(stand.took_s) > 2 * 200
    sys.stderr.write(f"the slowest follower: {max(stand.took_s):.2f} s after the loss\n")
