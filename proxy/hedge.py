"""
A second target asked beside one that is late: whoever begins to answer first has won.

The other is cancelled, closed and settled before the answer goes on, so that nothing of the race
outlives it; when the caller leaves, both are. A request has one such race at most, and only so
large a share of the requests has one as `mobius.hedge.budget` says. What is known of a target's
times is this process's own, and so is the budget: neither asks Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias

from proxy.clock import Clock
from proxy.errors import LimitReached, QuotaUnavailable, UpstreamFailure
from proxy.health import Health
from proxy.replies import ChunkStream, Reply
from proxy.retry import UNASKED
from proxy.types import Call, Surface, Target
from proxy.walk import Walk

Ask: TypeAlias = Callable[[Target, Walk], Awaitable[Reply]]

P90 = 0.9
# Asked twice they do nothing twice. What is drawn, spoken or heard is billed by the piece and takes
# as long as it takes; a count comes at once.
SAFE = frozenset(
    {
        Surface.CHAT,
        Surface.COMPLETIONS,
        Surface.EMBEDDINGS,
        Surface.MODERATIONS,
        Surface.RERANK,
        Surface.MESSAGES,
        Surface.RESPONSES,
        Surface.AI,
    }
)
# What came of a race: the second answered, the first did, neither did, the caller left.
WON, LOST, FAILED, CANCELLED = "won", "lost", "failed", "cancelled"
REMEMBERED = 200  # requests, whose races quiet hours may save up
NEARLY_ONE = 1 - 1e-9  # a twentieth, twenty times


class Begun(NamedTuple):
    """An answer that has begun, and whose it is."""

    reply: Reply
    target: Target


class Share:
    """Lets as large a share of the requests have a race, and one more: the first may be late."""

    def __init__(self) -> None:
        self._saved = 1.0

    def request(self, share: float) -> None:
        self._saved = min(max(1.0, REMEMBERED * share), self._saved + share)

    def take(self, share: float) -> bool:
        """Say whether one more fits, and count it when it does. A share of 0 lets nobody."""
        if share >= 1:
            return True  # however many come at once
        if share <= 0 or self._saved < NEARLY_ONE:
            return False
        self._saved -= 1.0
        return True

    def give_back(self) -> None:
        self._saved += 1.0


class Hedge:
    """
    Asks by `ask`, which asks one target until it answers or fails, and beside it by `once`.

    One event loop owns it.
    """

    def __init__(self, health: Health, clock: Clock, *, ask: Ask, once: Ask) -> None:
        self.health = health
        self.clock = clock
        self.first = ask
        self.once = once
        self.share = Share()

    async def ask(self, target: Target, others: list[Target], walk: Walk) -> Reply:
        """
        Ask `target`, and beside it one of `others` where it has not begun in time.

        Raises what `target` failed with. Those that were asked beside it are in `others` no more;
        what they failed with is in `walk.beside`.
        """
        after_s = self._after_s(target, others, walk)
        if after_s is None:
            return await self.first(target, walk)
        return await Race(self, target, others, walk).run(after_s)

    def _after_s(self, target: Target, others: list[Target], walk: Walk) -> float | None:
        """Return when another is to be asked beside `target`; None: never."""
        policy, call = walk.policy, walk.call
        if walk.may_hedge is None:
            walk.may_hedge = may_be_doubled(call)
            if walk.may_hedge:
                self.share.request(policy.hedge.budget)
        if not walk.may_hedge or not others:
            return None
        after = policy.hedge.after
        if after == "p90":
            return self.health.percentile_s(target, policy, P90, streamed=call.stream)
        return after


class Race:
    """One target that is asked, and another beside it once that is late."""

    def __init__(self, hedge: Hedge, target: Target, others: list[Target], walk: Walk) -> None:
        self._hedge = hedge
        self._target = target
        self._others = others
        self._walk = walk
        self._since_s: float | None = None  # the moment when the second was asked
        self._came: list[Begun] = []  # one, or both in their order

    async def run(self, after_s: float) -> Reply:
        """Return the answer of whoever began first, once there is nothing left of the other."""
        start_s = self._hedge.clock.now()
        first = asyncio.create_task(self._first(), name="ask a target")
        second = asyncio.create_task(self._beside(first, after_s), name="ask beside it")
        try:
            await self._until_begun(first, second)
            won = _has_begun(second) and second.result() is self._came[0]
            if won and not first.done():
                waited_s = self._hedge.clock.now() - start_s
                self._hedge.health.overtaken(
                    self._target, self._walk.policy, waited_s, streamed=self._walk.call.stream
                )
            await _closed(first if won else second)
            begun = second.result() if won else None
            if begun is None:
                begun = first.result()
        except BaseException as exc:
            self._note(CANCELLED if isinstance(exc, asyncio.CancelledError) else FAILED)
            # One that has begun goes with the other: nobody is there any more who would read it.
            await _closed(first, second)
            raise
        self._note(WON if won else LOST)
        self._tell(begun.target)
        return begun.reply

    def _comes(self, reply: Reply, target: Target) -> Begun:
        begun = Begun(reply, target)
        self._came.append(begun)
        return begun

    def _tell(self, target: Target) -> None:
        """Have the tally say that `target` answered: both may have, in either order."""
        tally, entry = self._walk.tally, f"{target.label}:200"
        tally.target, tally.provider = target.label, target.provider
        if entry in tally.trail:
            tally.trail.remove(entry)
            tally.trail.append(entry)  # who answered stands last, as ever

    async def _first(self) -> Begun:
        return self._comes(await self._hedge.first(self._target, self._walk), self._target)

    async def _until_begun(
        self, first: asyncio.Task[Begun], second: asyncio.Task[Begun | None]
    ) -> None:
        """
        Return once one of them has begun, or nobody is left who could.

        A failure of one waits for the other, if that has been asked.
        """
        await asyncio.wait((first, second), return_when=asyncio.FIRST_COMPLETED)
        if self._since_s is not None:
            # The time that both were waited for passed once.
            self._walk.tally.upstream_s -= self._hedge.clock.now() - self._since_s
        _check(second)
        begun = _has_begun(first) or _has_begun(second)
        if not begun and (not first.done() or self._walk.racing):
            await asyncio.wait((first, second))
            _check(second)

    async def _beside(self, first: asyncio.Task[Begun], after_s: float) -> Begun | None:
        """Ask another target once `first` is late; None where nobody answers, or may be asked."""
        hedge, walk = self._hedge, self._walk
        await hedge.clock.sleep(after_s)
        # Where nothing was sent yet, it is the books that are late.
        asked = walk.admission.attempts > 0
        if not asked or first.done() or hedge.clock.now() >= walk.deadline_s:
            return None
        open_to = [target for target in self._others if self._may_be_asked(target)]
        if not open_to or not hedge.share.take(walk.policy.hedge.budget):
            return None
        walk.may_hedge, walk.racing, walk.admission.spare = False, True, True
        try:
            return await self._one_of(open_to)
        finally:
            walk.racing, walk.admission.spare = False, False
            if self._since_s is None:
                hedge.share.give_back()

    async def _one_of(self, targets: list[Target]) -> Begun | None:
        """Ask the first of them that can be asked, once."""
        for target in targets:
            self._since_s = self._hedge.clock.now()
            try:
                return self._comes(await self._hedge.once(target, self._walk), target)
            except UpstreamFailure as failure:
                self._others.remove(target)
                self._walk.beside += ((target, failure),)
                if failure.kind not in UNASKED:
                    return None
            except (LimitReached, QuotaUnavailable):
                # There is room for one call, and that is under way.
                self._since_s = None
                return None
            self._since_s = None
        return None

    def _may_be_asked(self, target: Target) -> bool:
        walk = self._walk
        return walk.may_answer(target) and not self._hedge.health.away_s(target, walk.policy)

    def _note(self, result: str) -> None:
        if self._since_s is not None:
            self._walk.tally.hedged = result


def may_be_doubled(call: Call) -> bool:
    """Say whether it does no harm to ask twice, and the caller has not said to ask once."""
    wishes, body = call.wishes, call.body
    if call.surface not in SAFE or wishes.disable_fallbacks or wishes.num_retries == 0:
        return False
    # A response is kept unless it says otherwise; a chat is if it says so.
    kept = body.get("store", call.surface is Surface.RESPONSES)
    return not (
        kept or call.runs_on or body.get("conversation") or body.get("mcp_servers") or _acts(body)
    )


def _acts(body: Mapping[str, object]) -> bool:
    """Say whether the provider itself is to use tools that may do what cannot be undone."""
    tools = body.get("tools")
    return isinstance(tools, list) and any(
        isinstance(tool, dict) and str(tool.get("type", "")).startswith("mcp") for tool in tools
    )


def _has_begun(task: asyncio.Task[Any]) -> bool:
    failed = not task.done() or task.cancelled() or task.exception() is not None
    return not failed and task.result() is not None


def _check(second: asyncio.Task[Begun | None]) -> None:
    """Raise what it ended with: failures of targets are none of it, so that is a fault of ours."""
    if second.done():
        second.result()


async def _closed(*tasks: asyncio.Task[Any]) -> None:
    """
    Have the tasks ended, and what they brought closed and paid for.

    Who is cancelled meanwhile is cancelled afterwards.
    """
    cancelled: asyncio.CancelledError | None = None
    for task in tasks:
        task.cancel()
    for task in tasks:
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as exc:
                cancelled = exc
        try:
            await _left_unread(task)
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is not None:
        raise cancelled


async def _left_unread(task: asyncio.Task[Any]) -> None:
    """Have the stream closed that `task` brought, if any; what has come of it is paid for."""
    if not _has_begun(task) or not isinstance(reply := task.result().reply, ChunkStream):
        return
    with suppress(Exception):
        for _ in reply.at_hand:
            await anext(reply)
    with suppress(Exception):
        await reply.aclose()
