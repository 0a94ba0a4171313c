"""
A request that was let in, and the blocks of its account: of itself, and of each attempt.

Each block begins and ends one step of the books (`quota.py`). They are classes, for a generator
that the event loop keeps book of costs more than what they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol

from proxy.allowance import Allowance, Allowances
from proxy.errors import UpstreamFailure
from proxy.estimate import Answers, Size, answers_to, size_of
from proxy.policy import QuotaPolicy
from proxy.reservation import OK, Reservation
from proxy.types import Call, Caller, Tally, Target


class Measured(NamedTuple):
    """What a call sends, and how long the answers to it may be by its own word."""

    call: Call
    size: Size
    answers: Answers


@dataclass(slots=True)
class Admission:
    """One request that was let in: whom its attempts are counted for, and what they may take."""

    id: str  # unique over all replicas; a caller may give two requests the same id of its own
    call: Call
    caller: Caller
    user: str | None  # the end user that it is for
    model: str  # as it was asked for, also under a wildcard: limits go by this name
    allowance: Allowance
    policy: QuotaPolicy
    tally: Tally
    at: float  # when it came, on the store's clock
    file: Allowances  # in which the limits stood
    holds: bool = False  # a place, of the store
    recorded: bool = False  # the ledger has counted it
    attempts: int = 0
    answered: bool = False  # by one of them, as the ledger has it
    reserved: int = 0  # for as many; what found no room, or no ledger, is among them
    spare: bool = False  # one call is under way: where there is no room for a second, none is made
    _measured: Measured | None = None

    @property
    def measured(self) -> Measured:
        """The call and its measures; taken when it matters, for a kept answer needs none."""
        found = self._measured
        if found is None or found.call is not self.call:
            call, upload = self.call, self.call.upload
            size = size_of(call.body, call.size_bytes, upload.size_bytes if upload else 0)
            found = self._measured = Measured(call, size, answers_to(call.body, call.surface))
        return found

    @property
    def size(self) -> Size:
        """What the call sends."""
        return self.measured.size


class Books(Protocol):
    """What the blocks begin and end with: the beginnings raise, the ends do not."""

    async def enter(self, admission: Admission) -> None: ...

    async def leave(self, admission: Admission) -> None: ...

    async def open(self, admission: Admission, target: Target) -> Reservation: ...

    async def settle(self, admission: Admission, reservation: Reservation) -> None: ...


class Admitting:
    """The block of a request that is let in."""

    __slots__ = ("_admission", "_books")

    def __init__(self, books: Books, admission: Admission) -> None:
        self._books = books
        self._admission = admission

    async def __aenter__(self) -> Admission:
        await self._books.enter(self._admission)
        return self._admission

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._books.leave(self._admission)


class Reserving:
    """The block of a call for which something is set aside."""

    __slots__ = ("_admission", "_books", "_reservation", "_target")

    _reservation: Reservation

    def __init__(self, books: Books, admission: Admission, target: Target) -> None:
        self._books = books
        self._admission = admission
        self._target = target

    async def __aenter__(self) -> Reservation:
        self._reservation = await self._books.open(self._admission, self._target)
        return self._reservation

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reservation = self._reservation
        if error is None:
            reservation.outcome = OK
        elif isinstance(error, UpstreamFailure):
            reservation.failed(error)
        await self._books.settle(self._admission, reservation)
