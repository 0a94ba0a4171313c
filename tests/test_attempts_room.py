"""The ring and the limits of its targets: the provider's own, and those that the file sets."""

from __future__ import annotations

import asyncio
from itertools import repeat
from typing import Any

import pytest

from proxy.errors import ProxyError, RateLimited
from proxy.leeway import Leeway, ProviderUnit
from proxy.replies import ChunkStream, Reply
from proxy.standing import Standing
from proxy.types import Call, Json, Ring, Strategy
from tests.fakes import (
    Bench,
    Gate,
    States,
    answer,
    ask,
    delta,
    finish,
    group,
    limited,
    ring,
    target,
)

EMPTY = Leeway(ProviderUnit.REQUESTS, 0, 60, reset_s=2.0)
OK = answer()


def states(step: Any, *leeways: Leeway) -> States:
    return States(step, leeways)


def tokens_left(remaining: int) -> Leeway:
    return Leeway(ProviderUnit.TOKENS, remaining, 100_000, reset_s=2.0)


def run(bench: Bench, call: Call | None = None) -> Reply:
    return asyncio.run(bench.run(call))


def refused(bench: Bench, **facts: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        run(bench, ask(**facts))
    return caught.value


def reasons(bench: Bench) -> list[str]:
    return [step.reason for step in bench.attempts.plan(bench.ring, bench.policy).steps]


def each(**limits: int) -> Ring:
    """Two targets with these limits of their own, asked as they are written."""
    return ring(target("a", **limits), target("b", **limits))


# What the provider says.


def test_a_target_that_says_it_has_no_requests_left_is_asked_after_the_others() -> None:
    bench = Bench({"a": [states(OK, EMPTY), OK], "b": [OK, OK]})
    for _ in range(3):
        run(bench)
    assert bench.asked == ["a", "b", "b"]
    assert reasons(bench) == ["healthy", "asked last for 2.0 s: 0 requests left at the provider"]
    assert bench.tally.fallbacks == 1


def test_it_is_asked_first_again_once_its_limit_is_back() -> None:
    bench = Bench({"a": [states(OK, EMPTY), OK], "b": [OK]})
    run(bench)
    run(bench)
    bench.clock.pass_(2.0)
    run(bench)
    assert bench.asked == ["a", "b", "a"]


def test_it_is_asked_all_the_same_when_nobody_else_is_left() -> None:
    bench = Bench({"a": [states(OK, EMPTY), OK], "b": [limited(30.0)]})
    run(bench)
    run(bench)
    assert bench.asked == ["a", "b", "a"]


def test_a_stream_says_it_too() -> None:
    pieces: list[Json] = [delta("t0"), finish()]
    bench = Bench({"a": [states(pieces, EMPTY)], "b": [OK]})
    asyncio.run(bench.read())
    run(bench)
    assert bench.asked == ["a", "b"]


def test_a_failure_says_it_too() -> None:
    # It cools for no time at all, but its other limit is back in two seconds only.
    bench = Bench({"a": [states(limited(0.0), EMPTY)] * 2, "b": [OK, OK]})
    run(bench)
    run(bench)
    assert bench.asked == ["a", "a", "b", "b"]


def test_a_request_that_needs_more_tokens_than_are_left_passes_it_over() -> None:
    bench = Bench({"a": [states(OK, tokens_left(500)), OK], "b": [OK]})
    run(bench)
    run(bench, ask(body={"max_tokens": 600}))
    run(bench, ask(body={"max_tokens": 100}))
    assert bench.asked == ["a", "b", "a"]


def test_an_answer_is_as_long_as_the_file_says_where_the_request_does_not() -> None:
    long = target("a", defaults={"max_tokens": 600})
    bench = Bench({"a": [states(OK, tokens_left(500)), OK], "b": [OK]}, ring=ring(long, "b"))
    run(bench)
    run(bench)
    run(bench, ask(body={"max_tokens": 100}))
    assert bench.asked == ["a", "b", "a"]


def test_requests_that_come_together_share_what_is_left() -> None:
    gate = Gate()
    left = Leeway(ProviderUnit.REQUESTS, 2, 60, reset_s=2.0)
    bench = Bench({"a": [states(OK, left), *repeat((gate, OK), 5)], "b": repeat((gate, OK))})

    async def main() -> None:
        await bench.run()
        together = [asyncio.ensure_future(bench.run()) for _ in range(5)]
        await gate.reached.wait()
        gate.opened.set()
        await asyncio.gather(*together)

    asyncio.run(main())
    assert sorted(bench.asked) == ["a", "a", "a", "b", "b", "b"]


def test_usage_based_asks_where_the_most_is_left() -> None:
    usage_based = Ring("m", (group("m", "a", "b", strategy=Strategy.USAGE_BASED),))
    bench = Bench(
        {"a": [states(OK, tokens_left(50_000))], "b": [states(OK, tokens_left(90_000)), OK]},
        ring=usage_based,
    )
    for _ in range(3):
        run(bench)
    assert bench.asked == ["a", "b", "b"]


# The limits that the file sets for a deployment.


def test_a_deployment_at_its_rpm_is_not_asked_but_the_next_is() -> None:
    bench = Bench({"a": [OK, OK], "b": [OK]}, ring=ring(target("a", rpm=2), "b"))
    for _ in range(3):
        run(bench)
    assert bench.asked == ["a", "a", "b"]


def test_a_deployment_that_is_full_is_neither_blamed_nor_rests() -> None:
    bench = Bench({"a": [OK], "b": [OK]}, ring=ring(target("a", rpm=1), "b"))
    for _ in range(2):
        run(bench)
    assert not bench.blamed("a")
    assert bench.health.standing(target("a"), bench.policy) == Standing(
        latency_s=0.0, expected_s=0.0
    )


def test_a_deployment_too_full_for_a_long_answer_still_gives_a_short_one() -> None:
    bench = Bench({"a": [OK, OK], "b": [OK]}, ring=ring(target("a", tpm=1000), "b"))
    run(bench, ask(body={"max_tokens": 800}))
    run(bench, ask(body={"max_tokens": 980}))
    run(bench, ask(body={"max_tokens": 100}))
    assert bench.asked == ["a", "b", "a"]


def test_when_all_are_full_the_caller_is_told_when_the_first_has_room() -> None:
    bench = Bench({"a": [OK], "b": [OK]}, ring=each(rpm=1))
    run(bench)
    bench.clock.pass_(10.0)
    run(bench)
    bench.clock.pass_(7.5)
    error = refused(bench)
    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 42.5
    assert bench.asked == ["a", "b"]


def test_room_that_comes_within_the_patience_of_a_request_is_waited_for() -> None:
    bench = Bench({"a": [OK, OK]}, ring=ring(target("a", rpm=1)))
    run(bench)
    bench.clock.pass_(59.0)
    run(bench)
    assert bench.asked == ["a", "a"]
    assert bench.clock.slept == [1.0]


def test_a_request_that_no_deployment_may_take_is_not_asked_to_come_again() -> None:
    bench = Bench({"a": [], "b": []}, ring=each(tpm=100))
    error = refused(bench, body={"max_tokens": 200})
    assert isinstance(error, RateLimited)
    assert "larger than what any deployment of 'm' may take" in error.message
    assert (error.retry_after_s, error.should_retry) == (None, False)
    assert bench.clock.slept == []


def test_a_deployment_answers_only_so_many_at_once() -> None:
    bench = Bench({"a": [[delta("t0"), finish()], OK], "b": [OK]}, ring=each(max_parallel=1))

    async def main() -> None:
        stream = await bench.run(ask(stream=True))
        assert isinstance(stream, ChunkStream)
        await bench.run()
        await stream.aclose()
        await bench.run()

    asyncio.run(main())
    assert bench.asked == ["a", "b", "a"]
