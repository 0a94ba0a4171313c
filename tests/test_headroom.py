"""How much room a target has: what its provider says, less what was sent since."""

from __future__ import annotations

import asyncio

import pytest

from proxy.errors import LimitReached, ProxyError, UpstreamFailure
from proxy.headroom import RECORDS, Headroom
from proxy.leeway import Leeway, Need, ProviderUnit
from proxy.limits import Limit, Scope, ScopeKind, Standing, Unit, Window
from proxy.retry import Kind
from proxy.standing import ROOM_UNKNOWN, Room
from proxy.standing import Standing as Health
from proxy.types import Target
from tests.fakes import FakeClock, target

A = target("a")
REQUESTS, TOKENS = ProviderUnit.REQUESTS, ProviderUnit.TOKENS
INPUT, OUTPUT = ProviderUnit.INPUT_TOKENS, ProviderUnit.OUTPUT_TOKENS
SMALL = Need()
CAP_S = 3600.0


class Known:
    """What is known of targets, and calls whose answers say what a test says."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.headroom = Headroom(self.clock)

    def answers(self, *leeways: Leeway, which: Target = A, need: Need = SMALL) -> None:
        with self.headroom.asking(which, need) as hear:
            hear(leeways)

    def sends(self, need: Need = SMALL) -> None:
        """A call without an answer."""
        with self.headroom.asking(A, need):
            pass

    def store_says(self, unit: Unit, used: int, most: int, *, reset_s: float = 60.0) -> None:
        limit = Limit(Scope(ScopeKind.TARGET, A.identity), unit, Window.MINUTE, most, "x")
        self.headroom.heard([Standing(limit, used, reset_s)])

    def of(self, need: Need = SMALL, which: Target = A, cap_s: float = CAP_S) -> Room:
        return self.headroom.room(which, lambda target: need, cap_s=cap_s)

    def word(self, need: Need = SMALL, which: Target = A) -> str:
        return Health(room=self.of(need, which)).word()


def left(unit: ProviderUnit, remaining: int, limit: int = 100, reset_s: float = 10.0) -> Leeway:
    return Leeway(unit, remaining, limit, reset_s)


def test_of_a_target_that_nothing_is_known_of_nothing_is_said() -> None:
    assert Known().of() is ROOM_UNKNOWN


def test_a_target_without_requests_left_is_passed_over_until_its_reset() -> None:
    room = Known()
    room.answers(left(REQUESTS, 0))
    room.clock.pass_(4.0)
    assert room.of().aside_s == 6.0
    assert room.word() == "asked last for 6.0 s: 0 requests left at the provider"
    room.clock.pass_(6.0)
    assert room.of().aside_s == 0.0
    assert room.word() == "healthy"


def test_one_that_is_passed_over_does_not_rest() -> None:
    room = Known()
    room.answers(left(REQUESTS, 0))
    standing = Health(room=room.of())
    assert standing.away_s == 0.0
    assert standing.healthy


def test_a_target_is_passed_over_by_requests_that_need_more_tokens_than_are_left() -> None:
    room = Known()
    room.answers(left(TOKENS, 50))
    assert room.of(Need(prompt_tokens=20, answer_tokens=30)).aside_s == 0.0
    word = room.word(Need(prompt_tokens=20, answer_tokens=31))
    assert word == "asked last for 10 s: 50 tokens left at the provider"


def test_the_prompt_counts_for_the_input_and_any_answer_for_the_output() -> None:
    room = Known()
    long = Need(prompt_tokens=20, answer_tokens=4096)
    room.answers(left(INPUT, 20), left(OUTPUT, 1))
    assert room.of(long).aside_s == 0.0
    assert room.of(Need(prompt_tokens=21)).aside_why == "20 input tokens left at the provider"
    room.answers(left(INPUT, 20), left(OUTPUT, 0))
    assert room.of(long).aside_why == "0 output tokens left at the provider"


def test_of_several_limits_without_room_the_last_to_come_back_counts() -> None:
    room = Known()
    room.answers(left(REQUESTS, 0, reset_s=5.0), left(TOKENS, 0, reset_s=8.0))
    assert room.of().aside_s == 8.0


def test_what_was_sent_since_is_no_longer_left() -> None:
    room = Known()
    need = Need(prompt_tokens=30, answer_tokens=10)
    room.answers(left(REQUESTS, 2), left(TOKENS, 100), need=need)
    room.sends(need)
    assert room.of(need).aside_s == 0.0
    assert room.of(Need(prompt_tokens=61)).aside_why == "60 tokens left at the provider"
    room.sends(need)
    assert room.of().aside_why == "0 requests left at the provider"


def test_calls_under_way_count_before_they_are_answered() -> None:
    room = Known()
    room.answers(left(REQUESTS, 1))
    with room.headroom.asking(A, SMALL) as hear:
        assert room.of().aside_s > 0
        hear([left(REQUESTS, 5)])
        assert room.of().aside_s == 0.0


def test_a_call_that_was_sent_before_the_one_that_was_answered_is_in_what_its_answer_says() -> None:
    room = Known()
    with room.headroom.asking(A, SMALL), room.headroom.asking(A, SMALL) as hear:
        hear([left(REQUESTS, 1)])
        assert room.of().aside_s == 0.0


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    room = Known()
    with room.headroom.asking(A, SMALL) as early:
        room.answers(left(REQUESTS, 0))
        early([left(REQUESTS, 5)])
    assert room.of().aside_s == 10.0


def test_an_answer_that_was_overtaken_counts_once_the_other_is_past() -> None:
    room = Known()
    with room.headroom.asking(A, SMALL) as early:
        room.answers(left(REQUESTS, 9, reset_s=1.0))
        room.clock.pass_(1.0)
        early([left(REQUESTS, 1)])
    assert room.headroom.leeways(A) == (left(REQUESTS, 1),)


def test_a_failure_says_what_is_left_as_well() -> None:
    room = Known()
    failure = UpstreamFailure("x", kind=Kind.RATE_LIMITED)
    failure.leeways = (left(REQUESTS, 0),)
    with pytest.raises(UpstreamFailure), room.headroom.asking(A, SMALL):
        raise failure
    assert room.of().aside_s == 10.0


@pytest.mark.parametrize(
    "error",
    [
        UpstreamFailure("full", kind=Kind.FULL),
        UpstreamFailure("no price", kind=Kind.UNPRICED),
        LimitReached("of the caller"),
    ],
    ids=str,
)
def test_a_call_that_was_never_made_takes_nothing(error: ProxyError) -> None:
    room = Known()
    room.answers(left(REQUESTS, 1))
    with pytest.raises(ProxyError), room.headroom.asking(A, SMALL):
        raise error
    assert room.of().aside_s == 0.0


def test_a_call_that_was_cancelled_may_have_arrived() -> None:
    room = Known()
    room.answers(left(REQUESTS, 1))
    with pytest.raises(asyncio.CancelledError), room.headroom.asking(A, SMALL):
        raise asyncio.CancelledError
    assert room.of().aside_s == 10.0


def test_without_a_reset_nobody_is_passed_over() -> None:
    room = Known()
    room.answers(Leeway(REQUESTS, 0, 100))
    assert room.of().aside_s == 0.0
    assert room.of().share == 0.0


def test_nobody_is_passed_over_for_longer_than_a_retry_after_is_believed() -> None:
    room = Known()
    room.answers(left(REQUESTS, 0, reset_s=20_000.0))
    assert room.of(cap_s=60.0).aside_s == 60.0
    room.clock.pass_(60.0)
    assert room.of(cap_s=60.0).aside_s == 0.0


def test_what_the_provider_said_is_told_until_its_reset() -> None:
    room = Known()
    said = (left(REQUESTS, 7, reset_s=3.0), Leeway(TOKENS, 9))
    room.answers(*said)
    assert room.headroom.leeways(A) == said
    room.clock.pass_(3.0)
    assert room.headroom.leeways(A) == said[1:]
    room.clock.pass_(57.0)
    assert room.headroom.leeways(A) == ()
    assert room.headroom.leeways(target("b")) == ()


def test_the_share_that_is_left_is_the_smallest_of_all_limits() -> None:
    room = Known()
    limited = target("a", rpm=10, tpm=1000)
    room.answers(left(REQUESTS, 90), left(TOKENS, 80))
    assert room.of(which=limited).share == 0.8
    room.store_says(Unit.REQUESTS, 3, 10)
    assert room.of(which=limited).share == 0.7
    room.store_says(Unit.TOKENS, 400, 1000)
    assert room.of(which=limited).share == 0.6
    assert room.word(which=limited) == "healthy, 60% of its limits left"


def test_the_share_goes_by_the_limits_of_the_file_in_force() -> None:
    room = Known()
    room.store_says(Unit.REQUESTS, 5, 10)
    assert room.of(which=target("a", rpm=20)).share == 0.75
    assert room.of(which=target("a", rpm=0)).share == 0.0
    assert room.of(which=target("a")).share is None


def test_a_share_is_never_above_one_nor_below_none() -> None:
    room = Known()
    room.answers(left(REQUESTS, 500))
    assert room.of().share == 1.0
    room.answers(left(REQUESTS, 0))
    room.sends()
    assert room.of().share == 0.0


def test_what_is_used_of_its_own_limits_comes_back_evenly() -> None:
    room = Known()
    limited = target("a", rpm=10)
    room.store_says(Unit.REQUESTS, 8, 10, reset_s=40.0)
    room.clock.pass_(20.0)
    assert room.of(which=limited).share == 0.6
    room.clock.pass_(100.0)
    assert room.of(which=limited).share == 1.0


def test_what_an_attempt_did_not_take_is_free_at_once() -> None:
    room = Known()
    limited = target("a", tpm=1000)
    room.headroom.settled(limited, freed_tokens=500)
    room.store_says(Unit.TOKENS, 700, 1000)
    room.headroom.settled(limited, freed_tokens=500)
    assert room.of(which=limited).share == 0.8
    room.headroom.settled(limited, freed_tokens=900)
    assert room.of(which=limited).share == 1.0


def test_limits_of_callers_and_places_for_parallel_calls_are_no_share() -> None:
    room = Known()
    room.store_says(Unit.PARALLEL, 9, 10)
    caller = Limit(Scope(ScopeKind.KEY, A.identity), Unit.REQUESTS, Window.MINUTE, 10, "rpm")
    room.headroom.heard([Standing(caller, 9, 60.0)])
    assert room.of(which=target("a", rpm=10, max_parallel=10)).share is None


def test_of_endless_names_those_that_were_not_asked_for_longest_are_forgotten() -> None:
    room = Known()
    room.answers(left(REQUESTS, 5))
    for number in range(RECORDS - 1):
        room.answers(which=target(str(number)))
    assert room.headroom.leeways(A)
    room.sends()  # now it is the last
    room.answers(which=target("one more"))
    assert room.headroom.leeways(A)
    for number in range(RECORDS):
        room.answers(which=target(f"other {number}"))
    assert not room.headroom.leeways(A)
    assert len(room.headroom._records) == RECORDS
