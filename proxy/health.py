"""
One breaker, one cooldown and one latency average per target, and the one place that tells them
how an attempt went.

Kept under a target's identity (provider, base, model, key), so a reload changes nothing about
what is known, and two names for the same place share it.

A rest that begins is a line in the log, and so is the first answer after it. Their number is
bounded by the rests, never by the requests.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf
from types import TracebackType

from proxy.breaker import Breaker, Permit, State
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.log import Log
from proxy.pace import NEARLY_ALL, Pace, patience_s
from proxy.policy import RingPolicy
from proxy.retry import RULES, UNASKED, Kind, Rest, cooldown_s
from proxy.standing import ROOM_UNKNOWN, Room, Standing
from proxy.types import Target

# Names under a wildcard are endless; what is known of the longest forgotten goes first.
RECORDS = 10_000
NO_COOLDOWNS = (None, None)  # of the target itself, and of its key
# A cooldown shorter than this is not logged: it may come with every other request.
LOGGED_S = 5.0
SLOW = "slow"  # in place of a failure's kind, where a breaker opens without any


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
    last_failure: UpstreamFailure | None = None  # that it was to blame for
    pace: Pace = field(default_factory=Pace)
    timed: tuple[Target, Target] | None = None  # as it is in the file, and as it is asked


class Watch:
    """
    One call under watch: a block that lets it through, and learns from how it ends.

    It is None inside where the breaker does not admit the call, which must not be made then.
    `answered` is told when its first content is in hand.
    """

    __slots__ = (
        "_clock", "_health", "_heard", "_number", "_slow", "_streamed", "permit", "policy",
        "record", "started_s", "target",
    )  # fmt: skip

    def __init__(
        self, health: Health, clock: Clock, target: Target, policy: RingPolicy, *, streamed: bool
    ) -> None:
        self._health = health
        self._clock = clock
        self._streamed = streamed  # a stream is asked for
        self._number = 0  # of the call, among those of its target
        self._slow = False
        self._heard = False
        self.target = target
        self.policy = policy
        self.record = health.record(target, policy)
        self.started_s = clock.now()
        self.permit: Permit | None = None

    def __enter__(self) -> Watch | None:
        self.permit = self.record.breaker.enter(self.started_s)
        if self.permit is None:
            return None
        self._number = self.record.pace.begins(self.started_s, streamed=self._streamed)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.permit is None:
            return
        now_s = self._clock.now()
        record = self.record
        ok: bool | None = None  # leaving by cancellation says nothing about the target
        failure = error if isinstance(error, UpstreamFailure) else None
        if error is None:
            ok, record.pace.told_s = True, now_s
            if self.started_s >= record.cooled_s:
                record.cooldowns = 0
        elif failure is not None and failure.kind not in UNASKED:
            ok, record.pace.told_s = self._health.learn(self, failure), now_s
        if failure is not None and failure.kind is Kind.SILENT:
            # It would have taken longer yet.
            record.pace.awaited(record.pace.told_s - self.started_s, streamed=self._streamed)
        record.pace.under_way -= 1
        self._hears()
        # A slow one has been counted already.
        record.breaker.leave(self.permit, ok=None if self._slow else ok, now_s=now_s)
        if failure is not None and failure.kind not in UNASKED:
            self._health.rests(self.target, self.policy, failure.kind)

    def answered(self, *, streamed: bool) -> None:
        record, permit = self.record, self.permit
        if permit is None:
            return
        now_s = record.pace.told_s = self._clock.now()
        self._hears()
        record.pace.overtook(self._number)
        took_s = now_s - self.started_s
        record.pace.took(took_s, streamed=streamed)
        limit_s = self.policy.breaker.slow
        # A whole answer has no first token: it takes as long as the model has to say.
        self._slow = streamed and limit_s is not None and took_s > limit_s
        if self._slow:
            # Told now: who waited that long for a first token may not stay for the last.
            record.breaker.leave(permit, ok=False, now_s=now_s)
            self._health.rests(self.target, self.policy, SLOW)
            return
        if permit.probe:
            # The probe has its answer: a long stream need not end before the others come back.
            record.breaker.leave(permit, ok=True, now_s=now_s)
            if record.breaker.state(now_s) is State.CLOSED:
                self.permit = record.breaker.enter(now_s) or permit
        self._health.returns(self.target, self.policy)

    def _hears(self) -> None:
        """Take note that this call waits no longer, for whatever reason."""
        self.record.pace.hears(self._number, heard=self._heard)
        self._heard = True


@dataclass(frozen=True, slots=True)
class Logged:
    """A rest that stands in the log, and whose return does not yet."""

    identity: str
    since_s: float
    until_s: float


class Rests:
    """Logs when a target goes to rest and when it is back, each once. No secret is in a line."""

    def __init__(self, clock: Clock, log: Log | None) -> None:
        self._clock = clock
        self._log = log
        self._logged: dict[str, Logged] = {}

    def begins(self, target: Target, standing: Standing, kind: str, *, open_s: float) -> None:
        """Log the rest of `target`, of `open_s` for its breaker, unless its line is there."""
        rest_s = max(standing.cooling_s, open_s)
        if self._log is None or (rest_s < LOGGED_S and open_s <= 0):
            return
        now_s = self._clock.now()
        known = self._logged.get(_place(target))
        # The calls that were under way when it began prolong a rest a little, each of them. What
        # makes it more than twice as long is another one: an account found empty, say.
        if known is not None and rest_s <= 2 * (known.until_s - now_s):
            return
        since_s = known.since_s if known and known.identity == target.identity else now_s
        if standing.failure is not None and standing.cooling_s >= rest_s:
            kind = standing.failure.kind  # the last failure need not be the one that it rests for
        self._logged[_place(target)] = Logged(target.identity, since_s, now_s + rest_s)
        self._log.line(
            "target_rests",
            level="warning",
            target=target.label,
            kind=kind,
            rest_s=round(rest_s, 3),
            reason=standing.word(),
        )

    def stands(self, target: Target) -> bool:
        """Say whether a rest of the target is in the log, and its return is not."""
        known = self._logged.get(_place(target)) if self._logged else None
        return known is not None and known.identity == target.identity

    def ends(self, target: Target) -> None:
        """Log that the target is back, whose rest stands there."""
        known = self._logged.pop(_place(target), None)
        if self._log is not None and known is not None:
            away_s = round(self._clock.now() - known.since_s, 3)
            self._log.line("target_returns", level="info", target=target.label, away_s=away_s)


def _place(target: Target) -> str:
    # Names under a wildcard are endless, and their rests would be as many: one place for all.
    return target.label if "*" in target.label else target.identity


class Health:
    def __init__(self, clock: Clock, log: Log | None = None) -> None:
        """`log` is told of every target that goes to rest, and of its return."""
        self._clock = clock
        self._rests = Rests(clock, log)
        self._records: dict[str, Record] = {}
        self._credentials: dict[str, Cooldown] = {}

    def standing(self, target: Target, policy: RingPolicy, room: Room = ROOM_UNKNOWN) -> Standing:
        """Return what the plan needs to know of `target`, frozen at this moment."""
        now_s = self._clock.now()
        record = self.record(target, policy)
        cooldown, breaker = self._cooldown(target, record, now_s), record.breaker
        closed = breaker.state(now_s) is State.CLOSED
        return Standing(
            admits=closed or breaker.admits(now_s),
            cooling_s=cooldown.until_s - now_s if cooldown else 0.0,
            open_for_s=0.0 if closed else breaker.returns_in_s(now_s),
            closed=closed,
            failure=cooldown.failure if cooldown else record.last_failure,
            latency_s=record.pace.latency_s,
            expected_s=record.pace.expected_s(now_s),
            in_flight=record.pace.under_way,
            hung_s=record.pace.hung_s(policy.breaker.failures, now_s),
            cause="" if closed else breaker.why(now_s),
            room=room,
        )

    def quiet_s(self, target: Target, policy: RingPolicy) -> float:
        """
        Return for how long no call has told how `target` is: infinite where none ever has.

        While one is under way it is 0: there will be news.
        """
        record = self.record(target, policy)
        return 0.0 if record.pace.under_way else self._clock.now() - record.pace.told_s

    def away_s(self, target: Target, policy: RingPolicy) -> float:
        """Return the seconds until `target` may be asked; 0 when it may be now."""
        now_s = self._clock.now()
        record = self.record(target, policy)
        cooldown, breaker = self._cooldown(target, record, now_s), record.breaker
        cooling_s = cooldown.until_s - now_s if cooldown else 0.0
        return cooling_s if breaker.admits(now_s) else max(cooling_s, breaker.returns_in_s(now_s))

    def percentile_s(
        self, target: Target, policy: RingPolicy, share: float, *, streamed: bool
    ) -> float | None:
        """Return what so large a share of its last answers took to begin; None: not known."""
        pace = self.record(target, policy).pace
        return pace.percentile_s(share, self._clock.now(), streamed=streamed)

    def timed(self, target: Target, policy: RingPolicy) -> Target:
        """Return `target` with the patience that its last first tokens have earned, if it may."""
        timeouts = target.timeouts
        if not timeouts.auto:
            return target
        known_s = self.percentile_s(target, policy, NEARLY_ALL, streamed=True)
        limit_s = patience_s(known_s, timeouts.first_token_s)
        record = self.record(target, policy)
        found = record.timed
        if found is None or found[0] is not target or found[1].timeouts.first_token_s != limit_s:
            timed = replace(target, timeouts=replace(timeouts, first_token_s=limit_s))
            found = record.timed = (target, timed)
        return found[1]

    def overtaken(
        self, target: Target, policy: RingPolicy, waited_s: float, *, streamed: bool
    ) -> None:
        """Take note that another answered while `target` let a call wait: it is slow, not bad."""
        pace = self.record(target, policy).pace
        pace.told_s = self._clock.now()
        pace.awaited(waited_s, streamed=streamed)

    def watch(self, target: Target, policy: RingPolicy, *, streamed: bool = False) -> Watch:
        """Return a block that is one call of `target`. `streamed`: a stream is asked for."""
        return Watch(self, self._clock, target, policy, streamed=streamed)

    def returns(self, target: Target, policy: RingPolicy) -> None:
        """Take note that `target` has answered: where its rest is in the log, so is its return."""
        if self._rests.stands(target) and self.standing(target, policy).healthy:
            self._rests.ends(target)

    def rests(self, target: Target, policy: RingPolicy, kind: str) -> None:
        """Take note that a failure of this kind may have sent `target` to rest."""
        breaker, now_s = self.record(target, policy).breaker, self._clock.now()
        # Half open it is away too, while somebody probes it, but that is no rest.
        open_s = breaker.returns_in_s(now_s) if breaker.state(now_s) is State.OPEN else 0.0
        self._rests.begins(target, self.standing(target, policy), kind, open_s=open_s)

    def learn(self, watch: Watch, failure: UpstreamFailure) -> bool | None:
        """
        Remember a failure, and for how long it asks for a rest.

        Returns False where the target is to blame, None where it says nothing about it.
        """
        rule, record = RULES[failure.kind], watch.record
        known = failure.remembered()
        if rule.blame:
            record.last_failure = known
        until_s = self._clock.now() + self._rest_s(failure, watch)
        if rule.rest is Rest.CREDENTIAL:
            self._credentials[watch.target.credential] = Cooldown(until_s, known)
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
        if known == NO_COOLDOWNS:
            return None
        cooling = [cooldown for cooldown in known if cooldown and cooldown.until_s > now_s]
        return max(cooling, key=lambda cooldown: cooldown.until_s, default=None)

    def record(self, target: Target, policy: RingPolicy) -> Record:
        """Return what is known of `target`."""
        # Taken out and put back: the first of them is the one that was not used for longest.
        record = self._records.pop(target.identity, None) or Record(Breaker(policy.breaker))
        if len(self._records) >= RECORDS:
            del self._records[next(iter(self._records))]
        record.breaker.policy = policy.breaker  # a reload may change the numbers
        self._records[target.identity] = record
        return record
