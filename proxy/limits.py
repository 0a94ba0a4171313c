"""
What may be used, of what, by whom and in which window: the words that quota and its stores share.

Those that are made several times for each request are tuples, which are made fastest.
Whole numbers only: requests, tokens, and money in nano-dollars (docs/design/0004).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

NANO = 1_000_000_000  # nano-dollars in a dollar


class Unit(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    NANO_USD = "nano_usd"
    PARALLEL = "parallel"  # requests under way


class Window(StrEnum):
    """Over which time it is counted. Calendar windows are UTC; the minute slides."""

    NOW = "now"
    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"
    TOTAL = "total"


class ScopeKind(StrEnum):
    """Whose use is counted together; closed, so that it may be a metric label."""

    KEY = "key"
    TEAM = "team"
    USER = "user"  # the request's `user`
    MODEL = "model"  # the public name that was asked for
    TARGET = "target"  # a deployment, by its identity


# Looked up once, for the path of every request: to name a member of an enumeration is a call.
REQUESTS, TOKENS, NANO_USD = Unit.REQUESTS, Unit.TOKENS, Unit.NANO_USD
OF_TARGET = ScopeKind.TARGET


class Scope(NamedTuple):
    """
    Whose use is counted together.

    A tuple, because every counter is found by one, several times in a request: a dataclass's own
    hash would be most of what a limit costs.
    """

    kind: ScopeKind
    name: str


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` of `unit` in any one `window`, for all that `scope` does together."""

    scope: Scope
    unit: Unit
    window: Window
    most: int
    word: str  # as the file calls it: rpm, tpd, budget_usd.month, ...

    @property
    def counter(self) -> tuple[Scope, Unit, Window]:
        """What it is counted under: a new number for the same limit finds the old count."""
        return (self.scope, self.unit, self.window)


class Claim(NamedTuple):
    """What one attempt may take of one limit."""

    limit: Limit
    amount: int


class Standing(NamedTuple):
    """How one limit stands at a moment: settled and open together, and when it is all back."""

    limit: Limit
    used: int
    reset_s: float  # until all is back, were nobody to come and nothing to be settled later

    @property
    def remaining(self) -> int:
        return max(0, self.limit.most - self.used)


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    The limit that left no room, and when it will have some.

    `retry_after_s` is None when waiting does not help: more is asked for than there ever is, or
    nothing of a total comes back.
    """

    limit: Limit
    used: int
    wanted: int
    retry_after_s: float | None
    reset_s: float = 0.0  # as in Standing

    @property
    def remaining(self) -> int:
        return max(0, self.limit.most - self.used)

    def standing(self) -> Standing:
        return Standing(self.limit, self.used, self.reset_s)


def worst(refusals: Sequence[Refusal]) -> Refusal | None:
    """
    Return the refusal to tell of, or None when there is none.

    One of the caller's own stands above one of a deployment's, which another may not have; among
    them one that no waiting helps, else the one that lasts longest.
    """
    own = [refusal for refusal in refusals if refusal.limit.scope.kind is not ScopeKind.TARGET]
    told = own or refusals
    never = [refusal for refusal in told if refusal.retry_after_s is None]
    return max(never or told, key=lambda refusal: refusal.retry_after_s or 0.0, default=None)


class Spent(NamedTuple):
    """What an attempt has taken in the end, whatever was reserved for it."""

    tokens: int = 0
    nano_usd: int = 0

    def of(self, unit: Unit) -> int:
        if unit is Unit.TOKENS:
            return self.tokens
        return self.nano_usd if unit is Unit.NANO_USD else 0


NOTHING = Spent()


def duration(seconds: float) -> str:
    """Return a time as OpenAI writes it in `x-ratelimit-reset-*`: `17ms`, `1.5s`, `6m0s`."""
    if 0 < seconds < 0.9995:
        return f"{max(1, round(seconds * 1000))}ms"
    minutes, rest_s = divmod(round(max(0.0, seconds), 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = (f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else "")
    return f"{''.join(parts)}{rest_s:g}s"


def usd(nano_usd: int) -> str:
    """Return dollars as a decimal number with six places, or as many as lose nothing: 0.001117."""
    whole, rest = divmod(nano_usd, NANO)
    places = f"{rest:09d}"
    return f"{whole}.{places[:6]}{places[6:].rstrip('0')}"
