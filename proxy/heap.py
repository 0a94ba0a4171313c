"""
What lasts as long as the process, out of the sight of the garbage collector.

A full collection goes over all that lives, and nobody is answered meanwhile: 30 ms with what a
server imports, 150 ms with LiteLLM. None of that is ever garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Objects that are made and not freed before the young ones are looked over. Python's 700 are less
# than what a few requests under way hold, which is no garbage; what is in circles waits a little.
YOUNG = 20_000


@contextmanager
def lasting() -> Iterator[None]:
    """Have all that the block makes, and all that is there, looked at no more."""
    was = gc.isenabled()
    gc.disable()  # each collection on the way would find nothing, and take longer than the last
    try:
        yield
    finally:
        keep()
        if was:
            gc.enable()


def keep() -> None:
    """
    Have all that is there now looked at no more.

    It is freed as ever when nothing refers to it; only what is garbage in a circle already stays.
    """
    gc.freeze()
    gc.set_threshold(YOUNG)
