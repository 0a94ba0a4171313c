"""
What all replicas used: each tells its own sums, and any of them can add up those of all.

About once a second the sums that have changed are written whole, so that it does no harm to tell
them twice. A marker says which writing was the last: where another stands, or none, this Redis was
emptied or has fallen back, and is told everything again. No request waits for any of this, and
while Redis is gone a report is about this replica alone, and says so.

What a replica used that is gone for good stays until `mobius.ledger.keep_days` have passed over it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import islice
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar

from redis.exceptions import ConnectionError as ConnectionFailed
from redis.exceptions import RedisError

from proxy.clock import Clock
from proxy.store import LedgerUnavailable, UsageQuery, UsageReport
from proxy.store.sqlite_owner import Turn
from proxy.store.sqlite_report import hour_marks, replica_of, sums_by, sums_of, usage_by
from proxy.store.totals import (
    DAYS_OF_HOURS,
    Mark,
    Period,
    Sums,
    day_of,
    days_before,
    fields_of,
    is_asked_for,
    periods_of,
)
from proxy.store.windows import DAY_S

PREFIX = "{mobius}:usage:"  # its hash tag keeps every key in one slot of a Cluster
SCRIPT = files("proxy.store").joinpath("redis_totals.lua").read_text()
TIMEOUT_S = 0.1  # for one answer
GRACE_S = 0.05  # and so long again, in which a busy event loop may find the answer that is there
EVERY_S = 1.0
REST_SHARE = 20  # a pass is followed by so many times its own length, if that is longer
FULL_EVERY_S = 600.0  # until all that the ledger holds is looked at, not only the last hours
HOT_S = 3 * 3600  # before now: these hours still change
KEEP_MORE_S = 3 * DAY_S  # than the ledger does: it deletes first, and then says so
LAST_WAIT_S = 1.0
MOST_FIELDS = 500  # in one step of Redis
MOST_PERIODS = 50  # that are asked for at once
MOST_MARKERS = 20  # of writings that may or may not have arrived

T = TypeVar("T")


class Gone(Exception):
    """Redis cannot be asked; the message says why."""


class Emptied(Exception):
    """This is not the Redis that was told before, or not alone told of this replica."""


@dataclass(slots=True)
class Told:
    """What Redis knows of this replica."""

    replica: str = ""
    markers: list[str] = field(default_factory=list)  # the last is the one of the next writing
    marks: dict[Period, tuple[Mark, int]] = field(default_factory=dict)  # and for how many days
    fields: dict[Period, dict[bytes, bytes]] = field(default_factory=dict)  # of what still changes
    full_s: float = 0.0  # the moment of the next full look


class RedisTotals:
    """
    Tells this replica's sums from `start` to `aclose`, and adds up those of all.

    Of several processes at one ledger's file one does the telling. `told` hears of ups and downs.
    """

    def __init__(
        self,
        client: Any,
        clock: Clock,
        path: Path,
        *,
        keep_days: Callable[[], int],
        told: Callable[[str | None], None],
    ) -> None:
        self._client = client
        self._clock = clock
        self._path = path
        self._keep_days = keep_days
        self._say = told
        self._trouble: str | None = None
        self._turn = Turn(path, "usage")
        self._told = Told()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tell what was used")

    async def aclose(self) -> None:
        """Have told what was used to the end, as far as a second is enough for it."""
        self._closing = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WAIT_S):
                await self.tell()
        with suppress(OSError):
            self._turn.release()
        with suppress(RedisError, OSError):
            await self._client.aclose()

    async def report(self, query: UsageQuery) -> UsageReport:
        """Return what all replicas used, this one to the moment. Raises LedgerUnavailable."""
        first_hour = days_before(self._clock.wall())
        own = await asyncio.to_thread(sums_by, self._path, query, days_before=first_hour)
        sums = Sums(query.group_by)
        sums.add(own)
        try:
            others = await self._others(await asyncio.to_thread(replica_of, self._path))
            for replica in others:
                await self._add(replica, sums, query, first_hour)
        except Gone as exc:
            rows = await asyncio.to_thread(usage_by, self._path, query)
            note = f"This is what one replica alone used: {exc}."
            return UsageReport(rows, note=note)
        rows = await asyncio.to_thread(sums.rows)
        return UsageReport(rows, replicas=1 + len(others))

    async def tell(self) -> None:
        """Have Redis know what the ledger's file says now, unless that is another's to do."""
        try:
            if self._turn.take():
                try:
                    await self._tell()
                except Emptied:
                    self._told = Told()
                    await self._tell()
        except (LedgerUnavailable, OSError):
            return  # the ledger itself says so, and what to do
        except (Gone, Emptied) as exc:
            self._notice(str(exc))
        else:
            self._notice(None)

    async def _run(self) -> None:
        while not self._closing:  # a cancellation may be lost in a connection that is being made
            begun_s = self._clock.now()
            await self.tell()
            took_s = self._clock.now() - begun_s
            await self._clock.sleep(max(EVERY_S, REST_SHARE * took_s))

    def _notice(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._say(trouble)

    async def _tell(self) -> None:
        replica = await asyncio.to_thread(replica_of, self._path)
        if replica != self._told.replica or len(self._told.markers) > MOST_MARKERS:
            self._told = Told(replica, full_s=self._clock.now())
            await self._write(accept="*")
        else:
            await self._write()
        wall = self._clock.wall()
        hot = day_of(wall - HOT_S)
        is_full = self._clock.now() >= self._told.full_s
        hours = await asyncio.to_thread(hour_marks, self._path, 0 if is_full else hot)
        # A day more than anybody looks at: not all clocks are the same.
        found = periods_of(hours, days_before(wall) - DAY_S)
        for period in sorted(found, reverse=True):
            mark = (found[period], self._keep_days())
            if self._told.marks.get(period) != mark:
                await self._show(period, is_hot=period.end > wall - HOT_S)
                self._told.marks[period] = mark
        if is_full:
            await self._forget_all_but({period.name for period in found})
            self._told.full_s = self._clock.now() + FULL_EVERY_S
        self._told.fields = {p: f for p, f in self._told.fields.items() if p.end > wall - HOT_S}

    async def _show(self, period: Period, *, is_hot: bool) -> None:
        sums = await asyncio.to_thread(sums_of, self._path, period)
        fields = await asyncio.to_thread(fields_of, sums)
        known = self._told.fields.get(period)
        key = self._key(period.name)
        if known is not None and known.keys() <= fields.keys():
            changed = dict(fields.items() - known.items())
            for part in _slices(changed):
                await self._write(period, part, fill=key)
        else:
            # All at once: nobody is to see a part of it.
            parts, beside = list(_slices(fields)), self._key("new")
            for number, part in enumerate(parts, 1):
                becomes = key if number == len(parts) else beside
                await self._write(period, part, fill=beside, becomes=becomes, anew=number == 1)
        if is_hot:
            self._told.fields[period] = fields

    async def _forget_all_but(self, names: set[str]) -> None:
        """Have no sums of what the ledger has deleted, or has added to those of another period."""
        known = await _in_time(self._client.smembers(self._key("names")))
        for name in {name.decode() for name in known} - names:
            await self._write(Period.named(name), {}, fill=self._key(name), anew=True)

    async def _write(
        self,
        period: Period | None = None,
        fields: Mapping[bytes, bytes] | None = None,
        *,
        fill: str = "",
        becomes: str = "",
        anew: bool = False,
        accept: str = "",
    ) -> None:
        """Raises Emptied, Gone. What fails may or may not have been written, but never later on."""
        markers, marker = self._told.markers, token_hex(8)
        accepted = accept or " ".join(markers)
        markers.append(marker)
        keep_s = self._keep_days() * DAY_S + KEEP_MORE_S
        fill = fill or self._key("new")
        keys = (self._key("marker"), f"{PREFIX}replicas", self._key("names"), fill, becomes or fill)
        expires = 0 if period is None else _expiry(period, keep_s, self._clock.wall())
        words = (accepted, marker, self._told.replica, int(self._clock.wall()), keep_s)
        name = "" if period is None else period.name
        flat = [each for pair in (fields or {}).items() for each in pair]
        arguments = (*keys, *words, name, expires, int(anew), *flat)
        if not await _in_time(self._client.eval(SCRIPT, len(keys), *arguments)):
            raise Emptied("it was emptied, or another ledger has the name of this one")
        markers[:] = [marker]

    def _key(self, name: str, replica: str = "") -> str:
        return f"{PREFIX}{replica or self._told.replica}:{name}"

    async def _others(self, own: str) -> list[str]:
        found = await _in_time(self._client.zrange(f"{PREFIX}replicas", 0, -1))
        return [replica for each in found if (replica := each.decode()) != own]

    async def _add(self, replica: str, sums: Sums, query: UsageQuery, first_hour: int) -> None:
        names = await _in_time(self._client.smembers(self._key("names", replica)))
        periods = [Period.named(name.decode()) for name in names]
        cursors = {p: 0 for p in periods if is_asked_for(p, query, first_hour)}
        # What is found twice while a large period grows counts once: as it was found last.
        found: dict[Period, dict[bytes, bytes]] = {}
        while cursors:
            some = list(islice(cursors.items(), MOST_PERIODS))
            pipe = self._client.pipeline(transaction=False)
            for period, cursor in some:
                pipe.hscan(self._key(period.name, replica), cursor, count=MOST_FIELDS)
            answers = await _in_time(pipe.execute())
            for (period, _), (cursor, fields) in zip(some, answers, strict=True):
                found.setdefault(period, {}).update(fields)
                if cursor:
                    cursors[period] = cursor
                    continue
                del cursors[period]
                await asyncio.to_thread(sums.add_fields, period, found.pop(period).items())


async def _in_time(asked: Awaitable[T]) -> T:
    """Return the answer. Raises Gone where it takes too long, however busy the loop."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as limit:
            # The loop is given another moment after the time: it looks for answers before it looks
            # at clocks.
            late = loop.call_later(TIMEOUT_S, lambda: limit.reschedule(loop.time() + GRACE_S))
            try:
                return await asked
            finally:
                late.cancel()
    except TimeoutError:
        raise Gone(f"Redis did not answer within {TIMEOUT_S:g} s") from None
    except (ConnectionFailed, OSError):
        raise Gone("Redis cannot be reached") from None
    except RedisError as exc:
        # Of the first words only: what was asked may stand behind them.
        said = str(exc).split(".")[0][:100]
        raise Gone(f"Redis cannot be used ({type(exc).__name__}: {said})") from exc


def _slices(fields: Mapping[bytes, bytes]) -> Iterable[dict[bytes, bytes]]:
    rest = iter(fields.items())
    while part := dict(islice(rest, MOST_FIELDS)):
        yield part


def _expiry(period: Period, keep_s: int, wall: float) -> int:
    """Return when nobody looks at the sums any more, should this replica be gone by then."""
    if period.start == 0:
        return int(wall) + keep_s
    if period.length_s == DAY_S:
        return period.end + keep_s
    return period.end + (DAYS_OF_HOURS + 2) * DAY_S
