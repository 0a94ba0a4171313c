"""
How much room each target has: what its provider says, and what the store of quota says of its own
limits. The plan reads it; nobody is refused by it.

Kept under a target's identity, like its health, so a reload changes nothing about what is known.
It is what this process last heard: no request waits for a store because of it, and without Redis
it goes on from what the providers say. Other replicas' calls are in what is heard next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeAlias

from proxy.clock import Clock
from proxy.errors import ProxyError, UpstreamFailure
from proxy.leeway import NOTHING_SENT, Leeway, Need, ProviderUnit
from proxy.limits import ScopeKind, Standing, Unit
from proxy.retry import UNASKED
from proxy.standing import ROOM_UNKNOWN, Room
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
    until_s: float  # it is not believed from this moment on
    calls: int  # that we had made, up to and with the one that was answered so
    sent: int  # what those were estimated to take of this limit


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
            unit, reset_s = leeway.unit, leeway.reset_s
            known = self.said.get(unit)
            # Answers overtake each other: the one to the last call counts the most of them.
            if known is None or known.calls <= sent.requests or known.until_s <= now_s:
                until_s = now_s + (MINUTE_S if reset_s is None else reset_s)
                self.said[unit] = Said(leeway, now_s, until_s, sent.requests, sent.of(unit))

    def left(self, said: Said) -> int:
        """Return what is left of it: less all that was sent since, answered or not."""
        return said.leeway.remaining - max(0, self.sent.of(said.leeway.unit) - said.sent)


class Headroom:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: dict[str, Record] = {}

    def asking(self, target: Target, need: Need) -> Asking:
        """
        Count one call as sent from now on, before anybody else plans, unless it is never made.

        The block tells what its answer says of what is left; a failure tells it by itself.
        """
        return Asking(self._record(target.identity), need, self._clock)

    def heard(self, standings: Iterable[Standing]) -> None:
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

    def room(self, target: Target, need: Callable[[Target], Need], *, cap_s: float) -> Room:
        """
        Return what is known of the room that `target` has for a request of this `need`.

        Nobody is passed over for longer than `cap_s`, whatever a provider says.
        """
        record = self._records.get(target.identity)
        if record is None or not (record.said or record.own):
            return ROOM_UNKNOWN
        now_s = self._clock.now()
        shares = list(_own_shares(record, target, now_s))
        aside_s, why, needed = 0.0, "", None
        for said in record.said.values():
            if said.until_s <= now_s:
                continue
            left, needed = record.left(said), needed or need(target)
            shares.append(_share(left, said.leeway))
            away_s = _away_s(said, now_s, cap_s) if left < needed.of(said.leeway.unit) else 0.0
            if away_s > aside_s:
                aside_s, why = away_s, _words(left, said.leeway.unit)
        return Room(min(shares, default=None), aside_s, why)

    def leeways(self, target: Target) -> tuple[Leeway, ...]:
        """Return what the provider said, as far as it is still true: not beyond its reset."""
        record, now_s = self._records.get(target.identity), self._clock.now()
        said = record.said.values() if record is not None else ()
        return tuple(each.leeway for each in said if each.until_s > now_s)

    def _record(self, identity: str) -> Record:
        # Taken out and put back: the first of them is the one that was not asked for longest.
        record = self._records.pop(identity, None) or Record()
        if len(self._records) >= RECORDS:
            del self._records[next(iter(self._records))]
        self._records[identity] = record
        return record


class Asking:
    """The block of one call: what it tells is what its answer says is left."""

    __slots__ = ("_clock", "_need", "_record", "_sent")

    def __init__(self, record: Record, need: Need, clock: Clock) -> None:
        self._record = record
        self._need = need
        self._clock = clock
        self._sent = NOTHING_SENT

    def __enter__(self) -> Hear:
        record = self._record
        record.sent = self._sent = record.sent + self._need
        return self._hear

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, UpstreamFailure) and error.kind not in UNASKED:
            self._hear(error.leeways)
        elif isinstance(error, ProxyError):
            self._record.sent -= self._need

    def _hear(self, leeways: Sequence[Leeway]) -> None:
        if leeways:
            self._record.hear(leeways, self._sent, self._clock.now())


def _own_shares(record: Record, target: Target, now_s: float) -> Iterator[float]:
    """Yield the shares that are left of the limits that the file in force sets for the target."""
    for most, unit in ((target.rpm, Unit.REQUESTS), (target.tpm, Unit.TOKENS)):
        own = record.own.get(unit) if most is not None else None
        if own is not None:
            yield max(0.0, 1.0 - own.used_at(now_s) / most) if most else 0.0


def _share(left: int, leeway: Leeway) -> float:
    if left <= 0:
        return 0.0
    return 1.0 if leeway.limit is None else min(1.0, left / leeway.limit)


def _away_s(said: Said, now_s: float, cap_s: float) -> float:
    """Return until when to go round a target; without a reset nobody knows."""
    if said.leeway.reset_s is None:
        return 0.0
    return min(said.until_s, said.heard_s + cap_s) - now_s


def _words(left: int, unit: ProviderUnit) -> str:
    return f"{max(0, left)} {unit.value.replace('_', ' ')} left at the provider"
