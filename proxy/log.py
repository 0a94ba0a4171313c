"""
One JSON line per request, at its end, from its tally. No prompt, no key, ever.

When nobody reads the log, lines are lost and counted; no request waits for it or fails with it.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

import orjson

from proxy.clock import Clock
from proxy.types import Tally

MOST_LINES = 10_000  # that wait for a reader of the log
STDOUT = 1
WHOLE_BYTES = 4096  # that reach a pipe in one piece, whoever else writes to it
COMPANY_S = 0.01  # that a line waits for others: waking a thread costs more than to write one
LAST_WAIT_S = 1.0  # what is still queued at the end may take this long


class LineWriter:
    """
    Takes lines at once, and writes them from a thread of its own inside the `with`.

    A line is lost when too many wait, or when `write` fails; a later line says how many were.
    """

    def __init__(
        self, write: Callable[[bytes], object], clock: Clock, *, most_lines: int = MOST_LINES
    ) -> None:
        self._write = write
        self._clock = clock
        self._most_lines = most_lines
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._ending = threading.Event()  # from which on nothing waits for company
        self._dropped = 0  # counted by those who write lines ...
        self._failed = self._told = 0  # ... and these by the thread, so that none needs a lock
        # It may be stuck in a write for ever, which must not keep the process.
        self._thread = threading.Thread(target=self._run, name="write the log", daemon=True)

    def __call__(self, line: bytes) -> None:
        if self._lines.qsize() >= self._most_lines:
            self._dropped += 1
        else:
            self._lines.put(line)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lines.put(None)
        self._ending.set()
        self._thread.join(LAST_WAIT_S)

    def _run(self) -> None:
        while True:
            batch = self._batch()
            lines = [line for line in batch if line is not None]
            self._write_all(lines)
            if len(lines) < len(batch):
                return

    def _batch(self) -> list[bytes | None]:
        """Wait for a line; return it and all that are queued behind it."""
        batch = [self._lines.get()]
        self._ending.wait(COMPANY_S)
        while batch[-1] is not None:
            try:
                batch.append(self._lines.get_nowait())
            except queue.Empty:
                break
        return batch

    def _write_all(self, lines: list[bytes]) -> None:
        lost = self._dropped + self._failed - self._told
        said = [_as_line(self._clock, "log_lost", lines=lost)] if lost else []
        if not lines and not said:
            return
        try:
            self._write(b"".join((*said, *lines)))
        except Exception:
            # Whoever reads the log is gone, or its disk is full; there is nobody to tell.
            self._failed += len(lines)
        else:
            self._told += lost


class Log:
    """Writes whole lines through `write`; what may stand in them is decided by its callers."""

    def __init__(self, write: Callable[[bytes], object], clock: Clock) -> None:
        self._write = write
        self._clock = clock

    def line(self, event: str, **facts: Any) -> None:
        """Write one line: the time, what happened, and the facts about it."""
        self._write(_as_line(self._clock, event, **facts))

    def request(self, tally: Tally) -> None:
        """Write the line of one model request, which has come to its end."""
        now_s, first_s, usage = self._clock.now(), tally.first_content_s, tally.usage
        line = {
            "time": _stamp(self._clock.wall()),
            "event": "request",
            "request_id": tally.request_id,
            "surface": tally.surface,
            "model": tally.model,
            "caller": tally.caller,
            "stream": tally.stream,
            "outcome": tally.outcome,
            "status": tally.status,
            "target": tally.target,
            "attempts": tally.trail,
            "cache": tally.cache,
            "total_s": round(now_s - tally.started_s, 6),
            "upstream_s": round(tally.upstream_s, 6),
            "first_token_s": None if first_s is None else round(first_s - tally.started_s, 6),
            "prompt_tokens": None if usage is None else usage.prompt_tokens,
            "completion_tokens": None if usage is None else usage.completion_tokens,
        }
        if tally.hedged is not None:
            line["hedged"] = tally.hedged
        self._write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def write_lines(lines: bytes) -> None:
    """
    Write to standard output itself: a thread stuck in `sys.stdout` would break Python's end.

    Workers share it. A line that is no longer than what a pipe takes at once stays whole.
    """
    if sys.stdout is None:
        return  # it was closed at start, so that its number may be another file's by now
    start = 0
    while start < len(lines):
        end = lines.rfind(b"\n", start, start + WHOLE_BYTES) + 1 or lines.find(b"\n", start) + 1
        start += os.write(STDOUT, lines[start : end or len(lines)])


def _as_line(clock: Clock, event: str, **facts: Any) -> bytes:
    line = {"time": _stamp(clock.wall()), "event": event, **facts}
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _stamp(wall_s: float) -> str:
    second = int(wall_s)
    return f"{_second(second)}.{int((wall_s - second) * 1000):03d}Z"


@lru_cache(maxsize=2)
def _second(wall_s: int) -> str:
    """Return the second as a date: many lines have the same."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")
