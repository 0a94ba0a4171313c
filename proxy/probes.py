"""
Probes: a target that no request has told of is asked how it is, where the file says so.

The provider's list of models is asked for where there is one and the target is well: it is free. It
proves that the provider is there and takes our key, not that the model answers, so that it is never
what brings a target back that failed: that takes a token. What a probe finds goes where the
findings of requests go: breaker, cooldown, and for a token the latency. A target that rests is left
alone, as long as it rests.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from proxy.attempts import Attempts
from proxy.clock import Clock
from proxy.errors import ProxyError, Refused, UpstreamFailure
from proxy.health import Health
from proxy.ids import Ids
from proxy.log import Log
from proxy.metrics import Metrics, outcome_of
from proxy.quota import Quota
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.snapshot import Snapshot
from proxy.types import Call, Caller, Group, Ring, Surface, Tally, Target, Wishes
from proxy.upstream import Lists

PROBER = Caller("_probe")  # to whom tokens are charged; the name of no key can begin so
MODELS, TOKEN = "models", "token"
OK, UNPROVEN, CANCELLED = "ok", "unproven", "cancelled"
# OpenAI's newer models take the second name only, and refuse less than they may think.
ONE_TOKEN = ({"max_tokens": 1}, {"max_completion_tokens": 16})
JITTER = 0.2  # of the interval, so that the probes of many replicas do not stay together
AT_ONCE = 4
LOOK_S = 1.0  # a change of the file is seen by then
SHORTEST_LOOK_S = 0.05
MOST_CHUNKS = 64  # of an answer that is longer than it was asked to be
# What fails a list in such a way would fail an answer.
SURE = frozenset({Kind.UNREACHABLE, Kind.RATE_LIMITED})
NO_RETRIES = Wishes(num_retries=0, disable_fallbacks=True)


@dataclass(frozen=True, slots=True)
class Probe:
    """The last probe of a target."""

    by: str  # MODELS or TOKEN
    outcome: str
    took_s: float
    at_s: float  # the moment of its end

    @property
    def ok(self) -> bool:
        return self.outcome == OK


@dataclass(slots=True)
class Watched:
    """A target in the prober's eyes: since when it has waited, and how patiently."""

    since_s: float
    patience: float  # in intervals
    form: int = 0  # of ONE_TOKEN, that it understood


