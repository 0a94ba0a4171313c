"""
What a failed attempt means, and how long to wait before asking again. Pure.

`upstream/failures.py` decides which Kind a foreign exception or status is. Nothing after it may
look at an exception.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from proxy.policy import RetryBudget, RingPolicy

BUDGET_WINDOW_S = 10.0


class Kind(StrEnum):
    """Everything that can go wrong with an attempt, as far as the ring cares."""

    CALLER = "caller"
    DIALECT = "dialect"
    OVERSIZED = "oversized"
    CONTENT = "content"
    FORGOTTEN = "forgotten"
    CREDENTIAL = "credential"
    EXHAUSTED = "exhausted"
    MISSING = "missing"
    RATE_LIMITED = "rate_limited"
    TRANSIENT = "transient"
    OVERLOADED = "overloaded"
    UNREACHABLE = "unreachable"
    SILENT = "silent"
    IMPATIENT = "impatient"
    BROKEN = "broken"
    RESTING = "resting"
    FULL = "full"
    UNPRICED = "unpriced"


# Failures of calls that were never made: nothing was learnt about the target.
UNASKED = frozenset({Kind.RESTING, Kind.FULL, Kind.UNPRICED})


class Rest(StrEnum):
    """How a target is left alone after a failure, beside what its breaker decides."""

    NONE = "none"
    COOL = "cool"  # as its Retry-After says, else doubling from cooldown_time
    LONG = "long"  # `long_rest`: only a person can mend it
    CREDENTIAL = "credential"  # `long_rest`, for every target that uses the same key


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do after a failure of one kind."""

    retry: bool  # the same target may answer if asked again
    fall_back: bool  # another target may answer
    blame: bool  # counts against the target's breaker
    rest: Rest = Rest.NONE


RULES: dict[Kind, Rule] = {
    Kind.CALLER: Rule(retry=False, fall_back=False, blame=False),
    # The request was right for the provider it was written for; the next one may understand it.
    Kind.DIALECT: Rule(retry=False, fall_back=True, blame=False),
    # Too long for this model, perhaps not for the next; the target is healthy.
    Kind.OVERSIZED: Rule(retry=False, fall_back=True, blame=False),
    # Only `content_policy_fallbacks` may be asked: `attempts.py` looks for them.
    Kind.CONTENT: Rule(retry=False, fall_back=False, blame=False),
    # It does not hold what the request goes on from; the caller can say all of it again.
    Kind.FORGOTTEN: Rule(retry=False, fall_back=True, blame=False),
    Kind.CREDENTIAL: Rule(retry=False, fall_back=True, blame=False, rest=Rest.LONG),
    # An empty account does not refill within a request, and every target on its key is as empty.
    Kind.EXHAUSTED: Rule(retry=False, fall_back=True, blame=False, rest=Rest.CREDENTIAL),
    Kind.MISSING: Rule(retry=False, fall_back=True, blame=False, rest=Rest.COOL),
    # A 429 is the target being honest: it cools, and its breaker hears nothing of it. It is asked
    # again only when its Retry-After is short.
    Kind.RATE_LIMITED: Rule(retry=False, fall_back=True, blame=False, rest=Rest.COOL),
    Kind.TRANSIENT: Rule(retry=True, fall_back=True, blame=True),
    Kind.OVERLOADED: Rule(retry=True, fall_back=True, blame=True),
    # Asking again at once meets the same closed port; the next target does not.
    Kind.UNREACHABLE: Rule(retry=False, fall_back=True, blame=True),
    # It has had its whole first-token timeout already.
    Kind.SILENT: Rule(retry=False, fall_back=True, blame=True),
    # The caller's own timeout ran out, which is shorter than the target's: it blames nobody.
    Kind.IMPATIENT: Rule(retry=False, fall_back=True, blame=False),
    # Content is out: nothing can be asked again, but the target is to blame.
    Kind.BROKEN: Rule(retry=False, fall_back=False, blame=True),
    # Our own breaker or cooldown said no; the target was never asked.
    Kind.RESTING: Rule(retry=False, fall_back=True, blame=False),
    # A limit that the file sets for the deployment itself left no room; it was never asked.
    Kind.FULL: Rule(retry=False, fall_back=True, blame=False),
    # The caller has a budget and the target no price; it was never asked.
    Kind.UNPRICED: Rule(retry=False, fall_back=True, blame=False),
}


def backoff_s(policy: RingPolicy, retry: int, jitter: float) -> float:
    """
    Return the seconds to wait before retry number `retry` (1 is the first).

    Exponential with full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter");
    `jitter` is a random number in [0, 1).
    """
    ceiling_s = min(policy.backoff_cap, policy.backoff_base * 2.0 ** min(retry - 1, 32))
    return ceiling_s * jitter


def cooldown_s(policy: RingPolicy, retry_after_s: float | None, times: int) -> float:
    """
    Return how long a target cools after its `times`-th failure in a row (1 is the first).

    A usable Retry-After is taken as it is, up to `retry_after_cap`; without one the rest doubles.
    """
    if retry_after_s is not None:
        return min(retry_after_s, policy.retry_after_cap)
    return min(policy.cooldown_cap, policy.cooldown_time * 2.0 ** min(times - 1, 32))


class Budget:
    """
    Counts the retries of the last 10 s against the requests of the last 10 s.

    A retry that the budget refuses goes on to the next target instead, so a fault that hits
    every request cannot multiply the traffic. One event loop owns it.
    """

    def __init__(self, policy: RetryBudget) -> None:
        self.policy = policy
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def request(self, now_s: float) -> None:
        self._requests.append(now_s)
        _forget(self._requests, now_s)

    def take(self, now_s: float) -> bool:
        """Say whether one more retry fits, and count it when it does."""
        _forget(self._requests, now_s)
        _forget(self._retries, now_s)
        allowed = max(self.policy.min, int(self.policy.share * len(self._requests)))
        if len(self._retries) >= allowed:
            return False
        self._retries.append(now_s)
        return True


def _forget(moments: deque[float], now_s: float) -> None:
    while moments and moments[0] <= now_s - BUDGET_WINDOW_S:
        moments.popleft()
