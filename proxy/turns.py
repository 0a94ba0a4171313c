"""Whose turn it is, in groups that are asked in turns."""

from __future__ import annotations

from collections.abc import Iterable

from proxy.types import Group, Strategy

GROUPS = 10_000  # names under a wildcard are endless; the one that was not asked for longest goes


class Turns:
    """How many requests of each group were planned by this process."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def of(self, group: str) -> int:
        return self._turns.get(group, 0)

    def planned(self, groups: Iterable[Group]) -> None:
        """Let the next request of each group begin with the next target."""
        for group in groups:
            if group.strategy is Strategy.ROUND_ROBIN:
                self._turns[group.name] = self._turns.pop(group.name, 0) + 1
                if len(self._turns) > GROUPS:
                    del self._turns[next(iter(self._turns))]
