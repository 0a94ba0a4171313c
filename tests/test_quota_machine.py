"""Limiter and ledger together, in whatever order things happen, against an account on paper."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from proxy.admission import Admission
from proxy.allowance import Allowances
from proxy.errors import LimitReached, QuotaUnavailable, UpstreamFailure
from proxy.estimate import PromptRates, prompt_most, size_of
from proxy.facts import ModelFacts, Price, Rates
from proxy.headroom import Headroom
from proxy.ledger import Ledger
from proxy.limits import Limit
from proxy.metrics import Metrics
from proxy.policy import BudgetUsd, Limits, MobiusPolicy
from proxy.pricing import bound_nano_usd
from proxy.quota import Quota
from proxy.replies import Completion
from proxy.reservation import Reservation
from proxy.retry import Kind
from proxy.snapshot import Snapshot
from proxy.store import LedgerUnavailable
from proxy.store.memory import MemoryStore
from proxy.store.sqlite_schema import connect
from proxy.types import Call, Caller, Surface, Tally
from tests.fakes import FakeClock, answer, target
from tests.store.rows import select

T = TypeVar("T")
WEB = Caller("web")
PRICE = Price((Rates(prompt=1_000_000, completion=2_000_000),))
TARGET = target("a", facts=ModelFacts(PRICE))
# An image teaches the estimate nothing, so that what is set aside can be told beforehand.
PARTS = [{"type": "image_url", "image_url": {"url": "https://x/y"}}]
DAY_S, MINUTE_S = 86_400, 60
LIMITS = st.builds(
    Limits,
    rpm=st.integers(1, 6),
    rpd=st.integers(2, 20),
    tpm=st.integers(1500, 9000),
    # These come and go with the file. One of tokens a minute that comes after the clock was set
    # back would count too much: by that clock no row tells that it is an hour old.
    tpd=st.none() | st.integers(3000, 30_000),
    max_parallel=st.none() | st.integers(1, 4),
    budget_usd=st.builds(
        BudgetUsd,
        day=st.sampled_from([None, 0.06, 0.2, 0.5]),
        total=st.sampled_from([None, 0.2, 1.0, 9.0]),
    ),
)
AT_FIRST = Limits(
    rpm=4, rpd=15, tpm=7000, tpd=20_000, max_parallel=3, budget_usd=BudgetUsd(day=0.5, total=5)
)


@dataclass(eq=False)
class Request:
    now_s: float
    wall_s: float
    written: bool
    attempts: list[Attempt] = field(default_factory=list)


@dataclass(eq=False)
class Attempt:
    tokens: int  # set aside, then spent
    nano_usd: int
    now_s: float
    wall_s: float
    open: bool = True
    written: bool = True


class Paper:
    """What the limits must come to: every request and attempt, and when."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.inside: list[Request] = []

    def used(self, word: str, now_s: float, wall_s: float) -> int:
        day_s = wall_s - wall_s % DAY_S
        attempts = [each for request in self.requests for each in request.attempts]
        counted = {
            "max_parallel": len(self.inside),
            "rpm": sum(each.now_s > now_s - MINUTE_S for each in self.requests),
            "rpd": sum(each.wall_s >= day_s for each in self.requests),
            "tpm": sum(a.tokens for a in attempts if a.open or a.now_s > now_s - MINUTE_S),
            "tpd": sum(a.tokens for a in attempts if a.open or a.wall_s >= day_s),
            "budget_usd.day": sum(a.nano_usd for a in attempts if a.open or a.wall_s >= day_s),
            "budget_usd.total": sum(a.nano_usd for a in attempts),
        }
        return counted[word]

    def crash(self, clock: FakeClock) -> None:
        """All that is open or not written is charged as it was set aside, and nobody is inside."""
        now_s, wall_s = clock.now(), clock.wall()
        self.inside = []
        self.requests = [each for each in self.requests if each.written]
        for request in self.requests:
            for each in request.attempts:
                if each.open:
                    each.open, each.wall_s = False, wall_s
                each.now_s = _moment(each.wall_s, now_s, wall_s)
            # Of the last minute only those are known that made a call.
            first = request.attempts[0].wall_s if request.attempts else 0.0
            late = min(first, request.wall_s) >= wall_s - MINUTE_S
            request.now_s = _moment(request.wall_s, now_s, wall_s) if late else 0.0


def _moment(at: float, now_s: float, wall_s: float) -> float:
    return min(now_s, now_s - (wall_s - at))


class Disk:
    """Where the ledger is; it may be full for a while."""

    def __init__(self) -> None:
        self.full = False

    def connect(self, path: Path, patience_s: float) -> Any:
        self.check()
        return Connection(connect(path, patience_s), self)

    def check(self) -> None:
        if self.full:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error


class Connection:
    """A connection that writes nothing while the disk is full."""

    def __init__(self, inner: sqlite3.Connection, disk: Disk) -> None:
        self._inner, self._disk = inner, disk
        self.close = inner.close

    @property
    def in_transaction(self) -> bool:
        return self._inner.in_transaction

    def execute(self, statement: str, values: Any = ()) -> sqlite3.Cursor:
        if statement != "ROLLBACK":
            self._disk.check()
        return self._inner.execute(statement, values)


