"""The link of one process to Redis, over a client that is written by hand."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from proxy.store.port import StoreUnavailable
from proxy.store.redis_link import MOST_OPERATIONS, Operation, RedisLink, Words, _portions
from proxy.store.windows import US, Labels
from tests.fakes import FakeClock, Gate

EPOCH = b"first:1000"
DAY = Labels("20833", "24325")
Step: TypeAlias = Gate | Exception | bytes | asyncio.Event | None


@dataclass(frozen=True)
class Sent:
    mode: str
    session: int
    sequence: int
    epoch: str
    steps: list[Any]


@dataclass
class FakeRedis:
    """Answers what a script would; one entry of `plays` is what happens to one batch."""

    at_us: int = 1_800_000_000 * US
    epoch: bytes = EPOCH
    plays: deque[Step] = field(default_factory=deque)
    sent: list[Sent] = field(default_factory=list)
    whole: int = 0  # scripts that were sent as text
    closed: bool = False

    async def evalsha(self, *words: Any) -> Any:
        await asyncio.sleep(0)
        return await self._play(words, self.plays.popleft() if self.plays else None)

    async def eval(self, *words: Any) -> Any:
        self.whole += 1
        return await self._play(words, None)

    async def aclose(self) -> None:
        self.closed = True

    async def _play(self, words: tuple[Any, ...], play: Step) -> Any:
        _, session, sequence, epoch, mode, _, steps, _ = words[3:]
        sent = Sent(mode, session, sequence, epoch, json.loads(steps))
        match play:
            case Gate():
                await play.pass_()
            case Exception():
                raise play
            case bytes():
                self.sent.append(sent)
                return [play, self.epoch, self.at_us]
            case asyncio.Event():  # it hangs
                await play.wait()
            case None:
                pass
        self.sent.append(sent)
        if epoch != self.epoch.decode():
            return [b"EPOCH", self.epoch, self.at_us]
        results = [step[1] if len(step) > 1 else 1 for step in sent.steps]
        return [b"OK", self.epoch, self.at_us, b"20833", b"24325", *results]

    @property
    def asked(self) -> list[list[Any]]:
        """The batches that were no part of a `sync`."""
        return [sent.steps for sent in self.sent if sent.mode == "ask"]


@dataclass
class Stand:
    redis: FakeRedis
    link: RedisLink
    words: list[Words]  # that a `sync` says
    told: list[str | None]
    synced: list[str]

    def ask(self, value: int) -> asyncio.Task[Any]:
        return asyncio.create_task(self.link.ask(("take", value)))


@asynccontextmanager
async def stand(*plays: Step, words: Iterable[Words] = ()) -> AsyncIterator[Stand]:
    redis = FakeRedis(plays=deque(plays))
    told: list[str | None] = []
    synced: list[str] = []
    said: list[Words] = list(words)

    def resync(labels: Labels) -> list[Words]:
        return list(said)

    link = RedisLink(
        redis,
        FakeClock(),
        owner="me",
        resync=resync,
        told=told.append,
        synced=lambda: synced.append(link.epoch),
    )
    await link.open()
    try:
        yield Stand(redis, link, said, told, synced)
    finally:
        await link.aclose()
        assert redis.closed


def run(script: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            await script()

    asyncio.run(main())


def test_a_link_that_opens_learns_the_epoch_and_says_all_that_its_process_has() -> None:
    async def script() -> None:
        async with stand(words=[("set", 1), ("set", 2)]) as one:
            assert one.link.up
            assert [(sent.mode, sent.steps) for sent in one.redis.sent] == [
                ("sync", []),
                ("synced", [["set", 1], ["set", 2]]),
            ]
            assert one.redis.sent[0].epoch.startswith("none-")
            assert one.redis.sent[1].epoch == EPOCH.decode()
            assert one.synced == [EPOCH.decode()]
        assert one.told == []

    run(script)


def test_what_comes_while_a_batch_is_under_way_goes_out_together() -> None:
    async def script() -> None:
        gate = Gate()
        async with stand() as one:
            one.redis.plays.append(gate)
            asked = [one.ask(0)]
            await gate.reached.wait()
            asked += [one.ask(number) for number in range(1, 4)]
            await asyncio.sleep(0)
            gate.opened.set()
            assert await asyncio.gather(*asked) == [0, 1, 2, 3]
            assert one.redis.asked == [[["take", 0]], [["take", n] for n in range(1, 4)]]
            numbers = [sent.sequence for sent in one.redis.sent if sent.mode == "ask"]
            assert numbers == [1, 2]

    run(script)


def test_a_batch_has_a_bound() -> None:
    async def script() -> None:
        async with stand() as one:
            await asyncio.gather(*(one.ask(number) for number in range(MOST_OPERATIONS + 5)))
            assert [len(batch) for batch in one.redis.asked] == [MOST_OPERATIONS, 5]

    run(script)


def test_the_script_is_sent_whole_where_it_is_not_known() -> None:
    async def script() -> None:
        async with stand() as one:
            one.redis.plays.append(NoScriptError("NOSCRIPT"))
            assert await one.link.ask(("take", 7)) == 7
            assert one.redis.whole == 1
            assert await one.link.ask(("take", 8)) == 8
            assert one.redis.whole == 1

    run(script)


def test_nobody_waits_longer_than_a_batch_may_take() -> None:
    async def script() -> None:
        async with stand() as one:
            one.redis.plays.append(asyncio.Event())
            failed = one.ask(1)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            behind = one.ask(2)
            for asked in (failed, behind):
                with pytest.raises(StoreUnavailable, match="did not answer within"):
                    await asked
            assert one.told == ["Redis did not answer within 0.1 s"]
            while not one.link.up:  # noqa: ASYNC110  # the link's own doing
                await asyncio.sleep(0)
            assert await one.link.ask(("take", 3)) == 3
            assert one.told == ["Redis did not answer within 0.1 s", None]
            assert one.redis.sent[-1].session == 2

    run(script)


@pytest.mark.parametrize(
    "error",
    [
        RedisConnectionError("Error 111 connecting. redis://:secret@host"),
        ResponseError("OOM command not allowed. All of it"),
        OSError("no route"),
        RuntimeError("a mistake of ours"),
        KeyError("another"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_fails_is_told_and_the_link_comes_up_again(error: Exception) -> None:
    async def script() -> None:
        async with stand() as one:
            one.redis.plays.append(error)
            with pytest.raises(StoreUnavailable):
                await one.link.ask(("take", 1))
            assert isinstance(one.told[0], str)
            assert type(error).__name__ in one.told[0]
            assert "secret" not in one.told[0]
            while not one.link.up:  # noqa: ASYNC110  # the link's own doing
                await asyncio.sleep(0)
            assert await one.link.ask(("take", 2)) == 2

    run(script)


def test_a_callback_that_fails_leaves_nobody_waiting() -> None:
    async def script() -> None:
        async with stand() as one:

            def done(result: Any, moment: object) -> None:
                raise ValueError("a mistake of ours")

            one.link.put(Operation(("take", 1), done))
            behind = one.ask(2)
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(behind, 1)

    run(script)


def test_a_link_that_is_down_refuses_and_lets_what_is_mirrored_be() -> None:
    async def script() -> None:
        async with stand(*[RedisConnectionError("gone")] * 3) as one:
            gate = Gate()
            one.redis.plays.append(gate)
            assert not one.link.up
            with pytest.raises(StoreUnavailable, match="gone"):
                await one.link.ask(("take", 1))
            one.link.tell(Operation(("settle", 1), mirrored=True))
            await gate.reached.wait()
            gate.opened.set()
            assert await _answer(one, 2) == 2
            assert one.redis.asked == [[["take", 2]]]

    run(script)


async def _answer(one: Stand, value: int) -> Any:
    while not one.link.up:  # noqa: ASYNC110  # the link's own doing
        await asyncio.sleep(0)
    return await one.link.ask(("take", value))


@pytest.mark.parametrize("status", [b"SYNC", b"EPOCH"])
def test_what_was_not_carried_out_is_sent_again_after_a_resync(status: bytes) -> None:
    async def script() -> None:
        async with stand(words=[("set", 5)]) as one:
            one.redis.plays.append(status)
            if status == b"EPOCH":
                one.redis.epoch = b"second:2000"
            before = len(one.redis.sent)
            assert list(await asyncio.gather(one.ask(1), one.ask(2))) == [1, 2]
            rest = one.redis.sent[before + 1 :]
            assert [sent.mode for sent in rest] == ["sync", "synced", "ask"]
            assert rest[1].steps == [["set", 5]]
            assert rest[2].steps == [["take", 1], ["take", 2]]
            assert {sent.session for sent in rest} == {2}
            assert one.told == []
            assert one.synced[-1] == one.redis.epoch.decode()

    run(script)


def test_what_is_mirrored_is_told_by_the_resync_and_not_again() -> None:
    async def script() -> None:
        async with stand() as one:
            gate = Gate()
            one.redis.plays.extend([b"SYNC", gate])
            asked = one.ask(1)
            one.link.tell(Operation(("settle", 2), mirrored=True))
            await gate.reached.wait()
            one.link.tell(Operation(("settle", 3), mirrored=True))
            gate.opened.set()
            assert await asked == 1
            assert one.redis.asked[1:] == [[["take", 1]]]

    run(script)


def test_what_changes_while_a_resync_is_under_way_is_told_after_it() -> None:
    async def script() -> None:
        async with stand(words=[("set", 1)]) as one:
            gate = Gate()
            one.redis.plays.extend([b"SYNC", None, gate])
            asked = one.ask(1)
            await gate.reached.wait()  # the words are on their way
            one.link.tell(Operation(("settle", 2), mirrored=True))
            late = one.ask(3)
            await asyncio.sleep(0)
            gate.opened.set()
            assert list(await asyncio.gather(asked, late)) == [1, 3]
            assert one.redis.asked[1:] == [[["take", 1], ["settle", 2], ["take", 3]]]

    run(script)


def test_nobody_waits_for_a_resync_of_many_portions() -> None:
    async def script() -> None:
        words: list[Words] = [("set", number) for number in range(2 * MOST_OPERATIONS + 1)]
        async with stand(words=words) as one:
            gate = Gate()
            one.redis.plays.extend([b"SYNC", None, gate])
            waiting = one.ask(1)
            await gate.reached.wait()
            with pytest.raises(StoreUnavailable, match="is being told"):
                await waiting
            with pytest.raises(StoreUnavailable):
                await one.link.ask(("take", 2))
            one.link.tell(Operation(("settle", 3), mirrored=True))
            gate.opened.set()
            assert await _answer(one, 4) == 4
            assert one.redis.asked[1:] in (
                [[["settle", 3], ["take", 4]]],
                [[["settle", 3]], [["take", 4]]],
            )

    run(script)


def test_a_redis_that_goes_during_a_resync_is_told_all_of_it_later() -> None:
    async def script() -> None:
        async with stand(words=[("set", 1)]) as one:
            one.redis.plays.extend([b"SYNC", None, RedisConnectionError("gone")])
            with pytest.raises(StoreUnavailable, match="gone"):
                await one.link.ask(("take", 1))
            assert await _answer(one, 2) == 2
            assert [sent.steps for sent in one.redis.sent if sent.mode == "synced"][-1] == [
                ["set", 1]
            ]

    run(script)


@pytest.mark.parametrize("moment", ["connecting", "telling", "asking", "resting", "idle"])
def test_a_link_may_be_closed_at_any_moment(moment: str) -> None:
    async def script() -> None:
        gate = Gate()
        async with stand() as one:
            failed: list[bool] = []
            waits = Operation(("take", 1), failed=lambda: failed.append(True))
            match moment:
                case "connecting":
                    one.redis.plays.extend([RedisConnectionError("gone"), gate])
                case "telling":
                    one.redis.plays.extend([b"SYNC", None, gate])
                case "asking":
                    one.redis.plays.append(gate)
                case "resting":
                    one.redis.plays.extend([RedisConnectionError("gone")] * 1000)
                case _:
                    pass
            if moment != "idle":
                one.link.put(waits)
                await asyncio.sleep(0)
            if moment not in {"idle", "resting"}:
                await gate.reached.wait()
            await one.link.aclose()
            assert failed == ([] if moment == "idle" else [True])
            with pytest.raises(StoreUnavailable):
                await one.link.ask(("take", 2))
        assert one.link._task is not None
        assert one.link._task.done()

    run(script)


def test_a_cancellation_that_a_connection_swallows_keeps_nobody() -> None:
    async def script() -> None:
        class Stubborn(FakeRedis):
            async def evalsha(self, *words: Any) -> Any:
                try:
                    return await super().evalsha(*words)
                except asyncio.CancelledError:
                    return [b"OK", self.epoch, self.at_us, b"20833", b"24325"]

        redis = Stubborn()
        link = RedisLink(
            redis, FakeClock(), owner="me", resync=lambda labels: [], told=lambda why: None
        )
        await link.open()
        gate = Gate()
        redis.plays.extend([b"SYNC", gate])
        link.put(Operation(("take", 1)))
        await gate.reached.wait()
        await link.aclose()

    run(script)


def test_an_asker_who_left_is_nobodys_trouble() -> None:
    async def script() -> None:
        async with stand() as one:
            for play in (None, RedisConnectionError("gone")):
                gate = Gate()
                one.redis.plays.append(gate)
                left = one.ask(1)
                await gate.reached.wait()
                one.redis.plays.append(play)
                behind = one.ask(2)
                await asyncio.sleep(0)
                for asked in (left, behind):
                    asked.cancel()
                gate.opened.set()
                await asyncio.gather(left, behind, return_exceptions=True)
                assert await _answer(one, 3) == 3

    run(script)


def test_the_wall_clock_is_that_of_redis() -> None:
    async def script() -> None:
        async with stand() as one:
            assert one.link.wall() == 1_800_000_000
            one.redis.at_us += 3600 * US
            await one.link.ask(("beat",))
            assert one.link.wall() == 1_800_003_600

    run(script)


def test_portions_go_by_what_is_in_them() -> None:
    light: Words = ("set", "a")
    heavy: Words = ("entries", "me", "a", [(1, 1)] * 1999)
    assert _portions([]) == [[]]
    assert _portions([light] * MOST_OPERATIONS) == [[light] * MOST_OPERATIONS]
    assert _portions([light] * (MOST_OPERATIONS + 1)) == [[light] * MOST_OPERATIONS, [light]]
    assert _portions([heavy, heavy, heavy]) == [[heavy, heavy], [heavy]]
    huge: Words = ("entries", "me", "a", [(1, 1)] * 99_999)
    assert _portions([light, huge, light]) == [[light], [huge], [light]]
