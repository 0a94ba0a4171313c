"""
A start where one target needs LiteLLM, which takes seconds to import, and another does not.

The one that does not is asked from the first moment on and until readiness says that all is there.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench import cast
from bench.child import HOST, START_S, Child, NotServing


@dataclass(frozen=True, slots=True)
class LoadingStart:
    """One start, in seconds from its first instruction."""

    answer_s: float  # the target that needs no LiteLLM has answered
    loading: tuple[str, ...]  # the lanes that readiness then said were loading
    slowest_ms: float  # the longest that the same target took for an answer from then on
    ready_s: float  # no lane is loading any more
    memory_mib: float  # after that


def measure_loading(origin: Child, folder: Path) -> LoadingStart:
    """Return how one start went. Raises NotServing, and WrongAnswer from any answer."""
    with cast.mixed(origin, folder) as child:
        child.wait_ready(None)
        with contextlib.closing(HTTPConnection(HOST, child.port, timeout=START_S)) as connection:
            cast.ask(connection)
            answer_s = time.monotonic() - child.started_s
            loading, slowest_ms = _loading(connection), 0.0
            still = loading
            while still:
                slowest_ms = max(slowest_ms, _asked_ms(connection))
                still = _loading(connection)
                if time.monotonic() > child.started_s + START_S:
                    raise NotServing(f"still loading: {still}")
        ready_s = time.monotonic() - child.started_s
        return LoadingStart(answer_s, loading, slowest_ms, ready_s, child.memory_mib())


def _loading(connection: HTTPConnection) -> tuple[str, ...]:
    connection.request("GET", cast.READINESS)
    lanes: dict[str, str] = json.loads(connection.getresponse().read())["lanes"]
    return tuple(lane for lane, state in lanes.items() if state == "loading")


def _asked_ms(connection: HTTPConnection) -> float:
    start_s = time.perf_counter()
    cast.ask(connection)
    took_ms = (time.perf_counter() - start_s) * 1000
    time.sleep(0.005)  # so that asking does not hold up the import
    return took_ms
