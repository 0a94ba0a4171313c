"""
The durable record of what was used: a row for every physical call to a provider.

A row is in the file before its call is made, so a process that is killed loses none: the next one
finds it open, and charges all that it had reserved. While the file cannot be used no row is
opened, so nothing is asked of a provider that would not be recorded; what ends a row waits in
memory until it can be written. Each replica has a file, and several processes may share it.
"""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from proxy.clock import Clock
from proxy.limits import Scope, Unit
from proxy.store import (
    MOST_AMOUNT,
    Admitted,
    Attempt,
    Closed,
    LedgerUnavailable,
    Opened,
    RowInvalid,
    UsageQuery,
    UsageReport,
    UsageRow,
    hour_of,
)
from proxy.store.origins import Origin
from proxy.store.sqlite import Book
from proxy.store.sqlite_origins import MOST as MOST_ORIGINS
from proxy.store.sqlite_owner import Owner
from proxy.store.sqlite_report import attempts_after, usage_by
from proxy.store.sqlite_schema import connect, unavailable
from proxy.store.sqlite_writer import Connect, Job, Writer

RETRY_S = 1.0  # between attempts to use a file that could not be used
PATIENCE_S = 2.0  # with another program that has the file locked
LAST_WAIT_S = 5.0  # what is still to be written at the end may take this long
SLICE = 500  # rows that are purged at a time, between which others may write

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Recovered:
    """What processes left behind that ended without closing their rows."""

    owners: tuple[str, ...] = ()
    rows: tuple[Opened, ...] = ()


