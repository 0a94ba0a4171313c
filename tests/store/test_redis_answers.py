"""What the numbers of the script mean."""

from __future__ import annotations

import pytest

from proxy.limits import Limit, Window
from proxy.store.redis_answers import refusal_of, standings_of
from proxy.store.windows import US
from tests.store.stores import TARGET, budget, claims, parallel, rpd, rpm, tpd, tpm

WALL_S = 1_798_761_600.0 + 3600  # 01:00 on the first of January 2027
DAY_LEFT_S, MONTH_LEFT_S = 86_400 - 3600, 31 * 86_400 - 3600


@pytest.mark.parametrize(
    ("limit", "facts", "used", "reset_s"),
    [
        (tpm(10), [7, 7, 0, 20 * US], 7, 20.0),
        (tpm(10), [7, 5, 2, 20 * US], 7, 60.0),
        (tpm(10), [0, 0, 0, 0], 0, 0.0),
        (tpm(10), [5, 5, 0, -3], 5, 0.0),
        (tpd(10), [7, 7, 0, 0], 7, DAY_LEFT_S),
        (tpd(10), [7, 0, 7, 0], 7, DAY_LEFT_S),
        (tpd(100), [1, 0, 0, 0], 1, 0.0),  # leased, which comes back to nobody
        (budget(Window.MONTH, 10), [7, 7, 0, 0], 7, MONTH_LEFT_S),
        (budget(Window.TOTAL, 10), [7, 7, 0, 0], 7, 0.0),
        (parallel(10), [3, 0, 3, 0], 3, 0.0),
    ],
)
def test_a_standing_says_what_is_used_and_when_it_is_back(
    limit: Limit, facts: list[int], used: int, reset_s: float
) -> None:
    (standing,) = standings_of(claims(0, limit), facts, WALL_S)
    assert (standing.limit, standing.used, standing.reset_s) == (limit, used, reset_s)


def test_standings_are_in_the_order_of_the_claims() -> None:
    found = standings_of(claims(0, tpm(10), tpd(20)), [1, 1, 0, 0, 2, 2, 0, 0], WALL_S)
    assert [(each.limit, each.used) for each in found] == [(tpm(10), 1), (tpd(20), 2)]


@pytest.mark.parametrize(
    ("limit", "amount", "facts", "retry_after_s"),
    [
        (rpm(10), 1, [10, 10, 0, 59 * US, 4 * US], 4.0),
        (tpm(10), 3, [9, 2, 7, 59 * US, 4 * US], 4.0),
        (tpm(10), 4, [9, 2, 7, 59 * US, 4 * US], 1.0),  # only reservations stand in the way
        (tpm(10), 11, [0, 0, 0, 0, 0], None),
        (rpd(10), 1, [10, 10, 0, 0, 0], DAY_LEFT_S),
        (tpd(10), 5, [9, 1, 8, 0, 0], 1.0),
        (budget(Window.MONTH, 10), 1, [10, 10, 0, 0, 0], MONTH_LEFT_S),
        (budget(Window.TOTAL, 10), 1, [10, 10, 0, 0, 0], None),
        (budget(Window.TOTAL, 10), 1, [10, 0, 10, 0, 0], 1.0),
        (parallel(2), 1, [2, 0, 2, 0, 0], 1.0),
    ],
)
def test_a_refusal_says_when_there_is_room(
    limit: Limit, amount: int, facts: list[int], retry_after_s: float | None
) -> None:
    refusal = refusal_of(claims(amount, limit), [1, *facts], WALL_S)
    assert (refusal.limit, refusal.used, refusal.wanted) == (limit, facts[0], amount)
    assert refusal.retry_after_s == retry_after_s


def test_of_several_refusals_the_worst_of_the_callers_own_is_told() -> None:
    asked = claims(5, tpm(10, TARGET), tpm(10), tpd(10))
    facts = [1, 9, 9, 0, US, US, 2, 9, 9, 0, 7 * US, 7 * US, 3, 9, 9, 0, 0, 0]
    assert refusal_of(asked, facts, WALL_S).limit == tpd(10)
    assert refusal_of(asked, facts[:12], WALL_S).limit == tpm(10)
    assert refusal_of(asked, facts[:6], WALL_S).limit == tpm(10, TARGET)
