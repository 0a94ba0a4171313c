"""Where replicas meet, on a real Redis: who leads, what is heard, and what becomes of the lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from proxy.clock import SystemClock
from proxy.policy import RedisSettings
from proxy.store.board import Begun, Following, LeaderLost, Leading
from proxy.store.redis_board import LEADER_MS, RedisBoard
from proxy.store.redis_client import open_client
from tests.harness import RedisServer, redis_server, wait_until

pytestmark = pytest.mark.redis

MB = 1024 * 1024
STREAM = Begun("m/openai/x", "openai", True, ("n", "seed"))
WHOLE = Begun("m/openai/x", "openai", False)


@dataclass(frozen=True)
class Stand:
    """Two replicas at one Redis, and the connections of both."""

    server: RedisServer
    one: RedisBoard
    two: RedisBoard
    client: Any

    async def lead(self, key: str = "k") -> Leading:
        place = await self.one.take(key)
        assert isinstance(place, Leading)
        return place

    async def follow(self, key: str = "k") -> Following:
        place = await self.two.take(key)
        assert isinstance(place, Following)
        return place

    async def keys(self) -> dict[str, int]:
        """What there is in this Redis, and for how many milliseconds; -1: for ever."""
        names = [name.decode() async for name in self.client.scan_iter()]
        return {name: await self.client.pttl(name) for name in names}


@asynccontextmanager
async def stand(most_bytes: int = MB) -> AsyncIterator[Stand]:
    with redis_server() as server:
        clients = [open_client(RedisSettings(url=server.url)) for _ in range(3)]
        boards = [
            RedisBoard(client, SystemClock(), namespace="x", most_bytes=most_bytes)
            for client in clients[:2]
        ]
        try:
            yield Stand(server, boards[0], boards[1], clients[2])
        finally:
            for client in clients:
                await client.aclose()


def run(main: Callable[[Stand], Awaitable[None]], most_bytes: int = MB) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30), stand(most_bytes) as found:
            await main(found)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(bounded())


def say(leading: Leading, *words: str) -> None:
    for word in words:
        leading.says(orjson.dumps([{"word": word}]), 1)


async def heard(following: Following) -> list[str]:
    return [event["word"] async for events in following.events() for event in events]


def test_who_comes_first_leads_and_the_others_hear_all_from_its_first_word() -> None:
    async def main(stand: Stand) -> None:
        leading = await stand.lead()
        leading.begins(STREAM)
        say(leading, "a", "b")
        following = await stand.follow()
        assert await following.begun() == STREAM
        reading = asyncio.create_task(heard(following))
        say(leading, "c")
        late = await stand.follow()
        await leading.land(ok=True)
        assert await reading == ["a", "b", "c"]
        assert await late.begun() == STREAM
        assert await heard(late) == ["a", "b", "c"]
        await (await stand.lead()).land(ok=True)  # nobody leads any more

    run(main)


def test_a_whole_answer_is_heard_as_it_was_said() -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        leading.begins(WHOLE)
        leading.says(b'{"a": 1.0}', 0)
        await leading.land(ok=True)
        assert await following.begun() == WHOLE
        assert await following.whole() == b'{"a": 1.0}'

    run(main)


def test_what_nobody_wants_to_hear_is_not_written_and_nothing_stays_for_ever() -> None:
    async def main(stand: Stand) -> None:
        alone = await stand.lead("alone")
        alone.begins(STREAM)
        say(alone, "a")
        await alone.land(ok=True)
        assert not await stand.keys()
        leading, following = await stand.lead(), await stand.follow()
        leading.begins(STREAM)
        say(leading, "a")
        assert await following.begun() == STREAM
        kept = await stand.keys()
        assert len(kept) == 3
        assert min(kept.values()) > 0
        await leading.land(ok=True)
        kept = await stand.keys()
        assert len(kept) == 2
        assert min(kept.values()) > 0

    run(main)


def test_a_leader_that_fails_says_so() -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        await leading.land(ok=False)
        with pytest.raises(LeaderLost):
            await following.begun()
        leading, following = await stand.lead(), await stand.follow()
        leading.begins(STREAM)
        say(leading, "a")
        await leading.land(ok=False)
        await following.begun()
        with pytest.raises(LeaderLost):
            await heard(following)

    run(main)


async def die(leading: Any) -> None:
    """What is left of a leader whose process was killed: its key, as long as it lasts."""
    leading._beats.cancel()
    await asyncio.gather(leading._beats, return_exceptions=True)


def test_a_leader_that_gives_no_sign_of_life_is_lost_and_replaced() -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        await die(leading)
        with pytest.raises(LeaderLost):
            await following.begun()
        successor = await stand.two.take("k")
        assert isinstance(successor, Leading)
        await successor.land(ok=True)

    run(main)


def test_a_leader_that_lost_the_key_disturbs_nobody() -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        place = next(name for name in await stand.keys() if name.endswith(":flight"))
        await stand.client.set(place, "another", px=60_000)
        leading.begins(STREAM)
        say(leading, "a")
        await wait_for(lambda: leading._gave_up)  # type: ignore[attr-defined]
        await leading.land(ok=True)
        assert await stand.client.get(place) == b"another"
        with pytest.raises(LeaderLost):
            await heard(following)

    run(main)


async def wait_for(true: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait_until, true)


def test_what_is_too_large_to_be_held_for_others_is_said_to_nobody() -> None:
    async def main(stand: Stand) -> None:
        leading = await stand.lead()
        leading.begins(STREAM)
        say(leading, "x" * 2000)
        assert not leading._unsaid  # type: ignore[attr-defined]
        following = await stand.follow()
        with pytest.raises(LeaderLost):
            await following.begun()
        await leading.land(ok=True)

    run(main, most_bytes=1000)


def test_what_somebody_listens_to_may_be_as_large_as_it_is() -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        leading.begins(STREAM)
        await following.begun()
        words = ["x" * 600 for _ in range(20)]
        reading = asyncio.create_task(heard(following))
        for word in words:
            say(leading, word)
            await asyncio.sleep(0)
        await leading.land(ok=True)
        assert await reading == words

    run(main, most_bytes=1000)


@pytest.mark.parametrize(
    "said",
    [
        {"begun": "junk"},
        {"begun": "[1, 2]"},
        {"begun": "3"},
        {"foreign": "x"},
        {"events": '[{"word": "a"}]'},
        None,
    ],
)
def test_what_no_leader_has_said_is_believed_by_nobody(said: dict[str, str] | None) -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        place = following._places[2]  # type: ignore[attr-defined]
        if said is None:
            await stand.client.set(place, "no stream at all")
        else:
            await stand.client.xadd(place, said)
        with pytest.raises(LeaderLost):
            await following.begun()
        await leading.land(ok=True)

    run(main)


@pytest.mark.parametrize("value", ["junk", '{"a": 1}', "[1]", "3"])
def test_events_that_are_none_are_a_leader_that_is_lost(value: str) -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        leading.begins(STREAM)
        await following.begun()
        await stand.client.xadd(following._places[2], {"events": value})  # type: ignore[attr-defined]
        with pytest.raises(LeaderLost):
            await heard(following)
        await leading.land(ok=True)

    run(main)


def test_a_redis_that_is_killed_is_a_leader_that_is_lost_and_then_nobody_is_asked() -> None:
    async def main(stand: Stand) -> None:
        leading, following = await stand.lead(), await stand.follow()
        reading = asyncio.create_task(following.begun())
        await asyncio.to_thread(stand.server.stop)
        with pytest.raises(LeaderLost):
            await reading
        assert await stand.two.take("other") is None
        leading.begins(STREAM)
        say(leading, "a")
        await leading.land(ok=True)
        await asyncio.to_thread(stand.server.start)
        again: list[Any] = []
        while not again or again[-1] is None:
            await asyncio.sleep(LEADER_MS / 5000)
            again.append(await stand.two.take("k"))
        assert isinstance(again[-1], Leading)
        await again[-1].land(ok=True)

    run(main)
