"""What a process lets in by itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from proxy.limits import Claim, Limit, Refusal, Spent
from proxy.store.redis_lease import Lent, lend
from proxy.store.redis_part import Part
from proxy.store.windows import US, Labels
from tests.store.stores import TARGET, claims, parallel, rpd, rpm, tpd, tpm

WALL_S = 1_798_761_600.0 + 3600


def part(limit: Limit, lease: int = 0) -> Part:
    found = Part.of(limit)
    found.lease = lease
    return found


def lent(
    asked: Sequence[Claim], *parts: Part, later_s: float = 0.0, in_force: bool = True
) -> tuple[Lent, ...] | Refusal | None:
    now_s, wall_s = 10.0 + later_s, WALL_S + later_s
    return lend(asked, parts, in_force=in_force, now_s=now_s, wall_s=wall_s)


def test_a_lease_is_let_in_once_and_given_back_by_what_was_not_spent() -> None:
    tokens = part(tpd(10_000), 100)
    first = lent(claims(60, tpd(10_000)), tokens)
    assert isinstance(first, tuple)
    assert lent(claims(41, tpd(10_000)), tokens) is None
    assert lent(claims(40, tpd(10_000)), tokens)
    first[0].settle(Spent(tokens=25), 10.0, WALL_S)
    assert lent(claims(36, tpd(10_000)), tokens) is None
    assert lent(claims(35, tpd(10_000)), tokens)


def test_all_of_a_request_is_let_in_or_nothing_of_it() -> None:
    tokens, requests = part(tpd(10_000), 100), part(rpd(100), 1)
    assert lent([Claim(tpd(10_000), 50), Claim(rpd(100), 2)], tokens, requests) is None
    assert tokens.lent is not None
    assert tokens.lent.used == 0
    assert lent([Claim(tpd(10_000), 50), Claim(rpd(100), 1)], tokens, requests)
    assert tokens.lent.used == 50


def test_a_request_that_was_let_in_stays_one() -> None:
    requests = part(rpd(100), 1)
    taken = lent(claims(1, rpd(100)), requests)
    assert isinstance(taken, tuple)
    taken[0].settle(Spent(), 10.0, WALL_S)
    assert lent(claims(1, rpd(100)), requests) is None


def test_a_minutes_lease_is_back_after_a_minute_and_a_new_one_at_once() -> None:
    tokens = part(tpm(10_000), 100)
    taken = lent(claims(100, tpm(10_000)), tokens)
    assert isinstance(taken, tuple)
    taken[0].settle(Spent(tokens=100), 10.0, WALL_S)
    assert lent(claims(1, tpm(10_000)), tokens, later_s=59) is None
    assert lent(claims(100, tpm(10_000)), tokens, later_s=60.1)
    tokens.grant(100)
    assert lent(claims(100, tpm(10_000)), tokens, later_s=60.1)


def test_a_lease_that_redis_may_have_forgotten_is_none() -> None:
    assert lent(claims(1, tpd(10_000)), part(tpd(10_000), 100), in_force=False) is None
    assert lent(claims(1, rpm(5, TARGET)), part(rpm(5, TARGET)), in_force=False) == ()


@pytest.mark.parametrize(
    ("limit", "amount", "wait_s", "reset_s"),
    [
        (tpm(100, TARGET), 11, 40.0, 50.0),
        (tpm(100, TARGET), 41, 50.0, 50.0),
        (tpm(100, TARGET), 61, 1.0, 50.0),
        (tpm(100, TARGET), 101, None, 50.0),
        (parallel(50, TARGET), 11, 1.0, 0.0),
    ],
)
def test_a_deployments_limit_is_kept_alone_and_its_refusal_is_told(
    limit: Limit, amount: int, wait_s: float | None, reset_s: float
) -> None:
    found, now_us = part(limit), int(WALL_S * US)
    found.open = 40
    for ago_s, used in ((20, 30), (10, 20)):
        found.add(used, now_us - ago_s * US, Labels("20000", "24000"))
    refusal = lent(claims(amount, limit), found)
    assert isinstance(refusal, Refusal)
    assert (refusal.limit, refusal.wanted) == (limit, amount)
    assert refusal.retry_after_s == (None if wait_s is None else pytest.approx(wait_s, abs=0.1))
    assert refusal.reset_s == pytest.approx(reset_s, abs=0.1)


def test_a_caller_without_a_lease_is_not_told_of_a_deployment() -> None:
    asked = [*claims(9, tpm(5, TARGET)), *claims(1, tpd(1000))]
    assert lent(asked, part(tpm(5, TARGET)), part(tpd(1000))) is None
