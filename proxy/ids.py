"""
Names that nobody else gives, at the cost of counting.

The system's random numbers cost a request more than all of its limits together, so a process asks
for them once and counts on from there.
"""

from __future__ import annotations

import secrets
from itertools import count


class Ids:
    """Gives names of 32 characters, unique over all processes."""

    def __init__(self, seed: str | None = None) -> None:
        self._seed = secrets.token_hex(12) if seed is None else seed
        self._count = count(1)

    def next(self) -> str:
        return f"{self._seed}{next(self._count):08x}"
