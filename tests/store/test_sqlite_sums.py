"""Whatever is done in whatever order, the totals are the sums of the rows."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.limits import Scope, ScopeKind, Unit
from proxy.store import Opened, hour_of
from proxy.store.sqlite import Book, columns_of
from proxy.store.sqlite_schema import connect
from proxy.types import Usage
from tests.store.rows import HOUR_S, T0, closed, open_ids, opened, sums, sums_of_rows

which = st.integers(0, 9)
hours = st.integers(0, 4).map(lambda hour: T0 + hour * HOUR_S + 5.0)
names = st.sampled_from(["", "x", "y"])
usages = st.tuples(st.integers(0, 99), st.integers(0, 99), st.integers(0, 9), st.booleans()).map(
    lambda drawn: Usage(*drawn[:3], estimated=drawn[3])
)


class Life(RuleBasedStateMachine):
    """One book, and beside it a plain account of what was used ever."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "m.db"
        self._rows: dict[str, Opened] = {}  # that are open
        self._ids: list[str] = ["never"]  # that ever were
        self._taken: dict[str, tuple[int, int]] = {}  # by user: tokens and money
        self._admitted: dict[str, int] = {}
        self._book = Book(connect(self._path, 1.0), "me", {})

    def teardown(self) -> None:
        self._book.end()
        self._folder.cleanup()

    def _account(self, row: Opened, tokens: int, nano_usd: int) -> None:
        before = self._taken.get(row.user, (0, 0))
        self._taken[row.user] = (before[0] + tokens, before[1] + nano_usd)

    @rule(user=names, place=names, at=hours, admitted=st.booleans())
    def open(self, user: str, place: str, at: float, admitted: bool) -> None:
        row_id = f"a{len(self._ids)}"
        row = opened(row_id, user=user, target=place, tags=tuple(place), opened_at=at)
        self._book.begin()
        self._book.open(row, admitted=admitted)
        self._book.commit()
        self._ids.append(row_id)
        self._rows[row_id] = row
        self._admitted[user] = self._admitted.get(user, 0) + admitted

    @rule(which=which, usage=usages, price=st.none() | st.integers(0, 99), at=hours)
    def close(self, which: int, usage: Usage, price: int | None, at: float) -> None:
        row_id = self._ids[-which % len(self._ids)]
        self._book.begin()
        self._book.close(closed(row_id, usage=usage, nano_usd=price, closed_at=at))
        self._book.close(closed(row_id, nano_usd=7, closed_at=at + 1))
        self._book.commit()
        if (row := self._rows.pop(row_id, None)) is not None:
            self._account(row, usage.prompt_tokens + usage.completion_tokens, price or 0)

    @rule(which=which)
    def withdraw(self, which: int) -> None:
        row_id = self._ids[-which % len(self._ids)]
        self._book.begin()
        self._book.withdraw(row_id)
        self._book.commit()
        self._rows.pop(row_id, None)

    @rule(which=which)
    def fail(self, which: int) -> None:
        self._book.begin()
        self._book.close(closed(self._ids[-which % len(self._ids)]))
        self._book.open(opened("new"), admitted=True)
        self._book.rollback()

    @rule(before=hours, most=st.integers(1, 5))
    def purge(self, before: float, most: int) -> None:
        gone = 1
        while gone:
            self._book.begin()
            gone = self._book.purge(hour_of(before), hour_of(before), most)
            self._book.commit()

    @rule()
    def open_the_file_again(self) -> None:
        self._book.end()
        rows = {row_id: columns_of(row, "me") for row_id, row in self._rows.items()}
        self._book = Book(connect(self._path, 1.0), "me", rows)
        self._book.begin()
        self._book.reconcile()
        self._book.commit()

    @rule()
    def die_and_be_recovered(self) -> None:
        self._book.drop()
        self._book = Book(connect(self._path, 1.0), "heir", {})
        self._book.begin()
        assert self._book.owners() == (["me"] if self._rows else [])
        lost = self._book.lose(["me"], T0 + 9.0)
        self._book.commit()
        assert sorted(row.id for row in lost) == sorted(self._rows)
        for row in self._rows.values():
            self._account(row, row.prompt_tokens + row.completion_tokens, row.nano_usd)
        self._rows.clear()
        self._book.end()
        self._book = Book(connect(self._path, 1.0), "me", {})

    def _used(self, scope: Scope, unit: Unit) -> int:
        return sum(self._book.used(scope, unit, 0).values())

    @invariant()
    def the_totals_are_the_sums_of_the_rows(self) -> None:
        assert sums(self._path) == sums_of_rows(self._path)
        assert open_ids(self._path) == sorted(self._rows)

    @invariant()
    def what_was_used_ever_stays_known(self) -> None:
        for user in ("", "x", "y"):
            scope = Scope(ScopeKind.USER, user)
            found = [self._used(scope, unit) for unit in (Unit.TOKENS, Unit.NANO_USD)]
            assert tuple(found) == self._taken.get(user, (0, 0))
            assert self._used(scope, Unit.REQUESTS) == self._admitted.get(user, 0)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