@dataclass(eq=False)
class Inside:
    """One request that was let in, and what of it is open."""

    request: Request
    admission: Admission
    owed: AsyncExitStack
    reservation: Reservation | None = None
    attempt: Attempt | None = None
    closing: AsyncExitStack | None = None


class Life(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "m.db"
        self._runner = asyncio.Runner()
        self._clock, self._disk, self._paper = FakeClock(), Disk(), Paper()
        self._inside: list[Inside] = []
        # Attempts that ended while nothing could be written, and what they had set aside.
        self._kept: list[tuple[Attempt, int, int]] = []
        self._set(AT_FIRST)
        self._run(self._open())

    def teardown(self) -> None:
        self._disk.full = False
        self._run(self._ledger.aclose())
        for each in self._inside:
            self._run(_forget(each))
        self._runner.close()
        self._folder.cleanup()

    def _run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            return await work

        return self._runner.run(main())

    def _set(self, limits: Limits) -> None:
        self._snapshot = Snapshot(
            policy=MobiusPolicy(), rings={}, allowances=Allowances(keys={"web": limits})
        )

    async def _open(self) -> None:
        self._ledger = Ledger(
            self._path, self._clock, retry_s=0.01, patience_s=1.0, connect=self._disk.connect
        )
        await self._ledger.__aenter__()
        await self._ledger.recover()
        self._store = MemoryStore(self._clock, self._ledger)
        self._quota = Quota(self._store, self._ledger, Metrics(self._clock), Headroom(self._clock))
        await self._store.standings(self._all())

    def _all(self) -> tuple[Limit, ...]:
        allowance = self._snapshot.allowances.of(WEB, user=None, model="m")
        return (*allowance.admission, *allowance.spending)

    def _over(self, limit: Limit, amount: int) -> bool:
        used = self._paper.used(limit.word, self._clock.now(), self._clock.wall())
        return used + amount > limit.most

    # What happens

    @rule(several=st.lists(st.integers(1, 2000), min_size=1, max_size=5))
    def ask(self, several: list[int]) -> None:
        for tokens in several:
            body = {"messages": [{"content": PARTS}], "max_tokens": tokens}
            self._run(self._ask(Call("m", False, body)))

    @rule(tokens=st.integers(1, 2000), used=st.integers(0, 3000))
    def ask_and_be_answered(self, tokens: int, used: int) -> None:
        self.ask([tokens])
        if self._inside and self._inside[-1].reservation is not None:
            inside = self._inside[-1]
            self._run(self._settle(inside, used, used // 2))
            self._run(self._leave(inside))

    async def _ask(self, call: Call) -> None:
        allowance = self._snapshot.allowances.of(WEB, user=None, model="m")
        full = any(self._over(limit, 1) for limit in allowance.admission)
        owed = AsyncExitStack()
        tally = Tally("r", Surface.CHAT, "m", False, 0.0)
        entering = self._quota.admit(call, WEB, self._snapshot, tally)
        try:
            admission = await owed.enter_async_context(entering)
        except LimitReached:
            assert full, "refused although there was room"
            return
        except QuotaUnavailable:
            assert self._disk.full
            return
        assert not full, "let in although there was no room"
        written = not self._disk.full
        request = Request(self._clock.now(), self._clock.wall(), written)
        self._paper.requests.append(request)
        self._paper.inside.append(request)
        inside = Inside(request, admission, owed)
        self._inside.append(inside)
        if not await self._reserve(inside):
            await self._leave(inside)

    @precondition(lambda self: any(each.reservation is None for each in self._inside))
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        inside = data.draw(st.sampled_from([x for x in self._inside if x.reservation is None]))
        self._run(self._reserve(inside))

    async def _reserve(self, inside: Inside) -> bool:
        spending, call = inside.admission.allowance.spending, inside.admission.call
        size, most = size_of(call.body), int(call.body["max_tokens"])
        tokens = PromptRates().high("any", size) + most
        nano_usd = bound_nano_usd(PRICE, prompt_most(size, None), most)
        full = any(
            self._over(limit, tokens if limit.word in {"tpm", "tpd"} else nano_usd)
            for limit in spending
        )
        closing = AsyncExitStack()
        try:
            held = await closing.enter_async_context(self._quota.reserve(inside.admission, TARGET))
        except LimitReached:
            assert full, "refused although there was room"
            return False
        except QuotaUnavailable:
            assert self._disk.full
            return False
        assert not full, "set aside what was not there"
        assert not self._disk.full, "a call that is not recorded"
        assert (held.tokens, held.nano_usd) == (tokens, nano_usd)
        inside.attempt = Attempt(tokens, nano_usd, self._clock.now(), self._clock.wall())
        inside.reservation, inside.closing = held, closing
        inside.request.attempts.append(inside.attempt)
        return True

    @precondition(lambda self: any(each.reservation for each in self._inside))
    @rule(data=st.data(), prompt=st.integers(0, 3000), completion=st.integers(0, 3000))
    def settle(self, data: st.DataObject, prompt: int, completion: int) -> None:
        inside = data.draw(st.sampled_from([each for each in self._inside if each.reservation]))
        self._run(self._settle(inside, prompt, completion))

    @precondition(lambda self: any(each.reservation for each in self._inside))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        inside = data.draw(st.sampled_from([each for each in self._inside if each.reservation]))
        self._run(self._settle(inside, 0, 0, UpstreamFailure("no", kind=Kind.TRANSIENT)))

    async def _settle(
        self, inside: Inside, prompt: int, completion: int, failure: Exception | None = None
    ) -> None:
        held, attempt, closing = inside.reservation, inside.attempt, inside.closing
        assert held is not None
        assert attempt is not None
        assert closing is not None
        if failure is None:
            body = answer(prompt, completion)
            held.watch(Completion(orjson.dumps(body), body))
            await closing.aclose()
        else:
            await closing.__aexit__(type(failure), failure, None)
        inside.reservation = inside.attempt = inside.closing = None
        attempt.open = False
        attempt.now_s, attempt.wall_s = self._clock.now(), self._clock.wall()
        attempt.tokens, attempt.nano_usd = prompt + completion, prompt * 1000 + completion * 2000
        if self._disk.full:
            self._kept.append((attempt, held.tokens, held.nano_usd))

    @precondition(lambda self: any(each.reservation is None for each in self._inside))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        inside = data.draw(st.sampled_from([x for x in self._inside if x.reservation is None]))
        self._run(self._leave(inside))

    async def _leave(self, inside: Inside) -> None:
        await inside.owed.aclose()
        self._inside.remove(inside)
        self._paper.inside.remove(inside.request)

    @rule(seconds=st.sampled_from([0.5, 10, 29.5, 60, 3600, 50_000]))
    def time_passes(self, seconds: float) -> None:
        self._clock.pass_(seconds)

    @rule(seconds=st.sampled_from([-3600, 3600]))
    def clock_is_set(self, seconds: float) -> None:
        self._clock.wall_s += seconds

    @rule(limits=LIMITS)
    def reload(self, limits: Limits) -> None:
        self._set(limits)
        self._quota.follow(self._snapshot)

    @precondition(lambda self: not self._disk.full)
    @rule()
    def disk_fills(self) -> None:
        self._disk.full = True

    @precondition(lambda self: self._disk.full)
    @rule()
    def disk_has_room(self) -> None:
        self._disk.full = False
        self._clock.pass_(1)
        self._run(self._writable())
        for request in self._paper.requests:
            request.written = True
        self._kept.clear()

    async def _writable(self) -> None:
        while True:
            self._clock.pass_(1 / 64)
            try:
                await self._ledger.replica_id()
            except LedgerUnavailable:  # it is tried again
                await asyncio.sleep(0.001)
            else:
                return

    @rule()
    def crash(self) -> None:
        self._run(self._ledger.aclose())
        for each in self._inside:
            self._run(_forget(each))
        self._inside.clear()
        for attempt, tokens, nano_usd in self._kept:
            attempt.open, attempt.tokens, attempt.nano_usd = True, tokens, nano_usd
        self._kept.clear()
        self._disk.full = False
        self._clock.pass_(1)
        self._run(self._open())
        self._paper.crash(self._clock)

    # What is always so

    @invariant()
    def standings_are_as_on_paper(self) -> None:
        if not self._disk.full:
            standings = self._run(self._store.standings(self._all()))
            now_s, wall_s = self._clock.now(), self._clock.wall()
            found = {each.limit.word: each.used for each in standings}
            assert found == {word: self._paper.used(word, now_s, wall_s) for word in found}

    @invariant()
    def the_ledger_is_as_on_paper(self) -> None:
        if not self._disk.full:
            self._run(self._ledger.replica_id())  # what was asked for before is written
            attempts = [a for each in self._paper.requests for a in each.attempts]
            closed = [each for each in attempts if not each.open]
            columns = "admitted, attempts, prompt_tokens + completion_tokens, nano_usd"
            sums = ", ".join(f"coalesce(sum({each}), 0)" for each in columns.split(", "))
            ((*found,),) = select(self._path, f"SELECT {sums} FROM totals")  # noqa: S608
            inside = sum(each.request.attempts == [] for each in self._inside)
            assert found == [
                len(self._paper.requests) - inside,
                len(closed),
                sum(each.tokens for each in closed),
                sum(each.nano_usd for each in closed),
            ]
            ((still,),) = select(self._path, "SELECT count(*) FROM open_attempts")
            assert still == len(attempts) - len(closed)


async def _forget(inside: Inside) -> None:
    """Its process is gone; what it would still do, it does to nobody."""
    if inside.closing is not None:
        await inside.closing.aclose()
    await inside.owed.aclose()


@pytest.mark.parametrize(
    ("examples", "steps"),
    [
        (40, 40),
        pytest.param(2000, 60, marks=[pytest.mark.proof, pytest.mark.timeout(3600)]),
    ],
)
def test_limits_and_ledger_are_exact_in_any_order(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
