"""
How much room each target has: what its provider says, and what the store of quota says of its own
limits. The plan reads it; nobody is refused by it.

Kept under a target's identity, like its health, so a reload changes nothing about what is known.
It is what this process last heard: no request waits for a store because of it, and without Redis
it goes on from what the providers say. Other replicas' calls are in what is heard next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from proxy.clock import Clock
from proxy.errors import ProxyError, UpstreamFailure
from proxy.leeway import NOTHING_SENT, Leeway, Need, ProviderUnit
from proxy.limits import ScopeKind, Unit
from proxy.limits import Standing as LimitStanding
from proxy.retry import UNASKED
from proxy.routing import Standing
from proxy.types import Target

# Names under a wildcard are endless; what is known of the longest unasked goes first.
RECORDS = 10_000
# The window of a deployment's own limits; and how long a provider is believed that does not say
# when its limit is back.
MINUTE_S = 60.0

Hear: TypeAlias = Callable[[Sequence[Leeway]], None]


@dataclass(frozen=True, slots=True)
class Said:
    """What the provider said of one of its limits, and what we had sent when we were told."""

    leeway: Leeway
    heard_s: float
    sent: Need  # up to and with the call that was answered so

    @property
    def until_s(self) -> float:
        """The moment from which on it is not believed any more."""
        reset_s = self.leeway.reset_s
        return self.heard_s + (MINUTE_S if reset_s is None else reset_s)


@dataclass(frozen=True, slots=True)
class Own:
    """How one of the limits that the file sets for the target stood when the store was asked."""

    used: int
    heard_s: float
    over_s: float  # until all of it is back

    def used_at(self, now_s: float) -> float:
        """Return what is used by now. What came in evenly goes out evenly."""
        return self.used * max(0.0, 1.0 - (now_s - self.heard_s) / self.over_s)


@dataclass(slots=True)
class Record:
    """What is known of one target."""

    sent: Need = NOTHING_SENT  # by this process, ever
    said: dict[ProviderUnit, Said] = field(default_factory=dict)
    own: dict[Unit, Own] = field(default_factory=dict)

    def hear(self, leeways: Sequence[Leeway], sent: Need, now_s: float) -> None:
        for leeway in leeways:
            known = self.said.get(leeway.unit)
            # Answers overtake each other: the one to the last call counts the most of them.
            if known is None or known.sent.requests <= sent.requests or known.until_s <= now_s:
                self.said[leeway.unit] = Said(leeway, now_s, sent)

    def current(self, now_s: float) -> list[Said]:
        return [said for said in self.said.values() if said.until_s > now_s]

    def left(self, said: Said) -> int:
        """Return what is left of it: less all that was sent since, answered or not."""
        since = (self.sent - said.sent).of(said.leeway.unit)
        return said.leeway.remaining - max(0, since)


class Headroom:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}

    @contextmanager
    def asking(self, target: Target, need: Need) -> Iterator[Hear]:
        """
        Count one call as sent from now on, before anybody else plans, unless it is never made.

        The block tells what its answer says of what is left; a failure tells it by itself.
        """
        record = self._record(target.identity)
        record.sent = sent = record.sent + need

        def hear(leeways: Sequence[Leeway]) -> None:
            record.hear(leeways, sent, self._clock.now())

        try:
            yield hear
        except ProxyError as error:
            if isinstance(error, UpstreamFailure) and error.kind not in UNASKED:
                hear(error.leeways)
            else:
                record.sent -= need
            raise

    def heard(self, standings: Iterable[LimitStanding]) -> None:
        """Take note of how the own limits of targets stand, which the store has just said."""
        for standing in standings:
            scope, unit = standing.limit.scope, standing.limit.unit
            if scope.kind is ScopeKind.TARGET and unit is not Unit.PARALLEL:
                own = Own(standing.used, self._clock.now(), standing.reset_s or MINUTE_S)
                self._record(scope.name).own[unit] = own

    def settled(self, target: Target, *, freed_tokens: int) -> None:
        """Take note that an attempt took so many tokens less than were set aside for it."""
        record = self._records.get(target.identity)
        own = record.own.get(Unit.TOKENS) if record is not None else None
        if record is not None and own is not None:
            now_s = self._clock.now()
            used = max(0, round(own.used_at(now_s)) - freed_tokens)
            record.own[Unit.TOKENS] = Own(used, now_s, MINUTE_S)

    def standing(
        self, target: Target, health: Standing, need: Callable[[Target], Need], *, cap_s: float
    ) -> Standing:
        """
        Return `health` with what is known of the target's room for a request of this `need`.

        Nobody is passed over for longer than `cap_s`, whatever a provider says.
        """
        record = self._records.get(target.identity)
        if record is None:
            return health
        now_s = self._clock.now()
        said = record.current(now_s)
        aside_s, why = _aside(record, said, need(target), now_s, cap_s) if said else (0.0, "")
        share = _share(record, said, target, now_s)
        return replace(health, headroom=share, aside_s=aside_s, aside_why=why)

    def leeways(self, target: Target) -> tuple[Leeway, ...]:
        """Return what the provider said, as far as it is still true: not beyond its reset."""
        record = self._records.get(target.identity)
        current = record.current(self._clock.now()) if record is not None else ()
        return tuple(said.leeway for said in current)

    def _record(self, identity: str) -> Record:
        # Taken out and put back: the first of them is the one that was not asked for longest.
        record = self._records.pop(identity, None) or Record()
        if len(self._records) >= RECORDS:
            del self._records[next(iter(self._records))]
        self._records[identity] = record
        return record


def _aside(
    record: Record, said: Sequence[Said], need: Need, now_s: float, cap_s: float
) -> tuple[float, str]:
    """Return for how long the target has no room for this request, and what the provider said."""
    longest_s, why = 0.0, ""
    for each in said:
        left = record.left(each)
        # Without a reset nobody knows until when to go round it.
        if each.leeway.reset_s is not None and left < need.of(each.leeway.unit):
            away_s = min(each.until_s, each.heard_s + cap_s) - now_s
            if away_s > longest_s:
                words = each.leeway.unit.value.replace("_", " ")
                longest_s, why = away_s, f"{max(0, left)} {words} left at the provider"
    return longest_s, why


def _share(record: Record, said: Sequence[Said], target: Target, now_s: float) -> float | None:
    """Return the smallest share that is left of any limit, 0 to 1; None where none is known."""
    shares: list[float] = []
    for most, unit in ((target.rpm, Unit.REQUESTS), (target.tpm, Unit.TOKENS)):
        own = record.own.get(unit)
        if most is not None and own is not None:
            shares.append(1.0 - own.used_at(now_s) / most if most else 0.0)
    for each in said:
        left, limit = record.left(each), each.leeway.limit
        if limit is not None:
            shares.append(left / limit)
        elif left <= 0:
            shares.append(0.0)
    return min(1.0, max(0.0, min(shares))) if shares else None
