"""A child process with a group of its own, a clean environment, and its output in files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOBIUS = (sys.executable, "-m", "proxy")


def clean_env(home: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """What a child sees: the PATH, a home of its own, coverage's variables, and `extra`."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    base = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}
    return {**kept, **base, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **extra}


class Child:
    """One process, started now; every end of it is by its id."""

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], folder: Path, name: str = "child"
    ) -> None:
        self._outputs = (folder / f"{name}.stdout", folder / f"{name}.stderr")
        with self._outputs[0].open("ab") as stdout, self._outputs[1].open("ab") as stderr:
            self._process = subprocess.Popen(
                list(command),
                env=dict(env),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id; it stays known after the end."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number when a signal ended it."""
        return self._process.poll()

    @property
    def log(self) -> str:
        """Everything printed so far: standard output, then standard error."""
        return "".join(path.read_text(errors="replace") for path in self._outputs)

    def signal(self, number: signal.Signals) -> None:
        """The signal is sent; nothing happens when the process has ended."""
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> int:
        """The exit code; AssertionError with the log when it did not end in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log}") from exc

    def end(self, grace_s: float) -> int:
        """It has ended, after SIGTERM if it heeds that in time, and so has its whole group."""
        if self.exit_code is None:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        return self.kill()

    def kill(self) -> int:
        """It has ended without being asked, with its whole group; the exit code."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()