class Ledger:
    """
    Records attempts inside the `async with`, or until `aclose`.

    Except for `close` and `admit`, which keep what they cannot write, every method raises
    LedgerUnavailable while the file cannot be used.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
        connect: Connect = connect,
    ) -> None:
        self._path = path
        self._clock = clock
        self._owner = Owner(path, secrets.token_hex(8))
        self._writer = Writer(
            path, self._owner, clock, retry_s=retry_s, patience_s=patience_s, connect=connect
        )
        # Also at the end of the process or of the last reference, if nobody closes it.
        self._stop = weakref.finalize(self, self._writer.stop, LAST_WAIT_S)
        self._closed = True

    @property
    def trouble(self) -> str | None:
        """Why nothing can be recorded now, and what to do about it."""
        return None if self._writer.trouble is None else str(self._writer.trouble)

    async def __aenter__(self) -> Self:
        self._writer.start()
        self._closed = False
        # The file is there from now on, or `trouble` says why it is not.
        with suppress(LedgerUnavailable):
            await self.replica_id()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Have all that was asked for written and the file closed, or have waited five seconds."""
        self._closed = True
        await asyncio.to_thread(self._stop)

    async def replica_id(self) -> str:
        """Return the name that this file was given when it was made."""
        return await self._ask(Book.replica_id)

    async def open(self, row: Opened, *, admitted: bool) -> None:
        """
        Have the row in the file, and a request counted for those it names if one was admitted.

        If this raises, cancellation included, there is no such row and none to close; closing it
        does no harm. Raises RowInvalid if it is open already, or reserves what cannot be.
        """
        reserved = (row.prompt_tokens, row.completion_tokens, row.nano_usd)
        if min(reserved) < 0 or max(reserved) > MOST_AMOUNT:
            raise RowInvalid(f"the attempt {row.id} reserves {reserved}")
        try:
            await self._ask(lambda book: book.open(row, admitted=admitted))
        except (LedgerUnavailable, ValueError):
            raise
        except BaseException:
            # The row may be in the file or on its way there, and this stands behind it.
            self._writer.put(Job(lambda book: book.withdraw(row.id), ends=row.id))
            raise

    async def close(self, row: Closed) -> None:
        """
        Have the row closed in the file, or in memory until that is possible.

        It is, whether or not this is cancelled. Closing what is not open changes nothing; after
        `aclose` it stays open, and the next process charges what was reserved.
        """
        if self._closed:
            return
        done = asyncio.get_running_loop().create_future()
        if self._writer.trouble is not None:
            done.set_result(None)  # the thread may be stuck with the disk: nobody waits for it
        self._writer.put(Job(lambda book: book.close(row), done, ends=row.id))
        await done

    def admit(self, *, key: str, team: str, user: str, model: str, at: float) -> None:
        """Have a request counted that was admitted and makes no attempt. Does not wait."""
        if not self._closed:
            self._writer.count(Admitted(hour_of(at), key, team, user, model))

    def used(self, scope: Scope, unit: Unit, *, since: float) -> Awaitable[int]:
        """
        Ask at once what was used in the hours that began at `since` or later; 0 is ever.

        Requests count when they are admitted, all else when it is closed: by any process at this
        file, and of this one exactly what it asked to write before. For a key, team, user or model.
        """
        return self._ask(lambda book: sum(book.used(scope, unit, since).values()))

    def recent(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[list[tuple[float, int]]]:
        """
        Ask at once for each amount since then and its moment, in order.

        Requests are known by their first attempts. What is asked for is as in `used`.
        """
        return self._ask(
            lambda book: [(at, amount) for _, at, amount in book.recent(scope, unit, since)]
        )

    def used_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Mapping[str, int]]:
        """
        Ask at once for the same, by process; those that live are left out, but for this one.

        Of one that is gone all counts that it had reserved and not closed: it will be charged.
        """

        def work(book: Book) -> dict[str, int]:
            used, held = book.used(scope, unit, since), book.held(scope, unit)
            held.pop(self.owner, None)
            silent = self._silent({**used, **held})
            return {name: used.get(name, 0) + held.get(name, 0) for name in silent}

        return self._ask(work)

    def recent_by_owner(
        self, scope: Scope, unit: Unit, *, since: float
    ) -> Awaitable[Sequence[tuple[str, float, int]]]:
        """Ask at once for the owner, the moment and the amount of each recent use, likewise."""

        def work(book: Book) -> list[tuple[str, float, int]]:
            found = book.recent(scope, unit, since)
            silent = self._silent(owner for owner, _, _ in found)
            return [row for row in found if row[0] in silent]

        return self._ask(work)

    @property
    def owner(self) -> str:
        """The name of this process in the file: another one after every start."""
        return self._owner.name

    def _silent(self, owners: Iterable[str]) -> set[str]:
        """Return which of them is this process, or gone."""
        return {name for name in owners if name == self.owner or not self._owner.is_alive(name)}

    async def totals(self, query: UsageQuery) -> list[UsageRow]:
        """Return what was used by each group that used anything, in order of the groups."""
        return await asyncio.to_thread(usage_by, self._path, query)

    async def report(self, query: UsageQuery) -> UsageReport:
        """Return the same, as a report on this replica."""
        with suppress(LedgerUnavailable):
            await self._ask(lambda book: None)  # behind whatever was asked before
        return UsageReport(await self.totals(query))

    async def rows(self, since: float, until: float | None = None) -> AsyncIterator[Attempt]:
        """Yield what was closed from `since` until before `until`, in that order, page by page."""
        after = (since, "")
        while page := await asyncio.to_thread(attempts_after, self._path, after, until):
            for attempt in page:
                yield attempt
            after = (page[-1].closed.closed_at, page[-1].closed.id)

    async def recover(self) -> Recovered:
        """Have the open rows of processes that are gone closed as lost, and return whose."""
        owners = await self._ask(Book.owners)
        now = self._clock.wall()
        try:
            with self._owner.inherit(owners) as gone:
                lost = await self._ask(lambda book: book.lose(gone, now))
                return Recovered(tuple(gone), tuple(lost))
        except OSError as exc:
            raise unavailable(self._path, exc) from exc

    async def purge(self, before: float, *, totals_before: float | None = None) -> int:
        """
        Delete the rows of whole hours before then, and the totals; return how many.

        `totals_before` is for those, where they are kept longer. What was used ever by a key, team,
        user and model stays known.
        """
        hour, gone = hour_of(before), 0
        totals_hour = hour if totals_before is None else hour_of(min(before, totals_before))
        while deleted := await self._ask(lambda book: book.purge(hour, totals_hour, SLICE)):
            gone += deleted
        return gone

    async def origin(self, key: str) -> Origin | None:
        """Return who made the response of this key."""
        return await self._ask(lambda book: book.origins.find(key))

    async def keep_origin(self, keys: Sequence[str], origin: Origin) -> None:
        """Have it in the file who made the responses of these keys."""
        await self._ask(lambda book: book.origins.keep(keys, origin))

    async def forget_origin(self, key: str) -> None:
        await self._ask(lambda book: book.origins.forget(key))

    async def purge_origins(self, before: float, *, most: int = MOST_ORIGINS) -> None:
        """Delete those that were made before then, and the oldest of more than `most`."""
        while await self._ask(lambda book: book.origins.purge(int(before), most, SLICE)):
            pass

    def _ask(self, work: Callable[[Book], T]) -> asyncio.Future[T]:
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._closed:
            done.set_exception(LedgerUnavailable(f"the ledger {self._path} is closed"))
        elif (trouble := self._writer.trouble) is not None:
            done.set_exception(LedgerUnavailable(*trouble.args))
        else:
            self._writer.put(Job(work, done))
        return done


class LedgerOrigins:
    """Who made which response, as a ledger's file knows it; see `OriginStore`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def find(self, key: str) -> Origin | None:
        with suppress(LedgerUnavailable):
            return await self._ledger.origin(key)
        return None

    async def keep(self, keys: Sequence[str], origin: Origin) -> None:
        with suppress(LedgerUnavailable):
            await self._ledger.keep_origin(keys, origin)

    async def forget(self, key: str) -> None:
        with suppress(LedgerUnavailable):
            await self._ledger.forget_origin(key)
