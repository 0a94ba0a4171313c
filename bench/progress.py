"""Where a run is, on standard error: a bar for a person, a line per phase for a log."""

from __future__ import annotations

import sys

WIDTH = 30


class Progress:
    """Told of every step before it is taken."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._taken = 0
        self._phase = ""
        self._bar = sys.stderr.isatty()

    def step(self, phase: str, what: str = "") -> None:
        """`what` is shown in the bar only."""
        share = min(1.0, self._taken / self._steps)
        self._taken += 1
        if self._bar:
            done = "#" * int(WIDTH * share)
            print(f"\r\x1b[K[{done:<{WIDTH}}] {share:4.0%} {phase} {what}", end="", file=sys.stderr)
        elif phase != self._phase:
            print(phase, file=sys.stderr)
        sys.stderr.flush()
        self._phase = phase

    def close(self) -> None:
        if self._bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
