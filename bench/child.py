"""A server under measurement: its process, and what Linux knows of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
START_S = 60.0
STOP_S = 10.0
OURS: Mapping[str, str] = {"PYTHONPATH": str(ROOT)}  # what a server of this tree is found by
TICK_S = 1 / os.sysconf("SC_CLK_TCK")  # what CPU times are rounded to


class NotServing(Exception):
    """A server that did not start."""


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """
    Yield a port that nobody else is given meanwhile.

    Connecting is refused until a server that sets SO_REUSEADDR (all of them do) listens there.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((HOST, 0))
        yield held.getsockname()[1]


class Child:
    """One server, started by `with`, in a session of its own; ended by its process id."""

    def __init__(
        self,
        name: str,
        port: int,
        command: Sequence[str],
        folder: Path,
        *,
        env: Mapping[str, str] = OURS,
    ) -> None:
        self.name, self.port = name, port
        self._command = list(command)
        self._folder, self._env = folder, env
        self._log = folder / f"{name}-{port}.log"

    def __enter__(self) -> Self:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder),
            "LANG": "C.UTF-8",
            **self._env,
        }
        self.started_s = time.monotonic()
        with self._log.open("wb") as log:
            self._running = subprocess.Popen(
                self._command,
                env=env,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then ends this
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception) and (printed := self.log_end()):
            error.add_note(f"--- {self.name} printed:\n{printed}")
        self._running.terminate()
        try:
            self._running.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._running.kill()
            self._running.wait()

    def wait_ready(self, path: str | None) -> float:
        """Return the seconds from the start to a 200 at `path`, or to an open port without one."""
        while time.monotonic() < self.started_s + START_S and self._running.poll() is None:
            with contextlib.suppress(OSError, HTTPException):
                if path is None or self._get(path) == 200:
                    with socket.create_connection((HOST, self.port), timeout=5):
                        return time.monotonic() - self.started_s
            time.sleep(0.01)
        raise NotServing(f"{self.name} does not answer")

    def _get(self, path: str) -> int:
        with contextlib.closing(HTTPConnection(HOST, self.port, timeout=5)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status

    def log_end(self) -> str:
        """Return the last lines that it printed."""
        return self._log.read_text(errors="replace")[-1500:]

    def cpu_s(self) -> float:
        """Return the CPU time so far, of every thread and every child process, user and system."""
        return sum(_ticks(pid) for pid in _family(self._running.pid)) * TICK_S

    def memory_mib(self) -> float:
        """Return the resident memory, with that of every child process."""
        return sum(_kib(pid, "VmRSS:") for pid in _family(self._running.pid)) / 1024

    def peak_memory_mib(self) -> float:
        """Return the most that was ever resident, of each process at its own time."""
        return sum(_kib(pid, "VmHWM:") for pid in _family(self._running.pid)) / 1024


def _family(pid: int) -> list[int]:
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in path.read_text().split():
            found += _family(int(child))
    return found


def _ticks(pid: int) -> int:
    # proc(5): the name in parentheses may hold anything; utime and stime are fields 14 and 15.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _kib(pid: int, name: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition(name)[2].split()[0])
