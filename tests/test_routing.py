"""Which targets are asked, in which order, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import UpstreamFailure
from proxy.facts import ModelFacts, Price, Rates
from proxy.retry import Kind
from proxy.routing import Plan, plan_ring
from proxy.standing import Room, Standing
from proxy.types import Group, Ring, Strategy, Target
from tests.fakes import group, target

SHUFFLE = Strategy.SIMPLE_SHUFFLE
HEALTHY = Standing()
COOLING = Standing(cooling_s=4.0)
OPEN = Standing(admits=False, open_for_s=8.0, closed=False)
HALF_OPEN = Standing(closed=False)
PROBED = Standing(admits=False, open_for_s=60.0, closed=False)


def never() -> float:
    raise AssertionError("nothing is drawn here")


def plan(
    *groups: Group,
    standings: Mapping[str, Standing] | None = None,
    chance: Callable[[], float] = never,
) -> Plan:
    known = standings or {}
    return plan_ring(Ring("m", groups), lambda t: known.get(t.label, HEALTHY), chance)


def labels(plan: Plan) -> list[str]:
    return [target.label for target in plan.targets]


def drawn(*numbers: float) -> Callable[[], float]:
    left = iter(numbers)
    return lambda: next(left)


def first_of(targets: list[Target], *, draws: int = 1000) -> Counter[str]:
    """Who comes first, over evenly spread numbers for the first draw."""

    def numbers(number: float) -> Iterator[float]:
        yield number
        while True:
            yield 0.0

    chances = (numbers((draw + 0.5) / draws) for draw in range(draws))
    return Counter(
        labels(plan(group("m", *targets, strategy=SHUFFLE), chance=each.__next__))[0]
        for each in chances
    )


def test_health_based_asks_the_targets_as_they_are_written() -> None:
    assert labels(plan(group("m", "c", "a", "b"))) == ["c", "a", "b"]


@pytest.mark.parametrize("resting", [COOLING, OPEN, PROBED])
def test_health_based_asks_the_healthy_first(resting: Standing) -> None:
    found = plan(group("m", "a", "b", "c"), standings={"a": resting})
    assert labels(found) == ["b", "c", "a"]


def test_a_target_whose_rest_is_over_gets_its_probe_at_its_written_place() -> None:
    # Behind the healthy ones it would never be asked again, and never be found well.
    assert labels(plan(group("m", "a", "b"), standings={"a": HALF_OPEN})) == ["a", "b"]


def test_those_that_rest_stand_last_of_the_whole_ring_the_soonest_back_first() -> None:
    found = plan(
        group("m", "a", "b"),
        group("n", "c"),
        standings={"a": OPEN, "b": COOLING},
    )
    assert labels(found) == ["c", "b", "a"]
    assert [step.reason for step in found.steps] == [
        "healthy",
        "resting 4.0 s",
        "resting 8.0 s",
    ]


def test_the_groups_of_a_ring_stand_one_after_the_other() -> None:
    shuffled = group("m", "a", "b", strategy=SHUFFLE)
    for number in (0.0, 0.99):
        found = labels(plan(shuffled, group("n", "c"), chance=drawn(number, 0.0)))
        assert sorted(found[:2]) == ["a", "b"]
        assert found[2] == "c"


def test_a_shuffle_without_weights_is_even() -> None:
    targets = [target(name) for name in "abcd"]
    assert first_of(targets) == {"a": 250, "b": 250, "c": 250, "d": 250}


@pytest.mark.parametrize("by", ["weight", "rpm", "tpm"])
def test_a_shuffle_follows_the_weights_or_else_the_rpm_or_else_the_tpm(by: str) -> None:
    targets = [target("a", **{by: 1}), target("b", **{by: 3})]
    assert first_of(targets) == {"a": 250, "b": 750}


def test_a_weight_outweighs_rpm_and_rpm_outweighs_tpm() -> None:
    both: list[dict[str, Any]] = [{"rpm": 1, "tpm": 9}, {"rpm": 3, "tpm": 1}]
    assert first_of([target(n, **f) for n, f in zip("ab", both, strict=True)])["a"] == 250
    weighed = [target(n, weight=w, **f) for n, w, f in zip("ab", (4.0, 1.0), both, strict=True)]
    assert first_of(weighed)["a"] == 800


def test_a_target_of_weight_zero_or_without_one_beside_weights_is_only_a_last_resort() -> None:
    targets = [target("a", weight=0.0), target("b", weight=1.0), target("c")]
    assert first_of(targets) == {"b": 1000}
    shuffled = plan(group("m", *targets, strategy=SHUFFLE), chance=lambda: 0.0)
    assert labels(shuffled) == ["b", "a", "c"]


def test_nothing_but_zero_weights_leaves_the_order_as_written() -> None:
    targets = [target(name, weight=0.0) for name in "cab"]
    found = plan(group("m", *targets, strategy=SHUFFLE), chance=lambda: 0.9)
    assert labels(found) == ["c", "a", "b"]


def test_a_shuffle_puts_those_that_rest_last() -> None:
    shuffled = group("m", "a", "b", strategy=SHUFFLE)
    assert labels(plan(shuffled, standings={"a": COOLING}, chance=lambda: 0.0)) == ["b", "a"]


def with_room(share: float | None) -> Standing:
    return Standing(room=Room(share))


def used(*targets: Target | str, shares: Mapping[str, float | None], draw: float = 0.0) -> Plan:
    standings = {label: with_room(share) for label, share in shares.items()}
    usage_based = group("m", *targets, strategy=Strategy.USAGE_BASED)
    return plan(usage_based, standings=standings, chance=lambda: draw)


def test_usage_based_asks_the_one_with_the_most_room_first() -> None:
    assert labels(used("a", "b", "c", shares={"a": 0.1, "b": 0.9, "c": 0.5})) == ["b", "c", "a"]


def test_room_that_nobody_knows_counts_as_full() -> None:
    assert labels(used("a", "b", "c", shares={"a": 0.99, "b": None, "c": 0.2})) == ["b", "a", "c"]


def test_among_equals_chance_decides() -> None:
    usage_based = group("m", "a", "b", "c", strategy=Strategy.USAGE_BASED)
    assert labels(plan(usage_based, chance=drawn(0.9, 0.1, 0.5))) == ["b", "c", "a"]
    assert labels(plan(usage_based, chance=drawn(0.1, 0.5, 0.9))) == ["a", "b", "c"]


def test_a_rank_of_its_own_stands_above_the_room() -> None:
    targets = [target("a", order=1), target("b", order=2), target("c", order=1)]
    found = used(*targets, shares={"a": 0.1, "b": 1.0, "c": 0.2})
    assert labels(found) == ["c", "a", "b"]


def test_the_healthy_are_asked_first_whatever_room_the_others_have() -> None:
    usage_based = group("m", "a", "b", strategy=Strategy.USAGE_BASED)
    standings = {"a": Standing(cooling_s=4.0, room=Room(1.0)), "b": with_room(0.01)}
    assert labels(plan(usage_based, standings=standings, chance=lambda: 0.0)) == ["b", "a"]


def in_session(session: str, *targets: Target | str, strategy: Strategy = SHUFFLE) -> list[str]:
    ring = Ring("m", (group("m", *targets, strategy=strategy),))
    return labels(plan_ring(ring, lambda t: HEALTHY, lambda: 0.5, session=session))


def test_a_session_has_one_order_whatever_is_drawn_and_whoever_else_is_there() -> None:
    sessions = [f"session {number}" for number in range(300)]
    for strategy in set(Strategy) - {Strategy.HEALTH_BASED, Strategy.COST_BASED}:
        assert in_session("s", "a", "b", "c", strategy=strategy) == in_session("s", "a", "b", "c")
    first = {each: in_session(each, "a", "b", "c")[0] for each in sessions}
    assert all(80 <= count <= 120 for count in Counter(first.values()).values())
    without = {each: in_session(each, "a", "b")[0] for each in sessions}
    assert all(without[each] == first[each] for each in sessions if first[each] != "c")
    heavy = [target("a", weight=9.0), target("b", weight=1.0)]
    assert sum(in_session(each, *heavy)[0] == "a" for each in sessions) > 250


def test_a_favourite_of_all_is_the_favourite_of_every_session() -> None:
    for number in range(10):
        found = in_session(f"{number}", "a", "b", "c", strategy=Strategy.HEALTH_BASED)
        assert found == ["a", "b", "c"]


def test_a_session_stays_with_one_of_those_that_cost_the_same() -> None:
    def costing(label: str, pico_usd: int) -> Target:
        return target(label, facts=ModelFacts(price=Price((Rates(pico_usd),))))

    alike = [costing("dear", 9), costing("a", 1), costing("b", 1)]
    firsts = {
        each: in_session(each, *alike, strategy=Strategy.COST_BASED)
        for each in ("1", "2", "3", "4")
    }
    assert {found[0] for found in firsts.values()} == {"a", "b"}
    assert all(found[2] == "dear" for found in firsts.values())
    assert firsts["1"] == in_session("1", *alike, strategy=Strategy.COST_BASED)


@pytest.mark.parametrize("by", ["weight", "rpm", "tpm"])
def test_a_target_has_its_share_of_the_sessions(by: str) -> None:
    targets = [target("a", **{by: 1}), target("b", **{by: 3})]
    firsts = Counter(in_session(str(number), *targets)[0] for number in range(1000))
    assert 700 < firsts["b"] < 800


def test_turns_are_not_wasted_on_those_who_cannot_answer() -> None:
    turns = group("m", "a", "b", "c", strategy=Strategy.ROUND_ROBIN)
    blind = {"b": "known not to take images"}
    firsts = [
        plan_ring(
            (turns,),
            lambda t: HEALTHY,
            never,
            turn=turn,
            unable=lambda t: blind.get(t.label),
        )
        .targets[0]
        .label
        for turn in range(4)
    ]
    assert firsts == ["a", "c", "a", "c"]


def test_a_place_that_stands_in_a_group_twice_has_two_chances() -> None:
    twice = [target("a"), target("a#2", identity="identity of a"), target("b")]
    assert first_of(twice) == {"a": 333, "a#2": 334, "b": 333}


FACTS: dict[Strategy, tuple[dict[str, Any], Standing, str]] = {
    Strategy.SIMPLE_SHUFFLE: ({"weight": 3.0}, HEALTHY, "healthy, weight 3"),
    Strategy.ROUND_ROBIN: ({}, HEALTHY, "healthy"),
    Strategy.HEALTH_BASED: ({"weight": 3.0}, HEALTHY, "healthy"),
    Strategy.LATENCY_BASED: ({}, Standing(expected_s=0.314), "healthy, awaited 0.31 s"),
    Strategy.LEAST_BUSY: ({}, Standing(in_flight=3), "healthy, 3 under way"),
    Strategy.COST_BASED: (
        {"facts": ModelFacts(price=Price((Rates(150_000, 600_000),)))},
        HEALTHY,
        "healthy, $0.15 and $0.6 for a million tokens",
    ),
    Strategy.USAGE_BASED: ({}, Standing(room=Room(0.5)), "healthy, 50% of its limits left"),
}


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_step_says_what_its_strategy_goes_by(strategy: Strategy) -> None:
    fields, standing, words = FACTS[strategy]
    found = plan(
        group("m", target("a", **fields), target("b", order=9), strategy=strategy),
        standings={"a": standing},
        chance=lambda: 0.0,
    )
    assert found.steps[0].reason == words
    alone = plan(group("m", target("a", **fields), strategy=strategy), standings={"a": standing})
    assert (alone.steps[0].strategy, alone.steps[0].reason) == (None, standing.word())


def test_a_step_says_what_its_strategy_does_not_know() -> None:
    for strategy, words in (
        (Strategy.LATENCY_BASED, "healthy, nobody knows how fast"),
        (Strategy.COST_BASED, "healthy, price unknown"),
    ):
        found = plan(group("m", "a", "b", strategy=strategy), chance=lambda: 0.0)
        assert [step.reason for step in found.steps] == [words, words]


def test_a_session_moves_while_its_target_rests() -> None:
    home = in_session("s", "a", "b", "c")
    ring = Ring("m", (group("m", "a", "b", "c", strategy=SHUFFLE),))
    resting = {home[0]: COOLING}
    found = plan_ring(ring, lambda t: resting.get(t.label, HEALTHY), lambda: 0.5, session="s")
    assert labels(found) == [*home[1:], home[0]]


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_target_without_room_at_its_provider_is_asked_after_those_that_have_some(
    strategy: Strategy,
) -> None:
    full, fuller = Standing(room=Room(aside_s=3.0)), Standing(room=Room(aside_s=9.0))
    found = plan(
        group("m", "a", "b", "c", strategy=strategy),
        group("n", "d"),
        standings={"a": fuller, "b": full, "c": COOLING},
        chance=lambda: 0.0,
    )
    assert labels(found) == ["d", "b", "a", "c"]
    assert found.passed_over


def test_a_target_without_room_is_asked_when_nobody_else_is_left() -> None:
    found = plan(
        group("m", "a", "b"), standings={"a": Standing(room=Room(aside_s=3.0)), "b": COOLING}
    )
    assert labels(found) == ["a", "b"]
    assert not found.passed_over


@pytest.mark.parametrize("strategy", list(Strategy))
def test_a_lower_order_is_asked_first_whatever_the_strategy_and_the_weights(
    strategy: Strategy,
) -> None:
    targets = [
        target("a", order=2, weight=100.0),
        target("b", order=1, weight=1.0),
        target("c", order=2, weight=1.0),
    ]
    found = labels(plan(group("m", *targets, strategy=strategy), chance=lambda: 0.0))
    assert found == ["b", "a", "c"]


def test_a_cooling_target_of_the_first_order_is_asked_after_a_healthy_one_of_the_second() -> None:
    targets = [target("a", order=1), target("b", order=2)]
    assert labels(plan(group("m", *targets), standings={"a": COOLING})) == ["b", "a"]


def test_an_unconfigured_target_is_left_out_and_says_which_variable_it_lacks() -> None:
    found = plan(group("m", target("a", missing="OPENAI_API_KEY"), "b"))
    assert labels(found) == ["b"]
    (left_out,) = found.left_out
    assert left_out.target.label == "a"
    assert left_out.reason == "unconfigured: OPENAI_API_KEY is not set"


def test_the_same_place_is_asked_once_where_it_stands_first() -> None:
    again = target("a#2", identity="identity of a")
    found = plan(group("m", "a", "b"), group("n", again, "c"))
    assert labels(found) == ["a", "b", "c"]
    assert [step.reason for step in found.left_out] == ["the same place stands earlier in the ring"]


def test_an_unconfigured_place_does_not_hide_its_configured_twin() -> None:
    found = plan(group("m", target("a", missing="KEY"), target("a#2", identity="identity of a")))
    assert labels(found) == ["a#2"]


def test_home_is_the_provider_that_stands_first_whoever_is_asked_first() -> None:
    first, second = target("a", provider="openai"), target("b", provider="anthropic")
    assert plan(group("m", first, second), standings={"a": COOLING}).home == "openai"
    assert plan(group("m", second), group("n", first)).home == "anthropic"


def test_an_empty_ring_is_an_empty_plan() -> None:
    assert plan(group("m")) == Plan((), (), "")


def test_a_standing_says_in_a_word_why_a_target_stands_where_it_does() -> None:
    words = [each.word() for each in (HEALTHY, HALF_OPEN, OPEN, COOLING)]
    assert words == ["healthy", "half open: one probe", "resting 8.0 s", "resting 4.0 s"]


def test_a_standing_says_why_and_how_long_a_target_rests() -> None:
    key = UpstreamFailure("x", kind=Kind.CREDENTIAL, provider_status=401)
    port = UpstreamFailure("x", kind=Kind.UNREACHABLE)
    row = "5 failures in a row"
    opened = Standing(admits=False, open_for_s=8.8, closed=False, failure=port, cause=row)
    assert Standing(cooling_s=299.0, failure=key).word() == "resting 299 s: refused our key (401)"
    assert opened.word() == "resting 8.8 s: 5 failures in a row, last unreachable"


def test_the_standing_of_a_target_is_asked_for_once() -> None:
    asked: list[str] = []

    def standing(which: Target) -> Standing:
        asked.append(which.label)
        return COOLING

    plan_ring(Ring("m", (group("m", "a", "b"), group("n", "c", "a"))), standing, never)
    assert sorted(asked) == ["a", "b", "c"]


def test_a_plan_says_when_its_first_stands_in_for_one_that_rests() -> None:
    ring = (group("m", "a", "b"), group("n", "c"))
    assert plan(*ring, standings={"a": COOLING}).passed_over
    assert plan(*ring, standings={"a": OPEN, "b": OPEN}).passed_over
    for standings in ({}, {"b": COOLING}, {"a": HALF_OPEN}, dict.fromkeys("abc", COOLING)):
        assert not plan(*ring, standings=standings).passed_over


def test_a_target_is_away_for_the_longer_of_its_cooldown_and_its_breakers_rest() -> None:
    failure = UpstreamFailure("x", kind=Kind.TRANSIENT)
    both = Standing(admits=False, cooling_s=4.0, open_for_s=8.0, closed=False, failure=failure)
    assert both.away_s == 8.0
    assert COOLING.away_s == 4.0
    assert HALF_OPEN.away_s == 0.0


TARGETS = st.builds(
    target,
    st.sampled_from("abcdefgh"),
    weight=st.none() | st.floats(0, 10),
    rpm=st.none() | st.integers(0, 100),
    order=st.integers(0, 2),
    missing=st.none() | st.just("KEY"),
)
STANDINGS = st.dictionaries(
    st.sampled_from("abcdefgh"), st.sampled_from([HEALTHY, COOLING, OPEN, HALF_OPEN])
)


@given(
    st.lists(st.lists(TARGETS, max_size=5), max_size=4),
    st.sampled_from(Strategy),
    STANDINGS,
    st.lists(st.floats(0, 1, exclude_max=True), min_size=1),
)
def test_every_configured_place_is_planned_once_and_those_that_rest_come_last(
    members: list[list[Target]],
    strategy: Strategy,
    standings: dict[str, Standing],
    numbers: list[float],
) -> None:
    left = iter(numbers * 20)
    groups = [group(str(at), *each, strategy=strategy) for at, each in enumerate(members)]
    found = plan(*groups, standings=standings, chance=lambda: next(left))
    configured = {t.identity for each in members for t in each if t.missing is None}
    assert sorted(t.identity for t in found.targets) == sorted(configured)
    assert len(found.steps) + len(found.left_out) == sum(map(len, members))
    away = [standings.get(label, HEALTHY).away_s for label in labels(found)]
    assert away == sorted(away)


def test_one_that_hangs_is_asked_after_those_that_do_not() -> None:
    found = plan(
        group("m", "a", "b", strategy=Strategy.HEALTH_BASED),
        standings={"a": Standing(hung_s=5.0)},
    )
    assert [target.label for target in found.targets] == ["b", "a"]
    assert found.passed_over
    assert found.steps[1].reason == "asked last: it has let several wait, for 5.0 s now"
