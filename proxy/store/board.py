"""
What the cache asks of a place where replicas meet: who makes the call for a key, and what it says.

Nobody waits for such a place longer than a tenth of a second; where it cannot be reached, each
replica makes its own call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from proxy.types import Json


class LeaderLost(Exception):
    """Whoever made the call is gone, or has failed in a way that others need not share."""


@dataclass(frozen=True, slots=True)
class Begun:
    """How an answer begins: who gives it, whether in events, and what of the request it left."""

    target: str
    provider: str
    streamed: bool
    dropped: tuple[str, ...] = ()


class Leading(ABC):
    """This process makes the call for everybody. It is over with `land`, which must be called."""

    @abstractmethod
    def begins(self, begun: Begun) -> None:
        """Have it known who answers."""

    @abstractmethod
    def says(self, said: bytes, events: int) -> None:
        """Have it known: the JSON of a list of `events` events, or of a whole answer (0)."""

    @abstractmethod
    async def land(self, *, ok: bool) -> None:
        """Have it known that all was said, or that others had better ask themselves."""


class Following(ABC):
    """Another process makes the call."""

    @abstractmethod
    async def begun(self) -> Begun:
        """Return how the answer begins, once it has. Raises LeaderLost."""

    @abstractmethod
    def events(self) -> AsyncGenerator[list[Json], None]:
        """Yield what was said, from its first word on. Raises LeaderLost where it is cut."""

    @abstractmethod
    async def whole(self) -> bytes:
        """Return the answer that does not come in events. Raises LeaderLost."""


class Board(Protocol):
    """Where replicas meet."""

    async def take(self, key: str) -> Leading | Following | None:
        """Return what to do about the key; None where nobody can be asked."""
        ...
