"""What the store in process promises beside the contract: the past, and what goes wrong with it."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from proxy.limits import Limit, Scope, ScopeKind, Spent, Unit, Window
from proxy.store import LedgerUnavailable
from proxy.store import memory as memory_module
from proxy.store.memory import MemoryStore
from tests.fakes import FakeClock
from tests.store.stores import (
    TARGET,
    WEB,
    FakeHistory,
    Stand,
    budget,
    claims,
    let_in,
    memory,
    refused,
    rpd,
    rpm,
    run,
    tpd,
    tpm,
)


def test_the_past_is_asked_for_once_however_many_wait_for_it() -> None:
    async def script(stand: Stand) -> None:
        stand.history.gate = asyncio.Event()
        asked = [asyncio.ensure_future(stand.store.admit(f"r{n}", [rpd(3)])) for n in range(9)]
        await asyncio.sleep(0)
        stand.history.gate.set()
        assert sum(isinstance(each, tuple) for each in await asyncio.gather(*asked)) == 3
        assert len(stand.history.asked) == 1

    run(memory, script)


def test_who_stops_waiting_for_the_past_does_not_keep_it_from_others() -> None:
    async def script(stand: Stand) -> None:
        stand.history.note(WEB, Unit.REQUESTS, stand.store.wall(), 2)
        stand.history.gate = asyncio.Event()
        first, second = (
            asyncio.ensure_future(stand.store.admit(f"r{n}", [rpd(3)])) for n in range(2)
        )
        await asyncio.sleep(0)
        first.cancel()
        with suppress(asyncio.CancelledError):
            await first
        stand.history.gate.set()
        (standing,) = let_in(await second)
        assert standing.used == 3

    run(memory, script)


def test_while_the_past_cannot_be_read_nobody_is_let_in_and_then_all_is_known() -> None:
    async def script(stand: Stand) -> None:
        stand.history.note(WEB, Unit.REQUESTS, stand.store.wall(), 1)
        stand.history.trouble = True
        for _ in range(3):
            with pytest.raises(LedgerUnavailable):
                await stand.store.admit("r1", [rpd(2)])
        stand.history.trouble = False
        let_in(await stand.store.admit("r1", [rpd(2)]))
        refused(await stand.store.admit("r2", [rpd(2)]))

    run(memory, script)


@pytest.mark.parametrize("limit", [tpm(100), tpd(100)], ids=["minute", "day"])
def test_what_is_settled_while_the_past_cannot_be_read_counts_once(limit: Limit) -> None:

    async def script(stand: Stand) -> None:
        history, store = stand.history, stand.store
        let_in(await store.reserve("a", [], [WEB]))  # begun when there was no such limit
        history.gate, history.trouble = asyncio.Event(), True
        waits = asyncio.ensure_future(store.standings([limit]))
        await asyncio.sleep(0)
        await store.settle("a", Spent(tokens=40))
        history.note(WEB, Unit.TOKENS, store.wall(), 40)  # the ledger keeps it until it can write
        history.gate.set()
        with pytest.raises(LedgerUnavailable):
            await waits
        history.trouble = False
        (standing,) = await store.standings([limit])
        assert standing.used == 40

    run(memory, script)


def test_what_is_settled_while_the_past_is_read_counts_beside_it() -> None:
    async def script(stand: Stand) -> None:
        history, store = stand.history, stand.store
        history.note(WEB, Unit.TOKENS, store.wall() - 5, 10)
        let_in(await store.reserve("a", [], [WEB]))
        history.gate = asyncio.Event()
        waits = asyncio.ensure_future(store.standings([tpm(100), tpd(100)]))
        await asyncio.sleep(0)
        await store.settle("a", Spent(tokens=40))
        history.note(WEB, Unit.TOKENS, store.wall(), 40)
        history.gate.set()
        assert [each.used for each in await waits] == [50, 50]

    run(memory, script)


def test_a_day_that_turns_while_its_past_is_read_is_read_anew() -> None:
    async def script(stand: Stand) -> None:
        history, store = stand.history, stand.store
        assert stand.clock is not None
        stand.clock.wall_s -= stand.clock.wall_s % 86_400 + 10
        history.note(WEB, Unit.TOKENS, store.wall(), 60)
        let_in(await store.reserve("a", [], [WEB]))
        history.gate = asyncio.Event()
        waits = asyncio.ensure_future(store.standings([tpd(100)]))
        await asyncio.sleep(0)
        stand.pass_(20)
        await store.settle("a", Spent(tokens=40))
        history.note(WEB, Unit.TOKENS, store.wall(), 40)
        history.gate.set()
        assert [each.used for each in await waits] == [40]

    run(memory, script)


def test_the_wall_clock_may_be_set_back_and_forth_without_letting_more_in() -> None:
    async def script(stand: Stand) -> None:
        assert stand.clock is not None
        used = 0
        for step_s in (0, -3600, 3600, 3600, -3600):
            stand.clock.wall_s += step_s
            for number in range(20):
                answer = await stand.store.admit(f"r{step_s}{used}{number}", [rpm(10), rpd(12)])
                used += isinstance(answer, tuple)
        assert used == 10

    run(memory, script)


def test_what_a_clock_ahead_wrote_down_is_back_after_a_minute() -> None:
    async def script(stand: Stand) -> None:
        stand.history.note(WEB, Unit.TOKENS, stand.store.wall() + 3600, 100)
        assert (
            refused(await stand.store.reserve("a", claims(1, tpm(100)), [WEB])).retry_after_s == 60
        )
        stand.pass_(60)
        let_in(await stand.store.reserve("a", claims(100, tpm(100)), [WEB]))

    run(memory, script)


def test_of_a_deployment_nothing_is_asked_of_the_ledger() -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(1, rpm(5, TARGET)), [TARGET]))
        assert stand.history.asked == []

    run(memory, script)


def test_a_window_is_asked_about_from_its_beginning() -> None:
    async def script(stand: Stand) -> None:
        wall = stand.store.wall()
        limits = [rpm(1), rpd(1), budget(Window.TOTAL, 1)]
        await stand.store.standings(limits)
        assert [since for _, _, since in stand.history.asked] == [
            wall - 60,
            wall - wall % 86_400,
            0.0,
        ]

    run(memory, script)


def test_users_nobody_hears_of_any_more_are_forgotten_and_found_again_in_the_ledger() -> None:
    async def script() -> None:
        clock, history = FakeClock(), FakeHistory()
        store = MemoryStore(clock, history)
        busy = Scope(ScopeKind.USER, "busy")
        let_in(await store.reserve("busy", claims(60, tpd(100, busy)), [busy]))
        idle = Scope(ScopeKind.USER, "idle")
        let_in(await store.reserve("idle", claims(60, tpd(100, idle)), [idle]))
        await store.settle("idle", Spent(tokens=60))
        history.note(idle, Unit.TOKENS, clock.wall(), 60)
        for number in range(memory_module.MOST_SCOPES):
            await store.standings([tpd(100, Scope(ScopeKind.USER, str(number)))])
        asked = len(history.asked)
        for user in (busy, idle):
            assert refused(await store.reserve("x", claims(41, tpd(100, user)), [user])).used == 60
        assert [scope for scope, _, _ in history.asked[asked:]] == [idle]

    asyncio.run(script())
