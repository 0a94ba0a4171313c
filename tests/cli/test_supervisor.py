"""What keeps several workers alive, ends them, and adds up what they say; the workers are fakes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

import orjson
import pytest

from proxy.cli.line import Answer
from proxy.cli.supervisor import (
    FIRST_PAUSE_S,
    GLANCE,
    LISTENING,
    MOST_PAUSE_S,
    NUMBERS,
    RELOAD,
    STEADY_S,
    Supervisor,
    pause_after,
)
from proxy.everyone import Reloaded, Silent
from proxy.log import Log
from proxy.numbers import GAUGE, FamilyOf, Numbers, as_json
from tests.fakes import FakeClock

Script: TypeAlias = Callable[["Lab"], Awaitable[None]]


@dataclass(eq=False)
class FakeWorker:
    """Ends when a test says so, or at the signal it heeds."""

    number: int
    supervisor: Answer
    served: float = 0
    generation: int = 1
    silent: bool = False
    stops: int = 0
    heeds: int = 1  # the signal at which it ends
    asked: list[str] = field(default_factory=list)
    code: asyncio.Future[int] = field(default_factory=asyncio.Future)

    async def ask(self, word: str, *, timeout_s: float) -> Any:
        self.asked.append(word)
        if self.silent:
            raise Silent("no answer")
        if word == RELOAD:
            return asdict(Reloaded("ok", None, self.generation))
        return as_json(numbers(self.served, self.generation))

    def stop(self) -> None:
        self.stops += 1
        if self.stops == self.heeds:
            self.end(0)

    async def wait(self) -> int:
        return await self.code

    def end(self, code: int) -> None:
        if not self.code.done():
            self.code.set_result(code)


def numbers(served: float, generation: int) -> Numbers:
    return (
        FamilyOf("served", "counter", "", {("served_total", ()): served}),
        FamilyOf("mobius_config_generation", GAUGE, "", {("generation", ()): generation}),
    )


class StandingClock(FakeClock):
    """Only a test lets time pass; whoever sleeps waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    async def sleep(self, seconds: float) -> None:
        over = asyncio.Event()
        self._sleepers.append((self.now_s + seconds, over))
        await over.wait()

    async def let_pass(self, seconds: float) -> None:
        self.pass_(seconds)
        for moment, over in self._sleepers:
            if moment <= self.now_s:
                over.set()
        await settled()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Lab:
    """A supervisor that runs, and the workers it has started so far."""

    clock: StandingClock = field(default_factory=StandingClock)
    written: list[bytes] = field(default_factory=list)
    started: list[FakeWorker] = field(default_factory=list)

    def __post_init__(self) -> None:
        log = Log(self.written.append, self.clock)
        self.supervisor = Supervisor(2, self.spawn, self.clock, log)

    async def spawn(self, number: int, answer: Answer) -> FakeWorker:
        worker = FakeWorker(number, answer)
        self.started.append(worker)
        return worker

    async def listen(self, *workers: FakeWorker) -> None:
        for worker in workers:
            await worker.supervisor(LISTENING)

    async def served(self) -> dict[str, float]:
        found = await self.supervisor.numbers()
        return {name: value for each in found for (name, _), value in each.samples.items()}

    @property
    def ended(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.written]


def with_lab(script: Script) -> int:
    """Run the supervisor beside the script; return its exit code."""

    async def main() -> int:
        lab = Lab()
        running = asyncio.create_task(lab.supervisor.run())
        await settled()
        await script(lab)
        lab.supervisor.end(signal.SIGTERM)
        for worker in lab.started:
            worker.end(0)
        async with asyncio.timeout(5):
            return await running

    return asyncio.run(main())


def test_as_many_workers_as_were_asked_for_are_started_and_all_end_at_a_signal() -> None:
    async def script(lab: Lab) -> None:
        assert [worker.number for worker in lab.started] == [1, 2]
        await lab.listen(*lab.started)
        lab.supervisor.end(signal.SIGTERM)
        assert [worker.stops for worker in lab.started] == [1, 1]

    assert with_lab(script) == 0


def test_a_second_signal_is_passed_on_and_the_first_decides_the_exit_code() -> None:
    async def script(lab: Lab) -> None:
        await lab.listen(*lab.started)
        lab.started[0].heeds = 2
        lab.supervisor.end(signal.SIGINT)
        await settled()
        lab.supervisor.end(signal.SIGTERM)
        assert [worker.stops for worker in lab.started] == [2, 1]

    assert with_lab(script) == 128 + signal.SIGINT


