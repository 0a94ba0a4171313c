"""The contract of the port, which every store keeps: `stores.py` names them."""

from __future__ import annotations

import asyncio

import pytest

from proxy.limits import NOTHING, Claim, Limit, ScopeKind, Spent, Unit, Window
from tests.store.stores import (
    LEARNING,
    STORES,
    TARGET,
    TEAM,
    TIMED,
    USER,
    WEB,
    Opening,
    Stand,
    budget,
    claims,
    let_in,
    parallel,
    refused,
    rpd,
    rpm,
    run,
    tpd,
    tpm,
)

every = pytest.mark.parametrize("opening", STORES.values(), ids=STORES)
learning = pytest.mark.parametrize("opening", LEARNING.values(), ids=LEARNING)
timed = pytest.mark.parametrize("opening", TIMED.values(), ids=TIMED)

COUNTED = [tpm(100), tpd(100), *(budget(w, 100) for w in (Window.DAY, Window.MONTH, Window.TOTAL))]
counted = pytest.mark.parametrize("limit", COUNTED, ids=[each.word for each in COUNTED])


def spent(limit: Limit, amount: int) -> Spent:
    return Spent(tokens=amount) if limit.unit is Unit.TOKENS else Spent(nano_usd=amount)


# Requests and places


@every
@pytest.mark.parametrize("limit", [rpm(2), rpd(2), parallel(2)], ids=lambda each: each.word)
def test_as_many_are_let_in_as_the_limit_says(opening: Opening, limit: Limit) -> None:
    async def script(stand: Stand) -> None:
        for number, used in ((1, 1), (2, 2)):
            (standing,) = let_in(await stand.store.admit(f"r{number}", [limit]))
            assert (standing.used, standing.remaining) == (used, 2 - used)
        refusal = refused(await stand.store.admit("r3", [limit]))
        assert (refusal.limit, refusal.used, refusal.wanted) == (limit, 2, 1)

    run(opening, script)


@every
def test_a_place_is_free_again_when_its_request_leaves(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.admit("r1", [parallel(1)]))
        refusal = refused(await stand.store.admit("r2", [parallel(1)]))
        assert refusal.retry_after_s is not None
        await stand.store.leave("r1")
        await stand.store.leave("r1")
        let_in(await stand.store.admit("r3", [parallel(1)]))
        refused(await stand.store.admit("r4", [parallel(1)]))

    run(opening, script)


@every
def test_who_leaves_gives_its_place_back_and_was_a_request_all_the_same(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.admit("r1", [rpm(1), parallel(1)]))
        await stand.store.leave("r1")
        assert refused(await stand.store.admit("r2", [rpm(1), parallel(1)])).limit.word == "rpm"

    run(opening, script)


