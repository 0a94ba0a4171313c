"""Whose turn it is, and that nobody's turn is forgotten or counted twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from proxy.retry import Kind
from proxy.turns import GROUPS, Turns
from proxy.types import Ring, Strategy
from tests.fakes import Bench, answer, ask, group

ROUND = Strategy.ROUND_ROBIN


def test_each_request_of_a_group_has_the_next_turn() -> None:
    turns, m, n = Turns(), group("m", "a", strategy=ROUND), group("n", "b", strategy=ROUND)
    assert [turns.take(each) for each in (m, m, n, m, n)] == [0, 1, 0, 2, 1]
    assert (turns.of(m), turns.of(m), turns.of(n)) == (3, 3, 2), "to look is not to take"


def test_no_other_strategy_counts_any() -> None:
    turns = Turns()
    for strategy in set(Strategy) - {ROUND}:
        assert [turns.take(group("m", "a", strategy=strategy)) for _ in range(2)] == [0, 0]


def test_of_endless_names_the_one_that_was_not_asked_for_longest_is_forgotten() -> None:
    turns, kept = Turns(), group("kept", "a", strategy=ROUND)
    first = group("first", "a", strategy=ROUND)
    turns.take(first)
    turns.take(kept)
    for number in range(GROUPS - 1):
        turns.take(kept)
        turns.take(group(f"name {number}", "a", strategy=ROUND))
    assert turns.of(first) == 0
    assert turns.of(kept) == GROUPS


def test_a_group_has_its_own_turns_however_often_others_fall_back_to_it() -> None:
    own = group("m", "a", "b", strategy=ROUND)
    other = Ring("o", (group("o", "x", strategy=ROUND), own))
    scripts = {"x": [answer()] * 4, "a": [answer()] * 2, "b": [answer()] * 2}
    bench = Bench(scripts, ring=Ring("m", (own,)), others=[other])

    async def main() -> None:
        for model in "momomomo":
            await bench.serve(ask(model=model))

    asyncio.run(main())
    assert bench.asked == ["a", "x", "b", "x", "a", "x", "b", "x"]


def test_a_session_takes_nobodys_turn() -> None:
    ring = Ring("m", (group("m", "a", "b", strategy=ROUND),))
    bench = Bench({label: [answer()] * 6 for label in "ab"}, ring=ring)

    async def main() -> None:
        for wishes in ({}, {"session": "s"}) * 4:
            await bench.run(ask(wishes=wishes))

    asyncio.run(main())
    assert bench.asked[::2] == ["a", "b", "a", "b"]
    assert len(set(bench.asked[1::2])) == 1


def test_a_fallback_group_is_asked_in_turns_though_nobody_asks_for_itself() -> None:
    spare = group("spare", "b", "c", "d", strategy=ROUND)
    ring = Ring("m", (group("m", "a", strategy=ROUND), spare))
    scripts: dict[str, list[Any]] = {label: [answer()] * 3 for label in "bcd"}
    scripts["a"] = [Kind.UNREACHABLE] * 9
    bench = Bench(scripts, ring=ring, breaker={"failures": 100, "min_calls": 100})

    async def main() -> None:
        for _ in range(9):
            await bench.run()

    asyncio.run(main())
    assert Counter(bench.asked) == {"a": 9, "b": 3, "c": 3, "d": 3}
