"""What is told to Redis of the past, and told again when it may not have heard it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from proxy.limits import Unit, Window
from proxy.store import LedgerUnavailable
from proxy.store.port import StoreUnavailable
from proxy.store.redis_link import Operation, RedisLink
from proxy.store.redis_part import Part
from proxy.store.redis_past import Past
from proxy.store.windows import US, Labels, labels_at
from tests.store.redis_stand import FakeSharedHistory
from tests.store.stores import TARGET, WEB, budget, parallel, rpm, tpd, tpm

WALL_S = 1_800_000_000.0


@dataclass
class FakeLink:
    """Keeps what is put, until a test says what became of it."""

    owner: str = "me"
    epoch: str = "first"
    up: bool = True
    waiting: list[Operation] = field(default_factory=list)

    def wall(self) -> float:
        return WALL_S

    def put(self, operation: Operation) -> None:
        if not self.up:
            raise StoreUnavailable("gone")
        self.waiting.append(operation)

    def tell(self, operation: Operation) -> None:
        self.waiting.append(operation)

    def lose(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.failed()

    @property
    def words(self) -> list[tuple[Any, ...]]:
        return [each.words for each in self.waiting]


@dataclass
class Stand:
    link: FakeLink
    history: FakeSharedHistory
    past: Past


def run(script: Callable[[Stand], Awaitable[None]]) -> None:
    link, history = FakeLink(), FakeSharedHistory()
    past = Past(cast("RedisLink", link), history)
    asyncio.run(cast("Any", script)(Stand(link, history, past)))


LABEL = labels_at(WALL_S).day


def test_what_the_dead_settled_is_told_once_in_an_epoch() -> None:
    async def script(one: Stand) -> None:
        part = Part.of(tpd(100))
        one.history.note(WEB, Unit.TOKENS, "dead", WALL_S, 30)
        for _ in range(2):
            await one.past.tell([part])
        told = [
            ("bury", "dead"),
            ("inherit", "dead", "tokens:day:key:web", Window.DAY, LABEL, 30),
        ]
        assert one.link.words == told
        one.link.epoch = "second"
        await one.past.tell([part])
        assert one.link.words == told * 2

    run(script)


def test_of_what_counts_for_ever_all_the_dead_of_one_ledger_are_told_as_one() -> None:
    async def script(one: Stand) -> None:
        ever = Part.of(budget(Window.TOTAL, 9))
        for owner, amount in (("dead", 3), ("me", 5), ("deader", 4)):
            one.history.note(WEB, Unit.NANO_USD, owner, WALL_S - 10**8, amount)
        await one.past.tell([ever])
        assert one.link.words == [
            ("set", ever.name, Window.TOTAL, "0", 5, 0, 0),
            ("bury", "dead"),
            ("bury", "deader"),
            ("fold", "books", ever.name, Window.TOTAL, "0", 7, ["dead", "deader"]),
        ]
        one.link.lose()
        await one.past.tell([ever])
        assert [words[0] for words in one.link.words] == ["bury", "bury", "fold"]

    run(script)


def test_what_may_not_have_arrived_is_told_again() -> None:
    async def script(one: Stand) -> None:
        parts = [Part.of(tpd(100)), Part.of(tpm(100))]
        one.history.note(WEB, Unit.TOKENS, "dead", WALL_S, 30)
        await one.past.tell(parts)
        assert [words[0] for words in one.link.words] == ["bury", "inherit", "entries"]
        one.link.lose()
        await one.past.tell(parts)
        assert [words[0] for words in one.link.words] == ["bury", "inherit", "entries"]

    run(script)


def test_what_this_process_used_before_the_limit_came_is_in_its_own_part() -> None:
    async def script(one: Stand) -> None:
        day, minute, ever = Part.of(tpd(100)), Part.of(tpm(100)), Part.of(budget(Window.TOTAL, 9))
        one.history.note(WEB, Unit.TOKENS, "me", WALL_S, 30)
        one.history.note(WEB, Unit.NANO_USD, "me", WALL_S - 10**8, 5)
        await one.past.tell([day, minute, ever])
        assert (day.settled, ever.settled, list(minute.entries)) == (
            30,
            5,
            [(int(WALL_S) * US, 30)],
        )
        assert one.link.words == [
            ("set", day.name, Window.DAY, LABEL, 30, 0, 0),
            ("entries", "me", minute.name, [(int(WALL_S) * US, 30)]),
            ("set", ever.name, Window.TOTAL, "0", 5, 0, 0),
        ]
        assert all(each.mirrored for each in one.link.waiting)
        one.link.epoch = "second"
        await one.past.tell([day, minute, ever])
        assert (day.settled, len(one.link.waiting)) == (30, 3)

    run(script)


def test_what_is_settled_while_the_ledger_answers_counts_once() -> None:
    async def script(one: Stand) -> None:
        part = Part.of(tpd(100))
        one.history.note(WEB, Unit.TOKENS, "me", WALL_S, 30)
        telling = asyncio.create_task(one.past.tell([part]))
        await asyncio.sleep(0)
        assert part.counts
        part.add(4, int(WALL_S * US), labels_at(WALL_S))
        await telling
        assert part.settled == 34

    run(script)


def test_a_ledger_that_cannot_be_read_is_asked_again_and_nothing_counts_twice() -> None:
    async def script(one: Stand) -> None:
        part = Part.of(tpd(100))
        one.history.error = LedgerUnavailable("the disk is full")
        telling = [asyncio.create_task(one.past.tell([part])) for _ in range(2)]
        await asyncio.sleep(0)
        part.add(4, int(WALL_S * US), labels_at(WALL_S))
        for each in telling:
            with pytest.raises(LedgerUnavailable):
                await each
        assert not part.counts
        one.history.error = None
        one.history.note(WEB, Unit.TOKENS, "me", WALL_S, 4)  # it was recorded meanwhile
        await one.past.tell([part])
        assert part.settled == 4

    run(script)


def test_a_midnight_meanwhile_leaves_the_day_before_behind() -> None:
    async def script(one: Stand) -> None:
        part = Part.of(tpd(100))
        one.history.note(WEB, Unit.TOKENS, "me", WALL_S, 30)
        telling = asyncio.create_task(one.past.tell([part]))
        await asyncio.sleep(0)
        part.add(4, int(WALL_S * US), Labels(str(int(LABEL) + 1), labels_at(WALL_S).month))
        await telling
        assert (part.known, part.settled) == (True, 4)

    run(script)


def test_nothing_is_asked_of_what_has_no_past_or_while_redis_is_gone() -> None:
    async def script(one: Stand) -> None:
        place, deployment = Part.of(parallel(5)), Part.of(rpm(5, TARGET))
        await one.past.tell([place, deployment])
        assert place.known
        assert deployment.known
        one.link.up = False
        part = Part.of(tpd(100))
        await one.past.tell([part])
        assert not part.known
        assert (one.history.asked, one.link.waiting) == ([], [])

    run(script)


def test_a_redis_that_goes_meanwhile_is_told_next_time() -> None:
    async def script(one: Stand) -> None:
        part = Part.of(tpd(100))
        one.history.note(WEB, Unit.TOKENS, "dead", WALL_S, 30)
        telling = asyncio.create_task(one.past.tell([part]))
        await asyncio.sleep(0)
        one.link.up = False
        with pytest.raises(StoreUnavailable):
            await telling
        one.link.up = True
        await one.past.tell([part])
        assert one.link.words[-1][-1] == 30

    run(script)


def test_a_redis_that_came_back_empty_meanwhile_is_told_at_once() -> None:
    async def script(one: Stand) -> None:
        part = Part.of(tpd(100))
        telling = asyncio.create_task(one.past.tell([part]))
        await asyncio.sleep(0)
        one.link.epoch = "second"
        await telling
        assert part.epoch == "second"
        assert len(one.history.asked) == 2

    run(script)
