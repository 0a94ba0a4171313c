"""
What one process has itself taken of one shared counter: the mirror of its part in Redis.

Redis may be restarted empty or fail over to a copy that is behind; what stands here is said again
then. Pure: the time is passed in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from proxy.limits import Limit, Scope, ScopeKind, Unit, Window
from proxy.store.counters import Counter
from proxy.store.windows import US, Labels

MINUTE_US = 60 * US
# Entries in so short a time are one, which leaves the minute when the last of them would.
STEP_US = 50_000


@dataclass(slots=True, eq=False)
class Part:
    """This process's part of the use of one scope, of one unit, in one window."""

    scope: Scope
    unit: Unit
    window: Window
    label: str = ""  # of the day or month that `settled` is about
    settled: int = 0  # of a calendar window
    open: int = 0
    lease: int = 0  # that may be spent while Redis is gone
    lent: Counter | None = None  # what was let in on the lease since Redis gave it
    most: int = 0  # of the limit that was asked for last
    touched_s: float = 0.0  # the moment of that, monotonic
    entries: deque[tuple[int, int]] = field(default_factory=deque)  # of MINUTE: at_us, amount
    known: bool = False  # what this process settled before the limit was first asked for is in it
    epoch: str = ""  # the one in which Redis has what dead processes settled in their time
    loading: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, limit: Limit) -> Part:
        return cls(limit.scope, limit.unit, limit.window)

    @property
    def name(self) -> str:
        """What the script calls the counter."""
        return f"{self.unit}:{self.window}:{self.scope.kind}:{self.scope.name}"

    @property
    def counts(self) -> bool:
        """Say whether use is to be added here. Before that it will be read from the ledger."""
        return self.known or self.loading is not None

    def is_idle(self, now_us: int) -> bool:
        """Say whether nothing would be lost if this was forgotten: the ledger knows the rest."""
        self.forget(now_us)
        return not (self.open or self.lease or self.entries or self.loading)

    def used_lately(self, now_us: int) -> int:
        """Return what this process holds, and what it settled in the last minute."""
        self.forget(now_us)
        return self.open + sum(amount for _, amount in self.entries)

    def is_before(self, labels: Labels, then: Labels) -> bool:
        """Say whether another window has begun by `labels` than it was `then`."""
        now, before = labels.of(self.window), then.of(self.window)
        return bool(now) and int(now) > int(before)

    def turn(self, labels: Labels) -> None:
        """Begin anew where another day or month has come; one that is over changes nothing."""
        label = labels.of(self.window)
        if label and (not self.label or int(label) > int(self.label)):
            self.label, self.settled = label, 0

    def add(self, amount: int, at_us: int, labels: Labels) -> None:
        """Count what is used for good."""
        match self.window:
            case Window.NOW:
                pass
            case Window.MINUTE:
                self.forget(at_us)
                if amount:
                    self._enter(-(-at_us // STEP_US) * STEP_US, amount)
            case Window.DAY | Window.MONTH | Window.TOTAL:
                self.turn(labels)
                self.settled += amount

    def _enter(self, at_us: int, amount: int) -> None:
        if self.entries and self.entries[-1][0] >= at_us:
            at_us, before = self.entries.pop()
            amount += before
        self.entries.append((at_us, amount))

    def grant(self, amount: int, _: object = None) -> None:
        """Take note of the lease that Redis has given; below 0 it has said nothing yet."""
        if amount >= 0:
            self.lease, self.lent = amount, None

    def remember(self, entries: Iterable[tuple[int, int]]) -> None:
        """Put what was used before among the entries."""
        found, self.entries = sorted([*self.entries, *entries]), deque()
        for at_us, amount in found:
            self._enter(at_us, amount)

    def unlearn(self) -> None:
        """Have nothing counted here: the ledger, which is to be asked again, has it all."""
        self.known, self.epoch = False, ""
        self.settled = 0
        self.entries.clear()

    def forget(self, now_us: int) -> None:
        """Drop the entries that have left the minute."""
        while self.entries and self.entries[0][0] <= now_us - MINUTE_US:
            self.entries.popleft()

    def words(self, labels: Labels) -> tuple[Any, ...]:
        """Return the operation that has Redis know exactly this, as far as it is known."""
        self.turn(labels)
        label = labels.of(self.window) if self.known else ""
        return ("set", self.name, self.window, label, self.settled, self.open, self.lease)


@dataclass(slots=True)
class Parts:
    """All parts of a process, by scope: those of end users in the order in which they came last."""

    of_scope: dict[Scope, dict[tuple[Unit, Window], Part]] = field(default_factory=dict)

    def find(self, limit: Limit) -> Part:
        scope = limit.scope
        found = self.of_scope.get(scope)
        if found is None:
            found = self.of_scope[scope] = {}
        elif scope.kind is ScopeKind.USER:
            self.of_scope[scope] = self.of_scope.pop(scope)
        key = (limit.unit, limit.window)
        part = found.get(key)
        if part is None:
            part = found[key] = Part.of(limit)
        return part

    def under(self, scope: Scope) -> Iterable[Part]:
        return self.of_scope.get(scope, {}).values()

    def all(self) -> list[Part]:
        return [part for parts in self.of_scope.values() for part in parts.values()]

    def forget_users(self, most: int, now_us: int) -> None:
        """
        Forget the longest idle end users, where there are more than `most`.

        They are endless, and what they used stands in the ledger; all others are configured.
        """
        over = len(self.of_scope) - most
        users = (scope for scope in self.of_scope if scope.kind is ScopeKind.USER)
        for scope in list(islice(users, max(0, over))):
            if all(part.is_idle(now_us) for part in self.of_scope[scope].values()):
                del self.of_scope[scope]
