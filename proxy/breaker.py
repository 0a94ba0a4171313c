"""
A circuit breaker as a plain state machine: no locks, no timers, no clock of its own.

Every method takes `now_s`, so a test drives a minute in a line. One event loop owns it, which is
why there is no lock; keep it free of `await`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from proxy.policy import BreakerPolicy

WINDOW_S = 30.0
BUCKET_S = 1.0
# A probe that has not reported by then is taken for lost, and another may go.
PROBE_LEASE_S = 60.0


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to make one call, good for the state of the breaker it was given in."""

    generation: int
    probe: bool


@dataclass(slots=True)
class _Bucket:
    start_s: float
    calls: int = 0
    failures: int = 0


class Breaker:
    def __init__(self, policy: BreakerPolicy) -> None:
        self.policy = policy
        self._state = State.CLOSED
        self._streak = 0
        self._buckets: deque[_Bucket] = deque()
        self._openings = 0  # in a row: reset by a closing
        self._open_until_s = 0.0
        self._probe_until_s: float | None = None
        # Bumped on every transition and with every probe, so that an answer to a question asked
        # before cannot be counted after it.
        self._generation = 0
        self._since = 0  # the generation that the present state began with
        self._cause = ""

    def state(self, now_s: float) -> State:
        if self._state is State.OPEN and now_s >= self._open_until_s:
            self._enter(State.HALF_OPEN)
        return self._state

    def admits(self, now_s: float) -> bool:
        """Say whether a call would be let through, without taking the half-open probe."""
        state = self.state(now_s)
        return state is State.CLOSED or (state is State.HALF_OPEN and not self._probing(now_s))

    def returns_in_s(self, now_s: float) -> float:
        """Seconds until a call may be let through; 0 when it may now."""
        match self.state(now_s):
            case State.CLOSED:
                return 0.0
            case State.OPEN:
                return self._open_until_s - now_s
            case State.HALF_OPEN:
                return max(0.0, (self._probe_until_s or now_s) - now_s)

    def why(self, now_s: float) -> str:
        """Return why no call is let through, for a person; nothing when one is."""
        if self.admits(now_s):
            return ""
        return self._cause if self._state is State.OPEN else "its one probe is under way"

    def enter(self, now_s: float) -> Permit | None:
        """Take a permit, or None when the call must not be made."""
        if not self.admits(now_s):
            return None
        probe = self._state is State.HALF_OPEN
        if probe:
            self._probe_until_s = now_s + PROBE_LEASE_S
            # A probe of its own generation: when one that was taken for lost fails or says nothing,
            # that is not the next one's result.
            self._generation += 1
        return Permit(self._generation, probe)

    def leave(self, permit: Permit, *, ok: bool | None, now_s: float) -> None:
        """Report how the call went. `ok` is None when that says nothing about the target."""
        if permit.generation != self._generation:
            if ok and self._probed_by(permit):
                # It was slower than its lease, and yet the target answers.
                self._settle_probe(ok=True, now_s=now_s)
            return
        if ok is None:
            self._probe_until_s = None
        elif self._state is State.HALF_OPEN:
            self._settle_probe(ok=ok, now_s=now_s)
        else:
            self._count(ok=ok, now_s=now_s)

    def _probed_by(self, permit: Permit) -> bool:
        """Say whether the permit is for a probe of the half-open period of this moment."""
        return self._state is State.HALF_OPEN and permit.generation > self._since

    def _settle_probe(self, *, ok: bool, now_s: float) -> None:
        if ok:
            self._openings = 0
            self._enter(State.CLOSED)
        else:
            self._open(now_s, "its probe failed")

    def _count(self, *, ok: bool, now_s: float) -> None:
        while self._buckets and self._buckets[0].start_s <= now_s - WINDOW_S:
            self._buckets.popleft()
        if not self._buckets or now_s - self._buckets[-1].start_s >= BUCKET_S:
            self._buckets.append(_Bucket(now_s))
        self._buckets[-1].calls += 1
        if ok:
            self._streak = 0
            return
        self._streak += 1
        self._buckets[-1].failures += 1
        calls = sum(bucket.calls for bucket in self._buckets)
        failures = sum(bucket.failures for bucket in self._buckets)
        if self._streak >= self.policy.failures:
            self._open(now_s, f"{self._streak} failure{'s' * (self._streak > 1)} in a row")
        elif calls >= self.policy.min_calls and failures >= self.policy.share * calls:
            self._open(now_s, f"{failures} of {calls} calls failed")

    def _open(self, now_s: float, cause: str) -> None:
        self._cause = cause
        self._openings += 1
        rest_s = min(self.policy.rest * self._openings, self.policy.rest_cap)
        self._open_until_s = now_s + rest_s
        self._enter(State.OPEN)

    def _enter(self, state: State) -> None:
        self._state = state
        self._generation += 1
        self._since = self._generation
        self._streak = 0
        self._buckets.clear()
        self._probe_until_s = None

    def _probing(self, now_s: float) -> bool:
        return self._probe_until_s is not None and now_s < self._probe_until_s
