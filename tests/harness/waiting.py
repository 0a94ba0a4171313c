"""The only place where a test polls: another process cannot be waited for otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE_S = 0.02


def wait_until(predicate: Callable[[], T], timeout_s: float = 10.0, what: str = "it") -> T:
    """What `predicate` returned once it was true; AssertionError when it never was."""
    end_s = time.monotonic() + timeout_s
    while not (result := predicate()):
        if time.monotonic() > end_s:
            raise AssertionError(f"{what} was not so within {timeout_s} s; last: {result!r}")
        time.sleep(_PAUSE_S)
    return result
