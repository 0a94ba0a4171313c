"""
The one thread that writes a ledger's file. It takes all that waits and commits it at once.

While the file cannot be used, the thread tries again each second. What ends a row is kept until
then; all else fails at once.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from proxy.clock import Clock
from proxy.store import Admitted, LedgerUnavailable
from proxy.store.sqlite import Book, Columns
from proxy.store.sqlite_owner import Owner
from proxy.store.sqlite_schema import connect, unavailable

MOST_JOBS = 500  # that are handed over together, and after which a transaction takes no more
MOST_UNCOUNTED = 10_000  # kinds of admitted requests to remember while they cannot be written
PAUSE_S = 0.001  # between attempts to begin while another process writes
COMPANY_S = 0.05  # that an admitted request waits for others to be counted with
LOOK_S = 1.0  # between looks whether the file is still there

Connect: TypeAlias = Callable[[Path, float], sqlite3.Connection]


@dataclass(slots=True, eq=False)
class Job:
    """One thing to do in the book, who waits for it, and what it came to."""

    work: Callable[[Book], Any]
    waiter: asyncio.Future[Any] | None = None
    ends: str = ""  # the id of the row that is not open afterwards
    admits: Admitted | None = None
    requests: int = 1  # that it admits
    result: Any = None
    error: Exception | None = None

    def tell(self) -> None:
        """Wake who waits, if it still does. On the event loop."""
        if self.waiter is None or self.waiter.done():
            return
        if self.error is None:
            self.waiter.set_result(self.result)
        else:
            self.waiter.set_exception(self.error)


class Writer:
    """Does jobs in the order in which they are put, from `start` to `stop`."""

    def __init__(
        self,
        path: Path,
        owner: Owner,
        clock: Clock,
        *,
        retry_s: float,
        patience_s: float,
        connect: Connect = connect,
    ) -> None:
        self.trouble: LedgerUnavailable | None = None  # why nothing can be written now
        self._path = path
        self._owner = owner
        self._clock = clock
        self._retry_s = retry_s
        self._patience_s = patience_s
        self._connect = connect
        self._gathered: list[Job] = []  # in this turn of the event loop, or two
        self._crowded = False  # more than one was handed over the last time
        self._admitted: dict[Admitted, int] = {}  # in the last moments
        self._jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._rows: dict[str, Columns] = {}  # that are open
        self._kept: dict[str, Job] = {}  # what ends a row, by the row's id: no more than are open
        self._uncounted: dict[Admitted, int] = {}
        self._book: Book | None = None
        self._file = (0, 0)  # device and inode of the book
        self._again_s = self._look_s = 0.0  # moments: of the next attempt, of the next look
        # It may be stuck in a write for ever, which must not keep the process.
        self._thread = threading.Thread(target=self._run, name="write the ledger", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, job: Job) -> None:
        """
        Have the job done after those that were put before.

        Waking the thread and a transaction cost more than most jobs do, so all that one turn of
        the event loop puts is handed over together at its end; and where that was several the last
        time, all that two turns put.
        """
        gathered = self._gathered
        idle = not gathered
        if self._admitted:
            self._gather_admitted()
        gathered.append(job)
        if idle:
            try:
                loop = asyncio.get_running_loop()
                if self._crowded:
                    loop.call_soon(loop.call_soon, self._hand_over)
                else:
                    loop.call_soon(self._hand_over)
            except RuntimeError:  # no loop, no turn
                self._hand_over()

    def count(self, who: Admitted) -> None:
        """Have an admitted request counted: soon, and before whatever is put after it."""
        first = not self._admitted
        self._admitted[who] = self._admitted.get(who, 0) + 1
        if first:
            try:
                asyncio.get_running_loop().call_later(COMPANY_S, self._hand_over)
            except RuntimeError:
                self._hand_over()

    def _hand_over(self) -> None:
        if self._admitted:
            self._gather_admitted()
        gathered, self._gathered = self._gathered, []
        self._crowded = len(gathered) > 1
        for start in range(0, len(gathered), MOST_JOBS):
            self._jobs.put(gathered[start : start + MOST_JOBS])

    def _gather_admitted(self) -> None:
        admitted, self._admitted = self._admitted, {}
        self._gathered += [admission(*each) for each in admitted.items()]

    def stop(self, wait_s: float) -> None:
        """Have all written that was put before, and the file closed, or have waited that long."""
        self._hand_over()
        self._jobs.put(None)
        # The last reference may have gone on the thread itself, which cannot wait for its own end.
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(wait_s)

    def _run(self) -> None:
        ended = False
        jobs: list[Job] = []
        while not ended:
            self._write(jobs)
            jobs, ended = self._batch()
        self._again_s = self._clock.now()  # one last attempt, if there is trouble
        self._write(jobs)
        self._end()

    def _batch(self) -> tuple[list[Job], bool]:
        """Wait for a job or, in trouble, for the next attempt; return all, and whether to end."""
        wait_s = None if self.trouble is None else max(0.0, self._again_s - self._clock.now())
        jobs: list[Job] = []
        try:
            gathered = self._jobs.get(timeout=wait_s)
            while gathered is not None:
                jobs += gathered
                if len(jobs) >= MOST_JOBS or self._jobs.empty():
                    return jobs, False
                gathered = self._jobs.get()
        except queue.Empty:
            return jobs, False
        return jobs, True

    def _write(self, jobs: list[Job]) -> None:
        if self.trouble is not None and self._clock.now() < self._again_s:
            self._refuse(jobs, self.trouble)
            return
        jobs = self._left_over() + jobs
        try:
            self._commit(jobs)
        except LedgerUnavailable as exc:
            self.trouble = exc
            self._refuse(jobs, exc)
        except Exception as exc:
            self._sort_out(jobs, exc)
        else:
            self.trouble = None
            _tell(jobs)
        if self.trouble is not None:
            self._again_s = self._clock.now() + self._retry_s

    def _commit(self, jobs: list[Job]) -> None:
        """Do all jobs or none; raises LedgerUnavailable, and what a job that is wrong raises."""
        try:
            book = self._usable()
            self._begin(book)
            if not jobs:
                book.probe()
            for job in jobs:
                job.result = job.work(book)
            book.commit()
        except (sqlite3.Error, OSError) as exc:
            self._drop()
            raise unavailable(self._path, exc) from exc
        except Exception:
            if self._book is not None:
                self._book.rollback()
            raise

    def _begin(self, book: Book) -> None:
        """Begin as soon as no other process writes; raises sqlite3.Error if that takes too long."""
        for _ in range(int(self._patience_s / PAUSE_S)):
            try:
                return book.begin()
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            time.sleep(PAUSE_S)
        return book.begin()

    def _sort_out(self, jobs: list[Job], error: Exception) -> None:
        """Do each job by itself: one of them is wrong, and the others are not to suffer."""
        if len(jobs) > 1:
            for job in jobs:
                self._write([job])
        elif jobs:
            jobs[0].error = error
            _tell(jobs)

    def _usable(self) -> Book:
        now_s = self._clock.now()
        if self._book is not None and now_s >= self._look_s:
            self._look_s = now_s + LOOK_S
            if not self._is_there():
                self._drop()
        if self._book is None:
            self._book = self._opened()
        return self._book

    def _opened(self) -> Book:
        connection = self._connect(self._path, self._patience_s)
        book = Book(connection, self._owner.name, self._rows)
        try:
            self._owner.hold()  # before the first row of ours is in the file
            found = self._path.stat()
            self._file = (found.st_dev, found.st_ino)
            self._begin(book)
            book.reconcile()
            book.commit()
        except BaseException:
            book.drop()
            raise
        return book

    def _is_there(self) -> bool:
        with suppress(OSError):
            found = self._path.stat()
            return (found.st_dev, found.st_ino) == self._file
        return False

    def _refuse(self, jobs: list[Job], error: LedgerUnavailable) -> None:
        """Keep what ends a row and count who was let in; all else is told that it cannot be."""
        for job in jobs:
            # Not the end of a row that could not be opened: of those there may be any number.
            if job.ends in self._rows:
                self._kept.setdefault(job.ends, job)
            if job.admits is not None:
                self._remember(job.admits, job.requests)
            if not job.ends:
                job.error = LedgerUnavailable(*error.args)
        _tell(jobs)

    def _remember(self, who: Admitted, requests: int) -> None:
        if who in self._uncounted or len(self._uncounted) < MOST_UNCOUNTED:
            self._uncounted[who] = self._uncounted.get(who, 0) + requests

    def _left_over(self) -> list[Job]:
        """Return what could not be written before, and keep it no longer."""
        jobs = list(self._kept.values())
        jobs += [admission(who, requests) for who, requests in self._uncounted.items()]
        self._kept.clear()
        self._uncounted.clear()
        return jobs

    def _drop(self) -> None:
        if self._book is not None:
            with suppress(sqlite3.Error):
                self._book.rollback()
            with suppress(sqlite3.Error):
                self._book.drop()
        self._book = None

    def _end(self) -> None:
        if self._book is not None:
            with suppress(sqlite3.Error):
                self._book.end()
            self._book = None
        with suppress(OSError):
            self._owner.release()


def admission(who: Admitted, requests: int = 1) -> Job:
    """Return the job that counts admitted requests."""
    return Job(lambda book: book.admit(who, requests), admits=who, requests=requests)


def _tell(jobs: list[Job]) -> None:
    for job in jobs:
        if job.waiter is not None:
            # A loop that is closed has nobody left who waits; what was to be written is written.
            with suppress(RuntimeError):
                job.waiter.get_loop().call_soon_threadsafe(_tell_now, jobs)
            return


def _tell_now(jobs: list[Job]) -> None:
    for job in jobs:
        job.tell()
