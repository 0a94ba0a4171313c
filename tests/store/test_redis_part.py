"""One process's part of a counter, on paper."""

from __future__ import annotations

import pytest

from proxy.limits import Scope, ScopeKind, Window
from proxy.store.counters import Counter
from proxy.store.redis_part import MINUTE_US, STEP_US, Part, Parts
from proxy.store.windows import Labels
from tests.store.stores import WEB, budget, parallel, rpm, tpd, tpm

TODAY, TOMORROW = Labels("20000", "24000"), Labels("20001", "24000")
NOW_US = 1000 * STEP_US


def test_its_name_says_what_is_counted_for_whom() -> None:
    assert Part.of(tpd(5)).name == "tokens:day:key:web"
    assert Part.of(budget(Window.TOTAL, 5)).name == "nano_usd:total:key:web"


def test_a_new_day_begins_at_nothing_and_an_old_one_changes_nothing() -> None:
    part = Part.of(tpd(5))
    part.add(3, NOW_US, TODAY)
    part.add(4, NOW_US, TODAY)
    assert part.settled == 7
    part.add(2, NOW_US, TOMORROW)
    assert (part.label, part.settled) == ("20001", 2)
    part.turn(TODAY)
    assert (part.label, part.settled) == ("20001", 2)
    assert part.is_before(TOMORROW, TODAY)
    assert not part.is_before(TODAY, TOMORROW)
    assert not part.is_before(TODAY, TODAY)
    assert not Part.of(tpm(5)).is_before(TOMORROW, TODAY)


def test_what_is_only_under_way_is_never_settled() -> None:
    part = Part.of(parallel(5))
    part.add(1, NOW_US, TODAY)
    assert (part.settled, part.entries) == (0, Part.of(parallel(5)).entries)


def test_entries_leave_the_minute_no_earlier_than_they_may() -> None:
    part = Part.of(tpm(5))
    part.add(3, NOW_US + 1, TODAY)
    assert part.used_lately(NOW_US + 1 + MINUTE_US) == 3
    assert part.used_lately(NOW_US + STEP_US + MINUTE_US) == 0


def test_entries_that_come_together_are_one() -> None:
    part = Part.of(tpm(5))
    for number in range(1000):
        part.add(1, NOW_US + number * 100, TODAY)
    assert sum(amount for _, amount in part.entries) == 1000
    assert len(part.entries) <= 1000 * 100 // STEP_US + 1
    part.add(0, NOW_US, TODAY)
    part.add(1, NOW_US, TODAY)  # a clock that was set back a little
    assert sum(amount for _, amount in part.entries) == 1001
    assert [at for at, _ in part.entries] == sorted(at for at, _ in part.entries)


def test_what_was_before_is_put_in_its_order() -> None:
    part = Part.of(tpm(5))
    part.add(1, NOW_US, TODAY)
    part.remember([(NOW_US - 2, 20), (NOW_US - 1, 30), (NOW_US + 5, 40)])
    assert list(part.entries) == [(NOW_US - 2, 20), (NOW_US - 1, 30), (NOW_US, 1), (NOW_US + 5, 40)]


def test_what_a_ledger_that_could_not_be_read_has_is_not_counted_here() -> None:
    part = Part.of(tpd(5))
    part.add(3, NOW_US, TODAY)
    part.unlearn()
    assert part.settled == 0


def test_a_lease_begins_anew_when_it_is_given() -> None:
    part = Part.of(tpd(500))
    lent = part.lent = Counter()
    part.grant(-1)
    assert (part.lease, part.lent) == (0, lent)
    part.grant(5)
    assert part.lease == 5
    assert [part.lent] == [None]


@pytest.mark.parametrize(("known", "label"), [(True, "20000"), (False, "")])
def test_redis_is_told_of_settled_sums_only_where_they_are_known(known: bool, label: str) -> None:
    part = Part.of(tpd(500))
    part.known, part.open, part.lease = known, 7, 2
    part.add(3, NOW_US, TODAY)
    words = ("set", "tokens:day:key:web", Window.DAY, label, 3, 7, 2)
    assert part.words(TODAY) == words


def user(number: int) -> Scope:
    return Scope(ScopeKind.USER, f"u{number}")


def test_a_part_is_found_again_and_stands_under_its_scope() -> None:
    parts = Parts()
    one, two = parts.find(tpd(5)), parts.find(tpm(5))
    assert parts.find(tpd(99)) is one
    assert list(parts.under(WEB)) == [one, two] == parts.all()
    assert list(parts.under(user(1))) == []


def test_the_longest_idle_users_are_forgotten_and_nobody_else() -> None:
    parts = Parts()
    configured = parts.find(tpd(5))
    for number in range(10):
        parts.find(rpm(5, user(number)))
    parts.find(rpm(5, user(0)))  # came again
    parts.find(rpm(5, user(1))).open = 1
    parts.find(rpm(5, user(2))).add(1, NOW_US, TODAY)
    order = [1, 2]
    for number in order:  # as if they had come first
        parts.of_scope = {user(number): parts.of_scope.pop(user(number)), **parts.of_scope}
    parts.forget_users(5, NOW_US)
    left = [scope.name for scope in parts.of_scope]
    assert set(left) == {"web", "u0", "u1", "u2", "u7", "u8", "u9"}
    assert parts.find(tpd(5)) is configured
    parts.forget_users(5, NOW_US + 2 * MINUTE_US)  # its minute is over
    assert "u2" not in {scope.name for scope in parts.of_scope}
    parts.forget_users(0, NOW_US + 2 * MINUTE_US)
    assert {scope.name for scope in parts.of_scope} == {"web", "u1"}