@every
def test_leaving_without_having_come_is_no_error(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        await stand.store.leave("nobody")
        let_in(await stand.store.admit("r1", [parallel(1)]))
        await stand.store.leave("nobody")
        refused(await stand.store.admit("r2", [parallel(1)]))

    run(opening, script)


@every
def test_the_same_request_counts_once(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        for _ in range(3):
            let_in(await stand.store.admit("r1", [rpm(2), parallel(2)]))
        standings = await stand.store.standings([rpm(2), parallel(2)])
        assert [each.used for each in standings] == [1, 1]

    run(opening, script)


@every
def test_one_limit_without_room_takes_nothing_of_the_others(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        limits = [rpm(5), rpd(1), parallel(5), rpm(5, TEAM)]
        let_in(await stand.store.admit("r1", limits))
        assert refused(await stand.store.admit("r2", limits)).limit.word == "rpd"
        assert [each.used for each in await stand.store.standings(limits)] == [1, 1, 1, 1]

    run(opening, script)


@every
def test_every_scope_counts_for_itself(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.admit("r1", [rpm(1), rpm(9, TEAM)]))
        let_in(await stand.store.admit("r2", [rpm(1, USER), rpm(9, TEAM)]))
        refused(await stand.store.admit("r3", [rpm(1), rpm(9, TEAM)]))
        (of_team,) = await stand.store.standings([rpm(9, TEAM)])
        assert of_team.used == 2

    run(opening, script)


@every
def test_a_limit_of_nothing_lets_nobody_in_and_no_waiting_helps(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        assert refused(await stand.store.admit("r1", [rpm(0)])).retry_after_s is None

    run(opening, script)


@every
def test_nothing_is_asked_of_who_has_no_limits(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        assert await stand.store.admit("r1", []) == ()
        assert await stand.store.reserve("r1.1", [], [WEB]) == ()
        await stand.store.settle("r1.1", Spent(5, 5))
        await stand.store.leave("r1")
        assert await stand.store.standings([]) == ()

    run(opening, script)


# Reservations


@every
@counted
def test_what_is_set_aside_is_not_there_for_others(opening: Opening, limit: Limit) -> None:
    async def script(stand: Stand) -> None:
        (standing,) = let_in(await stand.store.reserve("a", claims(60, limit), [WEB]))
        assert (standing.used, standing.remaining) == (60, 40)
        refusal = refused(await stand.store.reserve("b", claims(41, limit), [WEB]))
        assert (refusal.used, refusal.remaining, refusal.wanted) == (60, 40, 41)
        let_in(await stand.store.reserve("c", claims(40, limit), [WEB]))

    run(opening, script)


@every
@counted
def test_settling_replaces_what_was_set_aside(opening: Opening, limit: Limit) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(100, limit), [WEB]))
        await stand.store.settle("a", spent(limit, 30))
        refused(await stand.store.reserve("b", claims(71, limit), [WEB]))
        let_in(await stand.store.reserve("c", claims(70, limit), [WEB]))

    run(opening, script)


@every
@counted
def test_settling_twice_or_what_is_not_there_changes_nothing(
    opening: Opening, limit: Limit
) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(50, limit), [WEB]))
        for _ in range(3):
            await stand.store.settle("a", spent(limit, 20))
            await stand.store.settle("nobody", spent(limit, 20))
        (standing,) = await stand.store.standings([limit])
        assert standing.used == 20

    run(opening, script)


@every
@counted
def test_more_than_was_set_aside_is_charged_in_full(opening: Opening, limit: Limit) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(50, limit), [WEB]))
        await stand.store.settle("a", spent(limit, 130))
        (standing,) = await stand.store.standings([limit])
        assert (standing.used, standing.remaining) == (130, 0)
        assert refused(await stand.store.reserve("b", claims(1, limit), [WEB])).used == 130

    run(opening, script)


@every
@counted
def test_what_is_released_is_as_if_it_had_not_been(opening: Opening, limit: Limit) -> None:
    async def script(stand: Stand) -> None:
        for number in range(5):
            let_in(await stand.store.reserve(f"a{number}", claims(100, limit), [WEB]))
            await stand.store.settle(f"a{number}", NOTHING)
        (standing,) = await stand.store.standings([limit])
        assert (standing.used, standing.reset_s) == (0, 0.0)

    run(opening, script)


