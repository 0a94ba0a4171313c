"""
The words of the ledger, which everything that keeps its rows shares.

An attempt is one physical call to a provider. Money is whole nano-dollars (docs/design/0004), a
moment is seconds since 1970, UTC, and is always given by the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from proxy.types import Usage

HOUR_S = 3600
MOST_AMOUNT = 10**15  # tokens or nano-dollars of one row: sums over many rows stay whole numbers


class LedgerUnavailable(Exception):
    """Nothing can be recorded now; the message names the file and says what to do about it."""


class RowInvalid(ValueError):
    """This row can never be recorded, whatever the state of the file."""


class Opened(NamedTuple):
    """What is known of an attempt before its call. A name that there is none of is empty."""

    id: str  # unique over all replicas, and the reservation's
    request_id: str
    attempt: int  # 1 is the first of its request
    key: str
    team: str
    user: str
    model: str  # the public name that was asked for
    target: str
    provider: str
    surface: str
    opened_at: float
    prompt_tokens: int  # reserved: it may take this much at most
    completion_tokens: int
    nano_usd: int
    tags: tuple[str, ...]  # a set: their order is not kept


class Closed(NamedTuple):
    """What an attempt came to."""

    id: str
    usage: Usage
    nano_usd: int | None  # none: the price is not known
    outcome: str
    answered: bool  # this attempt is the one that answered its request
    closed_at: float


class Records(Protocol):
    """The ledger, as far as quota writes it. All of its methods put what they write in order."""

    async def open(self, row: Opened, *, admitted: bool) -> None:
        """Have the row recorded before this returns. Raises LedgerUnavailable: then it is not."""
        ...

    async def close(self, row: Closed) -> None:
        """Have the row closed, now or as soon as that is possible. Never raises."""
        ...

    def admit(self, *, key: str, team: str, user: str, model: str, at: float) -> None:
        """Have a request counted that makes no attempt."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row that is finished, from both ends."""

    opened: Opened
    closed: Closed


class Admitted(NamedTuple):
    """Who was let in, and in which hour: admitted requests are counted, not listed."""

    hour: int  # its first second
    key: str
    team: str
    user: str
    model: str


class GroupBy(StrEnum):
    """What the rows of a usage report can be told apart by."""

    KEY = "key"
    TEAM = "team"
    USER = "user"
    TAG = "tag"  # an attempt with several counts under each of them, one with none under ""
    MODEL = "model"
    TARGET = "target"
    PROVIDER = "provider"
    DAY = "day"  # of UTC, as 2026-01-31; empty for what is older than rows are kept
    HOUR = "hour"  # as 2026-01-31T23:00Z; empty likewise, and the day where only that is known


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Which hours a usage report is about: those that have begun between the two moments."""

    group_by: tuple[GroupBy, ...] = ()
    since: float = 0  # the hour that holds it is in; 0: as long as there are records
    until: float | None = None  # an hour that begins here or later is not


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What was used by one group. Attempts count in the hour in which they were closed."""

    group: tuple[str, ...]  # in the order of the query's `group_by`
    admitted: int
    requests: int  # that were answered
    attempts: int
    usage: Usage
    nano_usd: int
    estimated: int  # attempts whose tokens are our own count
    unpriced: int  # attempts that are missing from the money


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The answer to a query."""

    rows: Sequence[UsageRow]  # in order of their groups
    replicas: int = 1  # whose use is in them
    note: str = ""  # what is missing from them and why, in a sentence


def hour_of(moment: float) -> int:
    """Return the first second of the hour that holds the moment."""
    return int(moment // HOUR_S) * HOUR_S
