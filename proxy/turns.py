"""Whose turn it is, in groups that are asked in turns."""

from __future__ import annotations

from proxy.types import Group, Strategy

GROUPS = 10_000  # names under a wildcard are endless; the one that was not asked for longest goes


class Turns:
    """How many requests were planned by this process whose ring begins with each group."""

    def __init__(self) -> None:
        self._turns: dict[str, int] = {}

    def of(self, group: Group) -> int:
        return self._turns.get(group.name, 0)

    def take(self, group: Group) -> int:
        """
        Return the turn of one request; the next one begins with the next target.

        It is its turn in its fallbacks too: a group that is asked for another one alone would begin
        with the same target for ever.
        """
        if group.strategy is not Strategy.ROUND_ROBIN:
            return 0
        turn = self._turns.pop(group.name, 0)
        self._turns[group.name] = turn + 1
        if len(self._turns) > GROUPS:
            del self._turns[next(iter(self._turns))]
        return turn
