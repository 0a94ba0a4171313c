"""Limits over two real replicas on one real Redis, which hangs, dies and comes back empty."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median

import pytest

from tests.e2e.redis_load import CALLERS, FEW_RPD, Pair, Told, pair
from tests.harness import wait_until
from tests.providers import Answer, Gate

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

BOUND_S = 2.0  # no answer takes longer, on a machine that does a lot beside
DOING: dict[str, tuple[Callable[[Pair], None], Callable[[Pair], None]]] = {
    "hangs": (lambda both: both.redis.hang(), lambda both: both.redis.resume()),
    "dies": (lambda both: both.redis.stop(), lambda both: both.redis.start()),
}


def answers(both: Pair, place: int, caller: str, status: int) -> bool:
    return both.ask_once(place, caller) == status


def outage(both: Pair, doing: str, seconds: float) -> tuple[float, float]:
    """When Redis went and when it came back, under load from some time before to some after."""
    begin, end = DOING[doing]

    async def main() -> tuple[float, float]:
        async with both.load():
            await asyncio.sleep(2.5)  # until leases are given
            went_s = time.monotonic()
            await asyncio.to_thread(begin, both)
            await asyncio.sleep(seconds)
            came_s = time.monotonic()
            await asyncio.to_thread(end, both)
            await asyncio.sleep(5.0)
        return went_s, came_s

    return asyncio.run(main())


def figures(told: list[Told], went_s: float, came_s: float) -> None:
    """Print how long answers took before Redis went, at first after that, and from then on."""
    spans = {"before": (0.0, went_s - 0.2), "first": (went_s - 0.2, went_s + 0.5)}
    spans |= {"gone": (went_s + 0.5, came_s), "back": (came_s, came_s + 1e9)}
    for caller in CALLERS:
        for name, (start_s, end_s) in spans.items():
            of = [each for each in told if each.caller == caller and start_s <= each.at_s < end_s]
            took = sorted(each.took_s * 1000 for each in of)
            own = sorted(each.overhead_s * 1000 for each in of if each.overhead_s is not None)
            if took:
                print(  # noqa: T201  # the figures of the proof
                    f"{caller:5} {name:6} {len(took):6} answers, took {median(took):7.1f} ms,"
                    f" p99 {took[int(len(took) * 0.99)]:7.1f}, most {took[-1]:7.1f}"
                    + (f"; own time {median(own):6.2f}, most {own[-1]:7.2f}" if own else "")
                )


def check(both: Pair, how: str, doing: str, seconds: float) -> None:
    went_s, came_s = outage(both, doing, seconds)
    both.wait_right()
    print(f"\n{how}, {doing} for {seconds:g} s; right {time.monotonic() - came_s - 5:.1f} s after")  # noqa: T201
    figures(both.told, went_s, came_s)
    assert max(each.took_s for each in both.told) < BOUND_S
    assert {each.status for each in both.told if each.caller == "free"} == {200}
    gone = [each for each in both.told if went_s + 1 < each.at_s < came_s - 0.2]
    of_many = {each.status for each in gone if each.caller == "many"}
    assert of_many == ({503} if how == "closed" else {200})
    late = [each for each in both.told if each.at_s > came_s + 4.5]
    assert {each.status for each in late if each.caller == "many"} == {200}
    # All that is left of the day is let in, and no more.
    for place in (0, 1):
        wait_until(partial(answers, both, place, "few", 429), 30.0, "the limit")
    let_in = sum(each.caller == "few" and each.status == 200 for each in both.told)
    if how != "open":
        assert let_in <= FEW_RPD
    # What was admitted and then refused for Redis went away counts as a request.
    assert let_in >= FEW_RPD * 0.9


@pytest.mark.parametrize(("how", "doing"), [("leased", "dies"), ("closed", "hangs")])
def test_limits_hold_while_redis_is_away_and_nobody_is_held_up(how: str, doing: str) -> None:
    with pair(how) as both:
        check(both, how, doing, 3.0)


@pytest.mark.proof
@pytest.mark.timeout(300)
@pytest.mark.parametrize("doing", DOING)
@pytest.mark.parametrize("how", ["leased", "closed", "open"])
def test_limits_hold_while_redis_is_away_for_long(how: str, doing: str) -> None:
    with pair(how) as both:
        check(both, how, doing, 30.0)


def test_a_killed_replica_frees_its_places_and_leaves_nothing_open() -> None:
    with pair("closed") as both, ThreadPoolExecutor() as pool:
        one, two = both.replicas
        gate = Gate()
        both.provider.always(Answer(tokens=5, gate=gate))
        asked = [pool.submit(both.ask_once, 1, "many") for _ in range(4)]
        both.provider.journal.wait_received(4)
        wait_until(lambda: both.settled()["open"] > 4, what="reservations of it")
        two.signal(signal.SIGKILL)
        two.kill()
        for each in asked:
            assert each.exception(10) is not None
        gate.open()
        wait_until(lambda: both.settled()["open"] == 0, 30.0, "nothing that is open")
        assert both.ask_once(0, "many") == 200
        two.start()
        both.wait_right()
        assert both.ask_once(1, "many") == 200
        both.wait_right()
        assert "recovered" in two.log
        assert one.exit_code is None


def test_a_redis_that_may_drop_counters_is_told_of() -> None:
    full = ("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with pair("closed", redis_args=full) as both:
        for each in both.replicas:
            assert '"store_misconfigured"' in each.log
            assert "allkeys-lru" in each.log


def test_servers_start_without_their_redis_and_use_it_when_it_comes() -> None:
    full = ("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
    with pair("closed", redis_args=full, there=False) as both:
        for place, each in enumerate(both.replicas):
            assert '"store_gone"' in each.log
            assert both.ask_once(place, "free") == 200
            assert both.ask_once(place, "many") == 503
        both.redis.start()
        for place, each in enumerate(both.replicas):
            wait_until(partial(answers, both, place, "many", 200), 15.0, "an answer")
            assert '"store_back"' in each.log
            wait_until(lambda each=each: '"store_misconfigured"' in each.log)  # type: ignore[misc]
        both.wait_right()
        for each in both.replicas:
            each.stop()
            assert each.log.count('"store_gone"') == 1
            each.start()