class Prober:
    """`chance` returns a random number in [0, 1); `active` says whether anybody should be asked."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        quota: Quota,
        lists: Lists,
        health: Health,
        metrics: Metrics,
        log: Log,
        last: dict[str, Probe],
        current: Callable[[], Snapshot],
        active: Callable[[], bool],
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._attempts = attempts
        self._quota = quota
        self._lists = lists
        self._health = health
        self._metrics = metrics
        self._log = log
        self._last = last  # the last probe of each target, by identity
        self._current = current
        self._active = active
        self._clock = clock
        self._chance = chance
        self._ids = Ids()
        self._watched: dict[str, Watched] = {}
        self._busy: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Probe as long as the block lasts."""
        task = asyncio.create_task(self.run(), name="probe the targets")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def run(self) -> None:
        """Probe as the file in force says. Never returns; its probes end with it."""
        try:
            while True:
                every_s = self._current().policy.probes.every
                if every_s is not None and self._active():
                    self.look(every_s)
                await self._clock.sleep(LOOK_S if every_s is None else look_s(every_s))
        finally:
            under_way = tuple(self._busy.values())
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    def look(self, every_s: float) -> None:
        """Begin the probes that are due, one for each target and not too many at once."""
        snapshot = self._current()
        # Of several names for one place the first one is meant.
        targets = {t.identity: t for t in reversed(snapshot.targets()) if _can_be_asked(t)}
        for gone in self._watched.keys() - targets.keys():
            del self._watched[gone]
            self._last.pop(gone, None)
        for identity, target in targets.items():
            due = self._is_due(target, snapshot, every_s)
            if due and identity not in self._busy and len(self._busy) < AT_ONCE:
                task = asyncio.create_task(self.probe(target, snapshot), name="probe")
                self._busy[identity] = task
                task.add_done_callback(partial(self._done, identity))

    def _done(self, identity: str, task: asyncio.Task[None]) -> None:
        del self._busy[identity]
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._log.line("fault", type=type(exc).__name__, where="a probe")

    def _is_due(self, target: Target, snapshot: Snapshot, every_s: float) -> bool:
        now_s = self._clock.now()
        watched = self._watched.get(target.identity)
        if watched is None:
            # As if it had told at some moment of the last interval: not all at once at the start.
            watched = Watched(now_s - every_s * self._chance(), 1.0)
            self._watched[target.identity] = watched
        quiet_s = min(self._health.quiet_s(target, snapshot.policy), now_s - watched.since_s)
        rests = self._health.standing(target, snapshot.policy).away_s > 0
        return quiet_s >= every_s * watched.patience and not rests

    async def probe(self, target: Target, snapshot: Snapshot) -> None:
        """Ask `target` once in the cheapest way that proves something, and note what it said."""
        watched = self._watched.setdefault(target.identity, Watched(self._clock.now(), 1.0))
        by = snapshot.policy.probes.by
        well = self._health.standing(target, snapshot.policy).closed
        try:
            outcome = UNPROVEN
            if well and by != TOKEN:
                outcome = await self._noted(target, MODELS, self._by_list(target, snapshot))
            if outcome != UNPROVEN or by == MODELS:
                return
            if await self._lists.converses(target):
                await self._noted(target, TOKEN, self._by_token(target, snapshot, watched))
        finally:
            watched.since_s = self._clock.now()
            watched.patience = 1.0 + JITTER * self._chance()

    async def _noted(self, target: Target, by: str, asking: Awaitable[str]) -> str:
        start_s, outcome = self._clock.now(), CANCELLED
        try:
            outcome = await asking
        except UpstreamFailure as failure:
            outcome = failure.kind.value
        except ProxyError as error:
            outcome, _ = outcome_of(error)
        finally:
            now_s = self._clock.now()
            self._metrics.probed(target, by, outcome)
            if outcome not in (UNPROVEN, CANCELLED):
                self._last[target.identity] = Probe(by, outcome, now_s - start_s, now_s)
        return outcome

    async def _by_list(self, target: Target, snapshot: Snapshot) -> str:
        shown = False
        try:
            with self._health.watch(target, snapshot.policy) as watch:
                shown = watch is not None and await self._shown(target, snapshot)
                # Its breaker hears of failures only: between requests that fail a list that is
                # shown would make them look like none in a row.
                raise _TeachesNothing
        except _TeachesNothing:
            return OK if shown else UNPROVEN

    async def _shown(self, target: Target, snapshot: Snapshot) -> bool:
        try:
            return await self._lists.ask(target)
        except UpstreamFailure as failure:
            if snapshot.policy.probes.by == MODELS or failure.kind in SURE:
                raise
            return False  # the list may be broken, or slow, where answers are not

    async def _by_token(self, target: Target, snapshot: Snapshot, watched: Watched) -> str:
        """Return OK once it has answered, by whichever name it takes a bound. Raises ProxyError."""
        for form in range(watched.form, len(ONE_TOKEN)):
            try:
                await self._ask(target, snapshot, ONE_TOKEN[form])
            except Refused:
                if form + 1 == len(ONE_TOKEN):
                    raise
            else:
                watched.form = form
                break
        return OK

    async def _ask(self, target: Target, snapshot: Snapshot, bound: dict[str, int]) -> None:
        """Have the target answer as it answers requests: reserved, recorded, settled."""
        said = [{"role": "user", "content": "Hi"}]
        body = {"model": target.group, "messages": said, "stream": True, **bound}
        call = Call(target.group, True, body, wishes=NO_RETRIES)
        tally = Tally(
            request_id=f"probe_{self._ids.next()}",
            surface=Surface.CHAT,
            model=target.group,
            stream=True,
            started_s=self._clock.now(),
            caller=PROBER.name,
        )
        alone = Ring(target.group, (Group(target.group, (target,)),))
        async with self._quota.admit(call, PROBER, snapshot, tally) as admission:
            reply = await self._attempts.run(alone, admission, snapshot.policy)
            if isinstance(reply, ChunkStream):
                await _read(reply)


def look_s(every_s: float) -> float:
    """Return the seconds from one look at the targets to the next."""
    return max(SHORTEST_LOOK_S, min(LOOK_S, every_s / 4))


async def _read(stream: ChunkStream) -> None:
    chunks = 0
    async with aclosing(stream):
        async for _ in stream:
            chunks += 1
            if chunks >= MOST_CHUNKS:
                return


class _TeachesNothing(Exception):
    """Leaves a watch that is to learn nothing."""


def _can_be_asked(target: Target) -> bool:
    # Under a wildcard each name has a health of its own, and no request asks the wildcard itself.
    return target.missing is None and not target.stated.mocked and "*" not in target.model
