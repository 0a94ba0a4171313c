"""
Says afterwards whether what a Redis answered was right: a reference model of the limits.

It reads the steps in the order in which Redis carried them out, and knows nothing of how a store or
the script keeps its counters.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from pathlib import Path
from typing import Any

MINUTE_US = 60_000_000
SLACK_US = 50_000  # of a crowded minute, so long entries may stay longer
DAY_US = 86_400_000_000


@dataclass
class Account:
    """One counter: what is open, and what is settled at which moment."""

    window: str = ""
    open: int = 0
    settled: int = 0
    entries: deque[tuple[int, int]] = field(default_factory=deque)
    day: int = 0

    def used(self, at_us: int) -> int:
        if self.window == "minute":
            while self.entries and self.entries[0][0] <= at_us - MINUTE_US:
                self.settled -= self.entries.popleft()[1]
        elif self.window == "day" and at_us // DAY_US != self.day:
            self.day, self.settled = at_us // DAY_US, 0
        return self.settled + self.open

    def used_with_slack(self, at_us: int) -> int:
        """What would be used if entries left the minute a little later."""
        return self.used(at_us - SLACK_US if self.window == "minute" else at_us)

    def add(self, at_us: int, amount: int) -> None:
        self.used(at_us)
        if self.window != "now":
            self.settled += amount
            if self.window == "minute":
                self.entries.append((at_us, amount))


@dataclass
class Judgement:
    steps: int = 0
    let_in: int = 0
    refused: int = 0
    over: list[str] = field(default_factory=list)  # let in although there was no room
    in_vain: list[str] = field(default_factory=list)  # refused although there was room
    for_leases: int = 0  # refused although there was room, but for the hundredth that may be leased
    money_over: list[str] = field(default_factory=list)
    leases: int = 0  # the greatest share of a limit that was leased at one time, in millionths


class Judge:
    def __init__(self) -> None:
        self.found = Judgement()
        self._accounts: dict[str, Account] = {}
        self._most: dict[str, int] = {}
        self._leases: dict[str, dict[str, int]] = {}

    def read(self, lines: Iterable[tuple[int, int, str, list[Any], Any]]) -> Judgement:
        for at_us, _, owner, step, result in lines:
            self.found.steps += 1
            match step[0]:
                case "take":
                    self._take(at_us, step[1], result)
                case "settle":
                    self._settle(at_us, step[1], step[2])
                case "retire":
                    for leases in self._leases.values():
                        leases.pop(owner, None)
                case _:
                    self._lease(owner, step[1], step[3], result)
        return self.found

    def open_at_the_end(self) -> int:
        return sum(account.open for account in self._accounts.values())

    def _account(self, name: str, window: str) -> Account:
        account = self._accounts.setdefault(name, Account())
        account.window = window
        return account

    def _take(self, at_us: int, asked: list[list[Any]], result: list[int]) -> None:
        if not asked or result[0] == 2:
            return
        if result[0] == 0:
            self._refusal(at_us, asked, result)
            return
        self.found.let_in += 1
        for each in asked:
            if self._lacks(each, at_us):
                self.found.over.append(f"{at_us} {each}")
        for name, window, amount, most, held in asked:
            self._most[name] = most
            if held:
                self._account(name, window).open += amount
            else:
                self._account(name, window).add(at_us, amount)

    def _refusal(self, at_us: int, asked: list[list[Any]], result: list[int]) -> None:
        self.found.refused += 1
        # From the earlier moment on, for entries that have left the minute do not come back.
        late = any(self._lacks(each, at_us, late=True) for each in asked)
        late_for_leases = any(self._lacks(each, at_us, late=True, leased=0.01) for each in asked)
        if late or any(self._lacks(each, at_us) for each in asked):
            return
        if late_for_leases or any(self._lacks(each, at_us, leased=0.01) for each in asked):
            self.found.for_leases += 1
        else:
            self.found.in_vain.append(f"{at_us} {asked} {result}")

    def _lacks(
        self, each: list[Any], at_us: int, *, late: bool = False, leased: float = 0.0
    ) -> bool:
        name, window, amount, most, _ = each
        account = self._account(name, window)
        used: int = account.used_with_slack(at_us) if late else account.used(at_us)
        return used + int(amount) > int(most) * (1 - leased)

    def _settle(self, at_us: int, releases: list[list[Any]], spent: list[list[Any]]) -> None:
        for name, amount in releases:
            self._accounts[name].open -= amount
        for name, window, amount in spent:
            account = self._account(name, window)
            account.add(at_us, amount)
            if name.startswith("nano_usd") and account.used(at_us) > self._most[name]:
                self.found.money_over.append(f"{at_us} {name} {account.used(at_us)}")

    def _lease(self, owner: str, name: str, most: int, granted: int) -> None:
        if granted < 0:
            return
        leases = self._leases.setdefault(name, {})
        leases[owner] = granted
        if most:
            share = sum(leases.values()) * 1_000_000 // most
            self.found.leases = max(self.found.leases, share)


def judged(paths: Iterable[Path]) -> Judge:
    """The judge of all steps in these files, each of one process."""
    judge = Judge()
    judge.read(merge(*map(_lines, paths), key=lambda line: line[:2]))
    return judge


def _lines(path: Path) -> Iterator[tuple[int, int, str, list[Any], Any]]:
    with path.open() as file:
        for line in file:
            at_us, place, step, result = json.loads(line)
            yield at_us, place, path.name, step, result
