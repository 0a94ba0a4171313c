"""
The numbers of several processes as one page. Pure.

What counts up is added, the dead included, so that no sum ever goes down. How a gauge is taken
together is said where it is defined; what a dead process showed is no longer so, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

GAUGE = "gauge"
BORN = "_created"  # the end of the name under which a counter says since when it counts

Labels: TypeAlias = tuple[tuple[str, str], ...]
Together: TypeAlias = Callable[[Iterable[float]], float]


@dataclass(frozen=True, slots=True)
class FamilyOf:
    """One metric as one process, or all, have it."""

    name: str
    kind: str
    text: str
    samples: Mapping[tuple[str, Labels], float]  # by name and labels, in the order of the page


Numbers: TypeAlias = tuple[FamilyOf, ...]


def together(parts: Sequence[Numbers], gauges: Mapping[str, Together]) -> Numbers:
    """Return the numbers of all; a gauge that is not among `gauges` is the least of them."""
    families: dict[str, list[FamilyOf]] = {}
    for part in parts:
        for family in part:
            families.setdefault(family.name, []).append(family)
    return tuple(_merged(found, gauges) for found in families.values())


def lasting(numbers: Numbers) -> Numbers:
    """Return what still counts when the process is gone."""
    return tuple(family for family in numbers if family.kind != GAUGE)


def as_json(numbers: Numbers) -> list[Any]:
    """Return the numbers as one process tells them another."""
    return [
        [each.name, each.kind, each.text, [[*key, value] for key, value in each.samples.items()]]
        for each in numbers
    ]


def from_json(told: Iterable[Any]) -> Numbers:
    """Return the numbers that were told."""
    return tuple(
        FamilyOf(
            name,
            kind,
            text,
            {(each, tuple((k, v) for k, v in labels)): value for each, labels, value in samples},
        )
        for name, kind, text, samples in told
    )


def _merged(found: Sequence[FamilyOf], gauges: Mapping[str, Together]) -> FamilyOf:
    first = found[0]
    if len(found) == 1:
        return first
    values: dict[tuple[str, Labels], list[float]] = {}
    for family in found:
        for key, value in family.samples.items():
            values.setdefault(key, []).append(value)
    samples = {}
    for key, each in values.items():
        how = gauges.get(first.name, min) if first.kind == GAUGE else _of_counter(key[0])
        samples[key] = how(each)
    return replace(first, samples=samples)


def _of_counter(name: str) -> Together:
    return min if name.endswith(BORN) else sum