def test_a_worker_that_dies_is_started_again_and_this_is_told() -> None:
    async def script(lab: Lab) -> None:
        first, second = lab.started
        await lab.listen(first, second)
        first.end(-9)
        await settled()
        assert len(lab.started) == 2
        await lab.clock.let_pass(FIRST_PAUSE_S)
        assert [worker.number for worker in lab.started] == [1, 2, 1]
        (line,) = lab.ended
        assert (line["event"], line["worker"], line["code"]) == ("worker_ended", 1, -9)
        assert second.stops == 0

    assert with_lab(script) == 0


def test_one_that_dies_again_and_again_is_waited_for_longer_each_time() -> None:
    pauses = [0.0]
    for _ in range(9):
        pauses.append(pause_after(1.0, pauses[-1]))
    assert pauses[1:4] == [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S, 4 * FIRST_PAUSE_S]
    assert pauses[-1] == MOST_PAUSE_S
    assert pause_after(STEADY_S, MOST_PAUSE_S) == 0.0


def test_one_that_cannot_start_at_all_ends_everything() -> None:
    async def script(lab: Lab) -> None:
        first, second = lab.started
        await lab.listen(second)
        first.end(3)
        await settled()
        assert second.stops == 1

    assert with_lab(script) == 1


def test_one_that_could_start_before_is_tried_again() -> None:
    async def script(lab: Lab) -> None:
        await lab.listen(*lab.started)
        lab.started[0].end(-9)
        await settled()
        await lab.clock.let_pass(FIRST_PAUSE_S)
        lab.started[2].end(3)  # say the disk is full just now
        await settled()
        await lab.clock.let_pass(2 * FIRST_PAUSE_S)
        assert [worker.number for worker in lab.started] == [1, 2, 1, 1]

    assert with_lab(script) == 0


def test_a_signal_in_a_pause_ends_it() -> None:
    async def script(lab: Lab) -> None:
        await lab.listen(*lab.started)
        lab.started[0].end(-9)
        await settled()
        lab.supervisor.end(signal.SIGTERM)

    assert with_lab(script) == 0


def test_the_numbers_are_those_of_all() -> None:
    async def script(lab: Lab) -> None:
        first, second = lab.started
        first.served, second.served, first.generation = 3, 4, 7
        await lab.listen(first, second)
        assert await lab.served() == {"served_total": 7, "generation": 1}
        assert orjson.dumps(await second.supervisor(NUMBERS))

    with_lab(script)


def test_what_a_dead_worker_counted_stays_in_the_sum_and_its_gauges_do_not() -> None:
    async def script(lab: Lab) -> None:
        first, second = lab.started
        first.served, second.served, second.generation = 3, 4, 7
        await lab.listen(first, second)
        assert (await lab.served())["served_total"] == 7
        first.end(-9)
        await settled()
        assert await lab.served() == {"served_total": 7, "generation": 7}
        await lab.clock.let_pass(FIRST_PAUSE_S)
        lab.started[2].served = 1
        await lab.listen(lab.started[2])
        assert await lab.served() == {"served_total": 8, "generation": 1}

    with_lab(script)


def test_a_worker_that_does_not_answer_has_the_numbers_it_had() -> None:
    async def script(lab: Lab) -> None:
        first, second = lab.started
        first.served, second.served = 3, 4
        await lab.listen(first, second)
        assert (await lab.served())["served_total"] == 7
        first.silent, second.served = True, 5
        assert (await lab.served())["served_total"] == 8

    with_lab(script)


def test_workers_are_looked_at_now_and_then_in_case_they_die() -> None:
    async def script(lab: Lab) -> None:
        await lab.listen(*lab.started)
        lab.started[0].served = 3
        await lab.clock.let_pass(5.0)
        assert lab.started[0].asked == [GLANCE]
        lab.started[0].end(-9)
        await settled()
        assert (await lab.served())["served_total"] == 3

    with_lab(script)


def test_a_reload_is_of_all_that_serve() -> None:
    async def script(lab: Lab) -> None:
        first, second = lab.started
        first.generation, second.generation = 5, 4
        await lab.listen(first, second)
        assert await lab.supervisor.reload() == Reloaded("ok", None, 4)
        assert first.asked == second.asked == [RELOAD]
        second.silent = True
        with pytest.raises(Silent):
            await lab.supervisor.reload()

    with_lab(script)


def test_of_workers_that_only_start_nothing_is_asked() -> None:
    async def script(lab: Lab) -> None:
        assert await lab.served() == {}
        assert [worker.asked for worker in lab.started] == [[], []]

    with_lab(script)
