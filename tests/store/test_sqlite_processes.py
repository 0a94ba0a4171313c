"""Several processes at one file, one after the other killed, and one whose files may not grow."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.child import ROOT, clean_env
from tests.store.rows import closed_ids, open_ids, select, sums, sums_of_rows

KILLS = 20


@contextmanager
def child(path: Path, name: str, rows: int, **env: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.store.ledger_child", str(path), name, str(rows)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=clean_env(path.parent, env), cwd=ROOT, stdin=pipe, stdout=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(process: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    """Yield what it says, to its end; a line that it could not finish is not said."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.endswith("\n"):
            letter, _, row_id = line.strip().partition(" ")
            yield letter, row_id


def test_a_killed_process_loses_nothing_and_counts_nothing_twice(tmp_path: Path) -> None:
    path, chance = tmp_path / "m.db", random.Random(4)  # noqa: S311  # when to kill
    told: set[tuple[str, str]] = set()
    for life in range(KILLS):
        with child(path, f"life{life}", 0) as process:
            most = chance.randrange(1, 400)
            for number, line in enumerate(lines_of(process)):
                told.add(line)
                if number == most:
                    process.kill()
    with child(path, "last", 8) as process:
        told.update(lines_of(process))
        assert process.wait() == 0

    by_letter = {letter: {row_id for was, row_id in told if was == letter} for letter in "ocl"}
    rows = dict(select(path, "SELECT id, outcome FROM attempts"))
    assert len(closed_ids(path)) == len(rows)
    assert open_ids(path) == []
    assert by_letter["o"] <= rows.keys()
    assert all(rows[row_id] == "ok" for row_id in by_letter["c"])
    assert by_letter["l"] <= {row_id for row_id, outcome in rows.items() if outcome == "lost"}
    outcomes = Counter(rows.values())
    # Killed while eight were on their way: more than those were neither lost nor made up.
    assert 0 < outcomes["lost"] <= 8 * KILLS
    assert outcomes.total() <= len(by_letter["o"]) + 8 * KILLS
    assert sums(path) == sums_of_rows(path)
    assert select(path, "SELECT sum(admitted) FROM totals") == [(len(rows),)]
    assert list(tmp_path.glob("*.lock")) == []


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    path, rows = tmp_path / "m.db", 2000
    with child(path, "one", rows) as one, child(path, "two", rows) as two:
        told = Counter([*lines_of(one), *lines_of(two)])
        assert (one.wait(), two.wait()) == (0, 0)
    names = {f"{name}-{number}" for name in ("one", "two") for number in range(rows)}
    assert told == Counter((letter, row_id) for letter in "oc" for row_id in names)  # and no `l`
    assert set(closed_ids(path)) == names
    assert sums(path) == sums_of_rows(path)
    assert select(path, "SELECT sum(admitted) FROM totals") == [(2 * rows,)]


def test_what_is_closed_while_files_may_not_grow_is_written_when_they_may(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    with child(path, "full", 0, LEDGER_CHILD_BYTES="150000") as process:
        told = []
        for line in lines_of(process):
            told.append(line)
            if line[0] == "k":
                assert closed_ids(path) == []
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()
        assert process.wait() == 0
    opened_rows = sorted(row_id for letter, row_id in told if letter == "o")
    (trouble,) = (text for letter, text in told if letter == "x")
    assert "look at the disk" in trouble
    assert told[-1] == ("w", "all")
    assert opened_rows
    assert (open_ids(path), closed_ids(path)) == ([], opened_rows)
    assert sums(path) == sums_of_rows(path)
