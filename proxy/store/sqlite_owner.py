"""
Which processes that wrote to a ledger's file are still alive, without a clock or a process id.

Each holds a lock on a file of its own beside the ledger's. The system lets go of it when the
process ends, however it ends, so a lock that can be taken belongs to a process that is gone.
"""

from __future__ import annotations

import fcntl
import glob
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOOK_S = 0.001  # until a lock is tried again that another process looks at
LOOKS = 2000  # before that other process is taken for one that has the same name


class Owner:
    """One process at one ledger's file, from `hold` to `release`."""

    def __init__(self, path: Path, name: str, *, looks: int = LOOKS) -> None:
        self.name = name
        self._path = path
        self._looks = looks
        self._held: int | None = None

    def hold(self) -> None:
        """Hold the lock, also where its file was removed meanwhile; raises OSError. It may wait."""
        for _ in range(self._looks):
            if self._held is not None and _is_at(self._held, self._file(self.name)):
                return
            self._let_go()
            self._held = _take(self._file(self.name))
            if self._held is None:
                # A new file is another's for a moment, who looks whether this process is alive.
                time.sleep(LOOK_S)
        raise BlockingIOError(f"{self._file(self.name)} is locked by another process")

    def release(self) -> None:
        """Hold the lock no longer, and leave no file behind."""
        if self._held is not None:
            self._file(self.name).unlink(missing_ok=True)
        self._let_go()

    @contextmanager
    def inherit(self, names: Iterable[str]) -> Iterator[list[str]]:
        """
        Hold the locks of all who are dead inside the `with`; yield the names of these owners.

        Their files go when the block succeeds. An owner without a file is dead too: what was
        restored from a copy has rows and no locks.
        """
        found = self._path.parent.glob(f"{glob.escape(self._path.name)}.*.lock")
        lost = {file.name[len(self._path.name) + 1 : -len(".lock")] for file in found}
        taken = {
            name: lock
            for name in sorted({*names, *lost} - {self.name})
            if (lock := _take(self._file(name))) is not None
        }
        try:
            yield list(taken)
            for name in taken:
                self._file(name).unlink(missing_ok=True)
        finally:
            for lock in taken.values():
                os.close(lock)

    def is_alive(self, name: str) -> bool:
        """Say whether the process of that name holds its lock."""
        file = self._file(name)
        if not file.exists():
            return False
        lock = _take(file)
        if lock is not None:
            os.close(lock)
        return lock is None

    def _file(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}.lock")

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
        self._held = None


class Turn:
    """What one process of those at a ledger's file does for all of them, until it ends."""

    def __init__(self, path: Path, what: str) -> None:
        self._file = path.with_name(f"{path.name}.{what}")
        self._held: int | None = None

    def take(self) -> bool:
        """Say whether it is this process: from now on it is, where no other was. Raises OSError."""
        if self._held is None or not _is_at(self._held, self._file):
            self._let_go()
            self._held = _take(self._file)
        return self._held is not None

    def release(self) -> None:
        """Leave it to the others."""
        if self._held is not None:
            self._file.unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
        self._held = None


def _take(file: Path) -> int | None:
    """Return the open file with its lock, or nothing if another holds it."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _is_at(lock: int, file: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(lock), file.stat())
    return False
