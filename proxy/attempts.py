"""
The ring: ask, and on failure ask again, ask elsewhere, begin again, or stop.

Nested questions, one method each: `run` walks the laps, `_lap` the targets of one, `_ask` repeats
one target, `_once` makes one call. Nothing here knows of HTTP, LiteLLM or Redis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

from proxy import capability, verdict
from proxy.admission import Admission
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.headroom import Headroom
from proxy.health import Health
from proxy.hedge import Hedge
from proxy.leeway import Need
from proxy.metrics import Metrics
from proxy.owed import Owed
from proxy.policy import RingPolicy
from proxy.quota import Quota
from proxy.replies import ChunkStream, Reply
from proxy.retry import RULES, Budget, Kind, backoff_s
from proxy.routing import Plan, plan_ring
from proxy.standing import Standing
from proxy.turns import Turns
from proxy.types import Call, Group, Ring, Target
from proxy.upstream import Upstream
from proxy.waiting import Waiting
from proxy.walk import Walk


class Attempts:
    def __init__(
        self,
        upstream: Upstream,
        health: Health,
        metrics: Metrics,
        quota: Quota,
        *,
        headroom: Headroom,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._upstream = upstream
        self._health = health
        self._headroom = headroom
        self._metrics = metrics
        self._quota = quota
        self._clock = clock
        self._chance = chance
        self._budget = Budget(RingPolicy().retry_budget)
        self._turns = Turns()
        self._hedge = Hedge(health, clock, ask=self._ask, once=self._once)

    def plan(self, ring: Ring, policy: RingPolicy) -> Plan:
        """Return the order in which the targets of `ring` would be asked now."""
        turn = self._turns.of(ring.groups[0])
        plan = self._plan(ring, policy, lambda target: Need(), turn=turn)
        timed = [self._health.timed(target, policy) for target in plan.targets]
        steps = (step._replace(target=t) for step, t in zip(plan.steps, timed, strict=True))
        return plan._replace(steps=tuple(steps))

    def _plan(
        self,
        ring: Ring | Sequence[Group],
        policy: RingPolicy,
        needs: Callable[[Target], Need],
        *,
        turn: int,
        skip: frozenset[str] = frozenset(),
        call: Call | None = None,
        unable: Callable[[Target], str | None] = lambda target: None,
    ) -> Plan:
        def standing(target: Target) -> Standing:
            room = self._headroom.room(target, needs, cap_s=policy.retry_after_cap)
            return self._health.standing(target, policy, room)

        return plan_ring(
            ring,
            standing,
            self._chance,
            skip=skip,
            turn=turn,
            session=None if call is None else call.wishes.session,
            unable=unable,
        )

    async def run(
        self,
        ring: Ring,
        admission: Admission,
        policy: RingPolicy,
        begun: Callable[[Walk], None] | None = None,
    ) -> Reply:
        """
        Return the first reply any target of `ring` gives; `begun` gets the walk that leads to it.

        Raises Refused when no other target could do better (a bad request), else what
        `verdict.nobody_left` makes of the failures; LimitReached and QuotaUnavailable when the
        caller's own quota leaves no room. Never starts an attempt after the deadline.
        """
        now_s = self._clock.now()
        self._budget.policy = policy.retry_budget
        self._budget.request(now_s)
        walk = self._begin(ring, admission, policy, deadline_s=now_s + policy.deadline)
        if begun is not None:
            begun(walk)
        for lap in count(1):
            passed = lap == 1 and walk.plan.passed_over
            if (reply := await self._lap(walk, passed=passed)) is not None:
                return reply
            if lap >= policy.laps or not await self._begins_again(walk):
                break
        raise verdict.nobody_left(
            walk.call.model,
            walk.plan,
            tuple(walk.failures.values()),
            away_s=[
                self._away_s(target, walk)
                for target in walk.plan.targets
                if target.identity not in walk.done
            ],
            out_of_time=walk.exhausted or self._clock.now() >= walk.deadline_s,
        )

    def rests(self, target: Target, policy: RingPolicy) -> bool:
        """Say whether the target must not be asked now."""
        return self._health.away_s(target, policy) > 0

    async def finish(self, target: Target, walk: Walk) -> Reply:
        """Return the target's answer to what an earlier one left unsaid. Raises as `_once` does."""
        return await self._ask(target, walk)

    def _begin(
        self, ring: Ring, admission: Admission, policy: RingPolicy, *, deadline_s: float
    ) -> Walk:
        """
        Return the walk of those that may be able to answer.

        They are the context_window_fallbacks where the request is surely longer than all windows
        of its own group. Raises RequestInvalid when every target is known to be unable.
        """
        call, own = admission.call, ring.groups[0]
        # A session goes where it belongs, and takes nobody's turn.
        turn = self._turns.take(own) if call.wishes.session is None else self._turns.of(own)
        needs, could_not = self._quota.needs(admission), capability.unable(call, admission.size)
        plan = self._plan(ring, policy, needs, turn=turn, call=call, unable=could_not)
        walk = Walk(
            call, ring, policy, admission.tally, admission, needs, could_not, deadline_s, turn, plan
        )
        if plan.left_out and capability.is_outgrown(own, plan):
            self._instead(ring.oversized, Kind.OVERSIZED, [], walk)
        if not walk.plan.steps and (error := capability.nobody_able(call, admission.size, plan)):
            raise error
        return walk

    async def _lap(self, walk: Walk, *, passed: bool) -> Reply | None:
        """
        Ask each target of the plan once; a failure may replace the rest of the plan.

        `passed`: the first is asked in place of another already, which rests.
        """
        targets = list(walk.plan.targets)
        while targets:
            target = targets.pop(0)
            if not walk.may_answer(target):
                continue
            if self._clock.now() >= walk.deadline_s:
                walk.exhausted = True
                return None
            if self._health.away_s(target, walk.policy) > 0:
                standing = self._health.standing(target, walk.policy)
                walk.failures[target.identity] = verdict.resting(standing)
                passed = True
                continue
            walk.tally.fallbacks += passed
            passed = True
            try:
                if walk.policy.hedge.after is None:
                    return await self._ask(target, walk)
                return await self._hedge.ask(target, targets, walk)
            except UpstreamFailure as failure:
                beside, walk.beside = walk.beside, ()
                for failed, why in ((target, failure), *beside):
                    targets = self._after(why, failed, targets, walk)
        return None

    def _after(
        self, failure: UpstreamFailure, target: Target, targets: list[Target], walk: Walk
    ) -> list[Target]:
        """Return the targets still worth asking. Raises Refused when there can be none."""
        failure = verdict.in_dialect(failure, changed=target.provider != walk.first_asked)
        # Its way here leads through what knows the walk: kept, it would be garbage in a circle.
        walk.failures[target.identity] = failure.with_traceback(None)
        match failure.kind:
            case Kind.CONTENT if walk.ring.content:
                walk.done |= verdict.same_model(target, walk.everybody)
                instead = self._instead(walk.ring.content, failure.kind, targets, walk)
                if instead is None:
                    raise verdict.refused(failure) from failure
                return instead
            case Kind.OVERSIZED:
                walk.done |= verdict.too_small(target, walk.everybody)
                instead = self._instead(walk.ring.oversized, failure.kind, targets, walk)
                return targets if instead is None else instead
            case _ if verdict.hopeless(failure):
                walk.done.add(target.identity)
            case Kind.SILENT | Kind.IMPATIENT:
                walk.silent.add(target.identity)
            case _ if not RULES[failure.kind].fall_back:
                raise verdict.refused(failure) from failure
            case _:
                pass
        return targets

    def _instead(
        self, groups: tuple[Group, ...], kind: Kind, targets: list[Target], walk: Walk
    ) -> list[Target] | None:
        """
        Return the targets that the file names for failures of this kind, the new plan.

        The second such failure goes on where the first one led. None when nobody can be asked.
        """
        if kind in walk.turned:
            return targets
        walk.turned.add(kind)
        plan = self._plan(
            groups,
            walk.policy,
            walk.needs,
            turn=walk.turn,
            skip=frozenset(walk.done),
            call=walk.call,
            unable=walk.could_not,
        )
        if not plan.steps:
            return None
        walk.plan = walk.plan._replace(steps=plan.steps)
        return list(plan.targets)

    async def _begins_again(self, walk: Walk) -> bool:
        """Wait for the first target to return and say True, when another lap may bring more."""
        open_to = [target for target in walk.plan.targets if walk.may_answer(target)]
        if walk.exhausted or not open_to or walk.call.wishes.num_retries == 0:
            return False
        now_s = self._clock.now()
        wait_s = min(self._away_s(target, walk) for target in open_to)
        wait_s = max(wait_s, backoff_s(walk.policy, 1, self._chance()) if wait_s == 0 else 0.0)
        if wait_s > walk.policy.retry_after_wait or now_s + wait_s >= walk.deadline_s:
            return False
        if not verdict.worth_a_lap(walk.failures.values()) or not self._budget.take(now_s):
            return False
        await self._sleep(wait_s, walk)
        return True

    def _away_s(self, target: Target, walk: Walk) -> float:
        """Return when the target may be asked again, by its health and by its own limits."""
        away_s = self._health.standing(target, walk.policy).away_s
        match walk.failures.get(target.identity):
            case UpstreamFailure(kind=Kind.FULL, retry_after_s=float(full_s)):
                return max(away_s, full_s)
            case _:
                return away_s

    async def _ask(self, target: Target, walk: Walk) -> Reply:
        """Ask one target until it answers, or until asking it again is pointless or too late."""
        for retry in count(1):
            try:
                return await self._once(target, walk)
            except UpstreamFailure as failure:
                # When its breaker has opened there is nothing to wait for.
                open_ = not self._health.standing(target, walk.policy).admits
                wait_s = None if open_ else self._wait_s(failure, retry, walk)
                if wait_s is None:
                    raise
            await self._sleep(wait_s, walk)
            walk.tally.retries += 1
        raise AssertionError("unreachable")

    def _wait_s(self, failure: UpstreamFailure, retry: int, walk: Walk) -> float | None:
        """Return how long to wait before asking the same target again; None: do not."""
        policy, asked_s = walk.policy, failure.retry_after_s
        if walk.racing:
            return None  # another is asked already
        if failure.kind is Kind.RATE_LIMITED:
            if asked_s is None or asked_s > policy.retry_after_wait:
                return None
            # It has named a time: once it is asked again, unless the caller wants no retries.
            least = 0 if walk.call.wishes.num_retries == 0 else 1
            allowed, wait_s = max(least, self._retries(walk)), asked_s
        elif RULES[failure.kind].retry:
            # A Retry-After is a floor, not a suggestion: waiting less only earns another refusal.
            wait_s = max(backoff_s(policy, retry, self._chance()), asked_s or 0.0)
            allowed = self._retries(walk)
        else:
            return None
        now_s = self._clock.now()
        late = now_s + wait_s >= walk.deadline_s or (asked_s or 0.0) > policy.retry_after_wait
        if retry > allowed or late or not self._budget.take(now_s):
            return None
        return wait_s

    def _retries(self, walk: Walk) -> int:
        for wish in (walk.call.wishes.num_retries, walk.ring.num_retries):
            if wish is not None:
                return wish
        return walk.policy.num_retries

    async def _sleep(self, wait_s: float, walk: Walk) -> None:
        await self._clock.sleep(wait_s)
        walk.tally.waits_s += wait_s

    async def _once(self, target: Target, walk: Walk) -> Reply:
        """Make one physical call under the target's breaker. Raises UpstreamFailure."""
        async with Owed() as owed:
            streamed = walk.call.stream
            watch = owed.enter_context(self._health.watch(target, walk.policy, streamed=streamed))
            if watch is None:
                # Another request took the probe between the plan and now.
                raise UpstreamFailure("the target is resting", kind=Kind.RESTING)
            # Before anybody else can plan: what waits for the ledger is as good as sent.
            hear = owed.enter_context(self._headroom.asking(target, walk.needs(target)))
            reservation = await owed.enter_async_context(
                self._quota.reserve(walk.admission, target)
            )
            walk.first_asked = walk.first_asked or target.provider
            owed.enter_context(self._metrics.attempt(target))
            reply = await self._call(target, reservation.call, walk)
            hear(reply.leeways)
            reservation.watch(reply)
            watch.answered(streamed=isinstance(reply, ChunkStream))
            walk.tally.target, walk.tally.provider = target.label, target.provider
            if isinstance(reply, ChunkStream):
                # Judged when it ends: a stream that breaks half-way is a failure of its target.
                return reply.owe(owed.pop_all())
            return reply

    async def _call(self, target: Target, call: Call, walk: Walk) -> Reply:
        """Have `target` asked, an entry of the tally's trail, whose time is that of the wire."""
        start_s, outcome = self._clock.now(), "cancelled"
        waiting = Waiting(self._clock.now)
        foreign = target.provider != walk.plan.home
        if target.timeouts.auto:
            target = self._health.timed(target, walk.policy)
        try:
            reply = await self._upstream.call(target, call, foreign=foreign, waiting=waiting)
            outcome = "200"
        except UpstreamFailure as failure:
            outcome = str(failure.provider_status or failure.kind)
            raise
        finally:
            # A provider that is asked over no wire of ours (boto3, gRPC, a mock) is all that time.
            took_s = waiting.total_s if waiting.used else self._clock.now() - start_s
            walk.tally.upstream_s += took_s
            walk.tally.trail.append(f"{target.label}:{outcome}")
        return reply
