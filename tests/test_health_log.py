"""What the log says of rests: each once, when it begins and when it is over, and no secret."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import orjson
import pytest

from proxy.errors import UpstreamFailure
from proxy.health import Health
from proxy.log import Log
from proxy.policy import RingPolicy
from proxy.retry import Kind
from proxy.types import Target
from tests.fakes import Fails, FakeClock, limited, target

A = target("a")
SECRET = "sk-secret-0123456789"


class Ward:
    """Targets whose attempts end as a test says, and what the log says of them."""

    def __init__(self, **policy: Any) -> None:
        self.clock = FakeClock()
        self.written: list[bytes] = []
        self.health = Health(self.clock, Log(self.written.append, self.clock))
        self.policy = RingPolicy.model_validate(policy)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines so far, without their time."""
        return [
            {name: value for name, value in orjson.loads(line).items() if name != "time"}
            for line in self.written
        ]

    @property
    def said(self) -> list[tuple[str, float]]:
        """What each line is about, and its seconds: of the rest, or since it began."""
        seconds = {"target_rests": "rest_s", "target_returns": "away_s"}
        return [(line["event"], line[seconds[line["event"]]]) for line in self.lines]

    def fails(self, how: Kind | Fails, which: Target = A) -> None:
        failing = how if isinstance(how, Fails) else Fails(how)
        with suppress(UpstreamFailure), self.health.watch(which, self.policy) as watch:
            assert watch is not None
            raise failing.failure()

    def answers(self, which: Target = A, *, after_s: float = 0.0) -> None:
        with self.health.watch(which, self.policy) as watch:
            assert watch is not None
            self.clock.pass_(after_s)
            watch.answered(streamed=True)


def test_a_breaker_that_opens_is_a_warning_with_the_reason_and_its_return_a_line() -> None:
    ward = Ward(breaker={"failures": 2})
    ward.fails(Fails(Kind.TRANSIENT, 500))
    assert ward.lines == []
    ward.fails(Fails(Kind.TRANSIENT, 500))
    assert ward.lines == [
        {
            "event": "target_rests",
            "level": "warning",
            "target": "a",
            "kind": "transient",
            "rest_s": 10.0,
            "reason": "resting 10 s: 2 failures in a row, last an error of its own (500)",
        }
    ]
    ward.clock.pass_(12)
    ward.answers(after_s=1.0)
    ward.answers()
    assert ward.lines[1:] == [
        {"event": "target_returns", "level": "info", "target": "a", "away_s": 13.0}
    ]


def test_a_probe_that_fails_is_a_rest_of_its_own_and_the_return_counts_from_the_first() -> None:
    ward = Ward(breaker={"failures": 1})
    for pause_s in (10, 20, 0):
        ward.fails(Kind.UNREACHABLE)
        ward.clock.pass_(pause_s)
    ward.clock.pass_(30)
    ward.answers()
    assert ward.said == [
        ("target_rests", 10.0),
        ("target_rests", 20.0),
        ("target_rests", 30.0),
        ("target_returns", 60.0),
    ]


@pytest.mark.parametrize("kind", [Kind.CREDENTIAL, Kind.EXHAUSTED])
def test_a_long_rest_is_told_with_its_kind(kind: Kind) -> None:
    ward = Ward()
    ward.fails(kind)
    (line,) = ward.lines
    assert (line["level"], line["kind"], line["rest_s"]) == ("warning", kind.value, 300.0)


def test_the_answers_of_one_limit_are_one_line() -> None:
    ward = Ward()
    with ExitStack() as together:
        for _ in range(100):
            together.enter_context(suppress(UpstreamFailure))
            together.enter_context(ward.health.watch(A, ward.policy))
            together.push(_raise_limited(ward))
    assert len(ward.lines) == 1
    for _ in range(100):
        ward.fails(limited(20.0))
    assert len(ward.lines) == 1


def _raise_limited(ward: Ward) -> Any:
    def leave(*_: object) -> bool:
        ward.clock.pass_(0.01)
        raise limited(20.0).failure()

    return leave


def test_a_rest_that_becomes_a_much_longer_one_is_told_again() -> None:
    ward = Ward(breaker={"failures": 1})
    ward.fails(limited(20.0))
    ward.fails(Kind.TRANSIENT)
    ward.clock.pass_(10)
    ward.fails(Kind.EXHAUSTED)
    assert [(line["kind"], line["rest_s"]) for line in ward.lines] == [
        ("rate_limited", 20.0),
        ("exhausted", 300.0),
    ]


def test_a_short_cooldown_is_no_news_and_neither_is_the_answer_after_it() -> None:
    ward = Ward()
    for _ in range(50):
        ward.fails(limited(2.0))
        ward.clock.pass_(2)
        ward.answers()
    assert ward.lines == []


def test_a_breaker_that_opens_for_slowness_says_so_when_it_does() -> None:
    ward = Ward(breaker={"failures": 1, "slow": 3})
    ward.answers(after_s=4.0)
    (line,) = ward.lines
    assert (line["kind"], line["rest_s"]) == ("slow", 10.0)


def test_an_answer_from_before_the_rest_is_no_return() -> None:
    ward = Ward(breaker={"failures": 1})
    with ward.health.watch(A, ward.policy) as before:
        assert before is not None
        ward.fails(Kind.TRANSIENT)
        before.answered(streamed=True)
    assert ward.said == [("target_rests", 10.0)]


def test_a_straggler_that_fails_while_another_probes_begins_no_rest() -> None:
    ward = Ward(breaker={"failures": 1})
    with ExitStack() as probing:
        with suppress(UpstreamFailure), ward.health.watch(A, ward.policy):
            ward.fails(Kind.TRANSIENT)
            ward.clock.pass_(10)
            probing.enter_context(ward.health.watch(A, ward.policy))
            raise Fails(Kind.TRANSIENT).failure()
        assert ward.said == [("target_rests", 10.0)]


@pytest.mark.parametrize("kind", [Kind.CALLER, Kind.DIALECT, Kind.IMPATIENT, Kind.TRANSIENT])
def test_what_begins_no_rest_is_no_line(kind: Kind) -> None:
    ward = Ward()
    ward.fails(kind)
    ward.answers()
    assert ward.lines == []


def test_names_that_a_stranger_invents_under_a_wildcard_are_one_line() -> None:
    ward = Ward()
    for number in range(500):
        invented = target("any/*", identity=f"{number}", model=f"invented-{number}")
        known = target("any/*", identity="known", model="known")
        ward.fails(Kind.MISSING, invented)
        ward.answers(known)
    assert ward.said == [("target_rests", 5.0)]


def test_no_word_of_a_provider_is_in_a_line() -> None:
    ward = Ward(breaker={"failures": 1})
    for kind in Kind:
        ward.fails(Fails(kind, 400, 60.0, SECRET, SECRET, SECRET), target(kind.value))
    assert len(ward.lines) > 5
    assert SECRET.encode() not in b"".join(ward.written)


def test_without_a_log_nothing_is_said() -> None:
    clock = FakeClock()
    health, policy = Health(clock), RingPolicy()
    with suppress(UpstreamFailure), health.watch(A, policy):
        raise Fails(Kind.CREDENTIAL).failure()
    assert not health.standing(A, policy).healthy
