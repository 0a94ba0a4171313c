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
    latency_s: float | None = None  # decaying average of the time to first content
    last_failure: UpstreamFailure | None = None


@dataclass(slots=True)
class Watch:
    """One attempt under watch; `answered` is told when its first content is in hand."""

    record: Record
    permit: Permit
    policy: RingPolicy
    clock: Clock
    started_s: float
    slow: bool = field(default=False)

    def answered(self) -> None:
        now_s = self.clock.now()
        took_s = now_s - self.started_s
        known_s = self.record.latency_s
        self.record.latency_s = (
            took_s if known_s is None else known_s + LATENCY_WEIGHT * (took_s - known_s)
        )
        limit_s = self.policy.breaker.slow
        self.slow = limit_s is not None and took_s > limit_s
        if self.permit.probe and not self.slow:
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
            ok = not watch.slow
            record.cooldowns = 0
        except UpstreamFailure as failure:
            ok = self._learn(target, record, failure, policy)
            raise
        finally:
            record.breaker.leave(watch.permit, ok=ok, now_s=self._clock.now())

    def _learn(
        self, target: Target, record: Record, failure: UpstreamFailure, policy: RingPolicy
    ) -> bool | None:
        rule = RULES[failure.kind]
        record.last_failure = failure
        now_s = self._clock.now()
        match rule.rest:
            case Rest.COOL:
                record.cooldowns += failure.retry_after_s is None
                rest_s = cooldown_s(policy, failure.retry_after_s, max(1, record.cooldowns))
                record.cooldown = Cooldown(now_s + rest_s, failure)
            case Rest.LONG:
                record.cooldown = Cooldown(now_s + policy.long_rest, failure)
            case Rest.CREDENTIAL:
                self._credentials[target.credential] = Cooldown(now_s + policy.long_rest, failure)
            case Rest.NONE:
                if failure.retry_after_s is not None and rule.fall_back:
                    # A 503 with a Retry-After asks to be left alone as a 429 does.
                    rest_s = cooldown_s(policy, failure.retry_after_s, 1)
                    record.cooldown = Cooldown(now_s + rest_s, failure)
        return False if rule.blame else None

    def _cooldown(self, target: Target, record: Record, now_s: float) -> Cooldown | None:
        known = (record.cooldown, self._credentials.get(target.credential))
        cooling = [cooldown for cooldown in known if cooldown and cooldown.until_s > now_s]
        return max(cooling, key=lambda cooldown: cooldown.until_s, default=None)

    def _record(self, target: Target, policy: RingPolicy) -> Record:
        record = self._records.get(target.identity)
        if record is None:
            if len(self._records) >= RECORDS:
                del self._records[next(iter(self._records))]
            record = self._records[target.identity] = Record(Breaker(policy.breaker))
        elif record.breaker.policy is not policy.breaker:
            record.breaker.policy = policy.breaker  # a reload may change the numbers
        return record