@every
def test_the_same_reservation_takes_once(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        for _ in range(3):
            let_in(await stand.store.reserve("a", claims(60, tpm(100)), [WEB]))
        (standing,) = await stand.store.standings([tpm(100)])
        assert standing.used == 60

    run(opening, script)


@every
def test_a_reservation_is_of_all_its_limits_or_of_none(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        wanted = [Claim(tpm(1000), 80), Claim(tpd(1000, TEAM), 80), Claim(budget(Window.DAY, 5), 9)]
        refusal = refused(await stand.store.reserve("a", wanted, [WEB, TEAM]))
        assert refusal.limit.word == "budget_usd.day"
        limits = [each.limit for each in wanted]
        assert [each.used for each in await stand.store.standings(limits)] == [0, 0, 0]

    run(opening, script)


@every
def test_more_than_there_ever_is_has_no_time_to_wait_for(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        assert (
            refused(await stand.store.reserve("a", claims(101, tpm(100)), [WEB])).retry_after_s
            is None
        )

    run(opening, script)


@every
def test_what_stands_in_the_way_of_a_total_does_not_come_back(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        limit = budget(Window.TOTAL, 100)
        let_in(await stand.store.reserve("a", claims(90, limit), [WEB]))
        # It may be settled with less in a moment.
        assert refused(await stand.store.reserve("b", claims(20, limit), [WEB])).retry_after_s
        await stand.store.settle("a", Spent(nano_usd=90))
        assert (
            refused(await stand.store.reserve("b", claims(20, limit), [WEB])).retry_after_s is None
        )

    run(opening, script)


@every
def test_a_settlement_counts_under_a_limit_that_came_meanwhile(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(50, tpm(100)), [WEB, TEAM]))
        await stand.store.standings([tpm(500, TEAM), budget(Window.TOTAL, 500, TEAM)])
        await stand.store.settle("a", Spent(tokens=70, nano_usd=7))
        of_team = await stand.store.standings([tpm(500, TEAM), budget(Window.TOTAL, 500, TEAM)])
        assert [each.used for each in of_team] == [70, 7]

    run(opening, script)


@every
def test_what_is_adopted_is_held_once_and_given_back_with_the_rest(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.admit("r1", [rpm(9)]))
        let_in(await stand.store.reserve("r1.1", claims(30, tpm(50)), [WEB]))
        for _ in range(2):
            stand.store.adopt("r1", [Claim(parallel(1), 1)])
            stand.store.adopt("r1.1", claims(30, tpm(50), tpd(20)))  # there is no room for that
        limits = [parallel(1), tpm(50), tpd(20)]
        assert [each.used for each in await stand.store.standings(limits)] == [1, 30, 30]
        refused(await stand.store.admit("r2", [parallel(1)]))
        await stand.store.settle("r1.1", Spent(tokens=5))
        await stand.store.leave("r1")
        assert [each.used for each in await stand.store.standings(limits)] == [0, 5, 5]

    run(opening, script)


@every
def test_another_number_for_a_limit_holds_at_once_and_forgets_nothing(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(60, tpm(100)), [WEB]))
        await stand.store.settle("a", Spent(tokens=60))
        assert refused(await stand.store.reserve("b", claims(1, tpm(50)), [WEB])).used == 60
        let_in(await stand.store.reserve("c", claims(100, tpm(200)), [WEB]))

    run(opening, script)


@every
def test_a_deployment_counts_its_calls_and_gives_places_back(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        calls, places = rpm(2, TARGET), parallel(1, TARGET)
        let_in(await stand.store.reserve("a", claims(1, calls, places), [WEB, TARGET]))
        assert (
            refused(await stand.store.reserve("b", claims(1, calls, places), [TARGET])).limit
            == places
        )
        await stand.store.settle("a", NOTHING)
        let_in(await stand.store.reserve("c", claims(1, calls, places), [TARGET]))
        await stand.store.settle("c", Spent(5, 5))
        assert (
            refused(await stand.store.reserve("d", claims(1, calls, places), [TARGET])).limit
            == calls
        )

    run(opening, script)


@every
def test_an_attempt_adopts_a_place_of_its_deployment_and_gives_it_back(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        places, tokens = parallel(1, TARGET), tpm(50, TARGET)
        let_in(await stand.store.reserve("a", [], [WEB, TARGET]))
        for _ in range(2):
            stand.store.adopt("a", claims(1, places) + claims(30, tokens))
        limits = [places, tokens]
        assert [each.used for each in await stand.store.standings(limits)] == [1, 30]
        assert refused(await stand.store.reserve("b", claims(1, places), [TARGET])).limit == places
        await stand.store.settle("a", Spent(tokens=5))
        assert [each.used for each in await stand.store.standings(limits)] == [0, 5]

    run(opening, script)


@every
def test_the_callers_own_limit_is_told_before_a_deployments(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        wanted = claims(11, tpm(10, TARGET), tpm(10))
        assert (
            refused(await stand.store.reserve("a", wanted, [WEB])).limit.scope.kind is ScopeKind.KEY
        )

    run(opening, script)


@every
def test_many_at_once_take_no_more_than_there_is(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        asked = (stand.store.admit(f"r{number}", [rpm(7), parallel(9)]) for number in range(50))
        answers = await asyncio.gather(*asked)
        assert sum(isinstance(each, tuple) for each in answers) == 7
        reserved = (stand.store.reserve(f"a{n}", claims(10, tpd(95)), [WEB]) for n in range(50))
        assert sum(isinstance(each, tuple) for each in await asyncio.gather(*reserved)) == 9

    run(opening, script)


# What was used before the store began


@learning
def test_a_store_begins_with_what_the_ledger_knows(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        wall, history = stand.store.wall(), stand.history
        history.note(WEB, Unit.TOKENS, wall - 30, 40)
        history.note(WEB, Unit.REQUESTS, wall - 30, 1)
        history.note(WEB, Unit.NANO_USD, wall - 40 * 86_400, 90)
        history.note(WEB, Unit.NANO_USD, wall - 30, 5)
        limits = [tpm(100), rpm(2), budget(Window.TOTAL, 100), budget(Window.MONTH, 100)]
        assert [each.used for each in await stand.store.standings(limits)] == [40, 1, 95, 5]
        let_in(await stand.store.admit("r1", [rpm(2)]))
        refused(await stand.store.admit("r2", [rpm(2)]))
        refused(await stand.store.reserve("a", claims(61, tpm(100)), [WEB]))
        let_in(await stand.store.reserve("a", claims(60, tpm(100)), [WEB]))

    run(opening, script)


# Time


@timed
def test_a_minute_slides(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.admit("r1", [rpm(2)]))
        stand.pass_(20)
        let_in(await stand.store.admit("r2", [rpm(2)]))
        stand.pass_(39.5)
        refusal = refused(await stand.store.admit("r3", [rpm(2)]))
        assert refusal.retry_after_s == pytest.approx(0.5)
        assert refusal.reset_s == pytest.approx(20.5)
        stand.pass_(0.5)
        (standing,) = let_in(await stand.store.admit("r3", [rpm(2)]))
        assert standing.used == 2
        assert standing.reset_s == pytest.approx(60)
        refused(await stand.store.admit("r4", [rpm(2)]))

    run(opening, script)


@timed
def test_tokens_are_back_a_minute_after_they_were_settled(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        (first,) = let_in(await stand.store.reserve("a", claims(100, tpm(100)), [WEB]))
        assert first.reset_s == 60.0
        stand.pass_(59)
        assert (
            refused(await stand.store.reserve("b", claims(1, tpm(100)), [WEB])).retry_after_s == 1.0
        )
        await stand.store.settle("a", Spent(tokens=70))
        stand.pass_(59)
        refusal = refused(await stand.store.reserve("b", claims(31, tpm(100)), [WEB]))
        assert refusal.retry_after_s == pytest.approx(1)
        assert refusal.reset_s == pytest.approx(1)
        stand.pass_(1)
        let_in(await stand.store.reserve("b", claims(100, tpm(100)), [WEB]))

    run(opening, script)


@timed
@pytest.mark.parametrize(("window", "days"), [(Window.DAY, 1), (Window.MONTH, 31)])
def test_a_calendar_window_is_empty_when_the_next_begins(
    opening: Opening, window: Window, days: int
) -> None:
    async def script(stand: Stand) -> None:
        assert stand.clock is not None
        stand.clock.wall_s = 1_798_761_600.0 + 3600  # 01:00 on the first of January 2027
        limit = budget(window, 100)
        let_in(await stand.store.reserve("a", claims(100, limit), [WEB]))
        await stand.store.settle("a", Spent(nano_usd=100))
        refusal = refused(await stand.store.reserve("b", claims(1, limit), [WEB]))
        left_s = days * 86_400 - 3600
        assert (refusal.retry_after_s, refusal.reset_s) == (left_s, left_s)
        stand.pass_(left_s)
        let_in(await stand.store.reserve("b", claims(100, limit), [WEB]))

    run(opening, script)


@timed
def test_what_is_open_at_midnight_counts_in_the_new_day(opening: Opening) -> None:
    async def script(stand: Stand) -> None:
        let_in(await stand.store.reserve("a", claims(80, tpd(100)), [WEB]))
        stand.pass_(86_400)
        refused(await stand.store.reserve("b", claims(21, tpd(100)), [WEB]))
        await stand.store.settle("a", Spent(tokens=30))
        let_in(await stand.store.reserve("b", claims(70, tpd(100)), [WEB]))

    run(opening, script)
