"""How rows of numbers are shown to a person."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TypeAlias

Row: TypeAlias = tuple[str, ...]


def table(title: str, head: Row, rows: Sequence[Row]) -> str:
    """Return it with words to the left and numbers to the right; nothing where there is no row."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    numeric = [all(not row[column][:1].isalpha() for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            f"{cell:{'>' if right else '<'}{width}}"
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in (head, *rows)
    ]
    rule = "-" * max(map(len, lines))
    return "\n".join([title, rule, lines[0], rule, *lines[1:]])


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median with the least and the most."""
    least, most = min(values), max(values)
    return f"{median(values):.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"
