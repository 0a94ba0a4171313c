"""
One breaker, one cooldown and one latency average per target, and the one place that tells them
how an attempt went.

Kept under a target's identity (provider, base, model, key), so a reload changes nothing about
what is known, and two names for the same place share it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf

from proxy.breaker import Breaker, Permit, State
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.policy import RingPolicy
from proxy.retry import RULES, Rest, cooldown_s
from proxy.routing import Standing
from proxy.types import Target

# Names under a wildcard are endless; what is known of the longest forgotten goes first.
RECORDS = 10_000
LATENCY_WEIGHT = 0.2  # of the newest first token in the decaying average


@dataclass(slots=True)
class Cooldown:
    """A target's rest outside its breaker, and the failure that caused it."""

    until_s: float
    failure: UpstreamFailure


@dataclass(slots=True)
class Record:
    """What is known of one target."""

    breaker: Breaker
    cooldown: Cooldown | None = None
    cooldowns: int = 0  # in a row, without a Retry-After: the exponent of the doubling
    cooled_s: float = -inf  # the moment of the last of them
    latency_s: float | None = None  # decaying average of the time to first content
    last_failure: UpstreamFailure | None = None  # that it was to blame for


@dataclass(slots=True)
class Watch:
    """One attempt under watch; `answered` is told when its first content is in hand."""

    record: Record
    permit: Permit
    policy: RingPolicy
    clock: Clock
    started_s: float
    slow: bool = field(default=False)

    def answered(self, *, streamed: bool) -> None:
        now_s = self.clock.now()
        took_s = now_s - self.started_s
        known_s = self.record.latency_s
        self.record.latency_s = (
            took_s if known_s is None else known_s + LATENCY_WEIGHT * (took_s - known_s)
        )
        limit_s = self.policy.breaker.slow
        # A whole answer has no first token: it takes as long as the model has to say.
        self.slow = streamed and limit_s is not None and took_s > limit_s
        if self.slow:
            # Told now: who waited that long for a first token may not stay for the last.
            self.record.breaker.leave(self.permit, ok=False, now_s=now_s)
        elif self.permit.probe:
            # The probe has its answer: a long stream need not end before the others come back.
            self.record.breaker.leave(self.permit, ok=True, now_s=now_s)
            self.permit = self.record.breaker.enter(now_s) or self.permit


class Health:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}
        self._credentials: dict[str, Cooldown] = {}

    def standing(self, target: Target, policy: RingPolicy) -> Standing:
        """Return what the plan needs to know of `target`, frozen at this moment."""
        now_s = self._clock.now()
        record = self._record(target, policy)
        cooldown = self._cooldown(target, record, now_s)
        open_for_s = record.breaker.returns_in_s(now_s)
        state = record.breaker.state(now_s)
        return Standing(
            admits=record.breaker.admits(now_s),
            cooling_s=cooldown.until_s - now_s if cooldown else 0.0,
            open_for_s=open_for_s,
            closed=state is State.CLOSED,
            failure=cooldown.failure if cooldown else record.last_failure,
            latency_s=record.latency_s,
            cause=record.breaker.why(now_s),
        )

    @contextmanager
    def watch(self, target: Target, policy: RingPolicy) -> Iterator[Watch | None]:
        """
        Let one call through and learn from how the block ends.

        Yields None when the breaker does not admit it: the call must not be made.
        """
        record = self._record(target, policy)
        now_s = self._clock.now()
        permit = record.breaker.enter(now_s)
        if permit is None:
            yield None
            return
        watch = Watch(record, permit, policy, self._clock, now_s)
        ok: bool | None = None  # leaving by cancellation says nothing about the target
        try:
            yield watch
            ok = True
            if watch.started_s >= record.cooled_s:
                record.cooldowns = 0
        except UpstreamFailure as failure:
            ok = self._learn(target, watch, failure)
            raise
        finally:
            # A slow one has been counted already.
            ok = None if watch.slow else ok
            record.breaker.leave(watch.permit, ok=ok, now_s=self._clock.now())

    def _learn(self, target: Target, watch: Watch, failure: UpstreamFailure) -> bool | None:
        rule, record = RULES[failure.kind], watch.record
        known = failure.remembered()
        if rule.blame:
            record.last_failure = known
        until_s = self._clock.now() + self._rest_s(failure, watch)
        if rule.rest is Rest.CREDENTIAL:
            self._credentials[target.credential] = Cooldown(until_s, known)
        elif record.cooldown is None or until_s > record.cooldown.until_s:
            # Never shortened: the answers to calls made together come in any order.
            record.cooldown = Cooldown(until_s, known)
        return False if rule.blame else None

    def _rest_s(self, failure: UpstreamFailure, watch: Watch) -> float:
        rule, record, policy = RULES[failure.kind], watch.record, watch.policy
        match rule.rest:
            case Rest.COOL:
                # The calls that were under way when it began to cool met the same limit.
                if failure.retry_after_s is None and watch.started_s >= record.cooled_s:
                    record.cooldowns += 1
                    record.cooled_s = self._clock.now()
                return cooldown_s(policy, failure.retry_after_s, max(1, record.cooldowns))
            case Rest.LONG | Rest.CREDENTIAL:
                return policy.long_rest
            case Rest.NONE:
                if failure.retry_after_s is None or not rule.fall_back:
                    return 0.0
                # A 503 with a Retry-After asks to be left alone as a 429 does.
                return cooldown_s(policy, failure.retry_after_s, 1)

    def _cooldown(self, target: Target, record: Record, now_s: float) -> Cooldown | None:
        known = (record.cooldown, self._credentials.get(target.credential))
        cooling = [cooldown for cooldown in known if cooldown and cooldown.until_s > now_s]
        return max(cooling, key=lambda cooldown: cooldown.until_s, default=None)

    def _record(self, target: Target, policy: RingPolicy) -> Record:
        # Taken out and put back: the first of them is the one that was not used for longest.
        record = self._records.pop(target.identity, None) or Record(Breaker(policy.breaker))
        if len(self._records) >= RECORDS:
            del self._records[next(iter(self._records))]
        record.breaker.policy = policy.breaker  # a reload may change the numbers
        self._records[target.identity] = record
        return record
