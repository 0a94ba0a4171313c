"""What a fake provider received, what it really sent, and when the socket closed.

The judge in tests of attempts, cancellation and accounting. Times are `time.monotonic()`, which is
one clock for all processes of a machine. Entries are frozen: read them again to see them change.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

from tests.providers.wire import form_in

Side: TypeAlias = Literal["client", "server"]
T = TypeVar("T")
WAIT_S = 30.0  # what has not come by then never will, on a busy machine either


@dataclass(frozen=True, slots=True)
class Entry:
    """One request and what became of it.

    `finished`: the reply was written as scripted and its HTTP body ended (or `NoDone` was left
    open); False where the script cuts, and where the client left first. `closed_by` and `t_closed`
    stay None when the connection was kept for the next request. `tokens_sent` are the numbers of
    the tokens handed to the socket in full, once per choice.
    """

    number: int
    connection: int
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    model: str | None
    streams: bool
    t_received: float
    status: int | None = None
    t_first_byte: float | None = None
    t_first_token: float | None = None
    t_last_byte: float | None = None
    t_closed: float | None = None
    tokens_sent: tuple[int, ...] = ()
    bytes_sent: int = 0
    finished: bool = False
    closed_by: Side | None = None

    @property
    def json(self) -> Any:
        """The body, parsed; ValueError when it is no JSON."""
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[bytes]]:
        """The fields of a multipart form, files among them; empty when it is none."""
        return form_in(self.headers, self.body)

    @property
    def over(self) -> bool:
        """Nothing more will be sent."""
        return self.finished or self.closed_by is not None


class Journal:
    """The entries of one provider, in the order in which the requests arrived."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: dict[int, Entry] = {}
        self._numbers = 0
        self._accepted = 0
        self._open = 0

    def requests(self, model: str | None = None) -> list[Entry]:
        """All entries, or those of one model."""
        with self._changed:
            entries = list(self._entries.values())
        return [entry for entry in entries if model in (None, entry.model)]

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last(self) -> Entry:
        """The newest entry; IndexError before the first request."""
        return self.requests()[-1]

    @property
    def accepted(self) -> int:
        """TCP connections accepted so far."""
        return self._accepted

    @property
    def open(self) -> int:
        """TCP connections that are open now."""
        return self._open

    @property
    def open_requests(self) -> int:
        """Requests whose reply is neither finished nor cut."""
        return sum(not entry.over for entry in self.requests())

    def clear(self) -> None:
        """The entries are gone; exchanges still running are not entered again."""
        with self._changed:
            self._entries.clear()
            self._changed.notify_all()

    def wait(
        self, predicate: Callable[[Journal], T | Literal[False] | None], timeout_s: float = WAIT_S
    ) -> T:
        """What `predicate` returned once it was true; AssertionError when it never was."""
        with self._changed:
            result = self._changed.wait_for(lambda: predicate(self), timeout_s)
        if not result:
            raise AssertionError(f"not within {timeout_s} s; the journal says: {self.requests()}")
        return result

    async def wait_async(
        self, predicate: Callable[[Journal], T | Literal[False] | None], timeout_s: float = WAIT_S
    ) -> T:
        """`wait`, for a test whose own event loop must keep running."""
        return await asyncio.to_thread(self.wait, predicate, timeout_s)

    def wait_received(self, count: int = 1, timeout_s: float = WAIT_S) -> list[Entry]:
        """At least `count` requests, received."""
        return self.wait(lambda j: len(j) >= count and j.requests(), timeout_s)

    def wait_over(self, count: int = 1, timeout_s: float = WAIT_S) -> list[Entry]:
        """At least `count` requests, of which none is still being answered."""

        def all_over(journal: Journal) -> list[Entry] | None:
            entries = journal.requests()
            return entries if len(entries) >= count and all(e.over for e in entries) else None

        return self.wait(all_over, timeout_s)

    # What follows is for the provider, on its own thread.

    def locked(self) -> threading.Condition:
        """Whoever reads the journal waits. Bytes are sent and noted under this lock, so that a

        test which has received them finds them in the journal.
        """
        return self._changed

    def next_number(self) -> int:
        """A number that no other request of this provider has."""
        with self._changed:
            self._numbers += 1
            return self._numbers

    def enter(self, entry: Entry) -> None:
        """The request is in the journal."""
        with self._changed:
            self._entries[entry.number] = entry
            self._changed.notify_all()

    def note_sent(self, number: int, size: int, tokens: tuple[int, ...], now_s: float) -> None:
        """So many bytes, and these tokens, are in the kernel's hands since `now_s`."""
        with self._changed:
            if (entry := self._entries.get(number)) is None:
                return
            first_token = entry.t_first_token
            self._entries[number] = replace(
                entry,
                t_first_byte=now_s if entry.t_first_byte is None else entry.t_first_byte,
                t_first_token=now_s if tokens and first_token is None else first_token,
                t_last_byte=now_s,
                tokens_sent=entry.tokens_sent + tokens,
                bytes_sent=entry.bytes_sent + size,
            )
            self._changed.notify_all()

    def note_status(self, number: int, status: int) -> None:
        """The status line is about to be sent."""
        self._update(number, status=status)

    def note_finished(self, number: int) -> None:
        """The scripted reply is written."""
        self._update(number, finished=True)

    def note_closed(self, number: int, by: Side) -> None:
        """The connection under this exchange is closed, by whom it was closed first."""
        self._update(number, closed_by=by, t_closed=time.monotonic())

    def note_connection(self, change: Literal[1, -1]) -> int:
        """A connection came or went; the number of connections that ever came."""
        with self._changed:
            self._open += change
            self._accepted += change == 1
            self._changed.notify_all()
            return self._accepted

    def _update(self, number: int, **changes: Any) -> None:
        with self._changed:
            if number in self._entries:
                self._entries[number] = replace(self._entries[number], **changes)
                self._changed.notify_all()
