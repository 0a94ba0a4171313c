"""What `mobius usage` prints: a report as a table that a person can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

LONGEST_CELL = 48  # characters of a name; the JSON has all of them
GAP = "  "
_ALWAYS = {
    "requests": "answered",
    "attempts": "attempts",
    "prompt_tokens": "prompt",
    "completion_tokens": "completion",
    "cost_usd": "cost USD",
}
_IF_ANY = {
    "cached_tokens": "cached",
    "cache_write_tokens": "cache write",
    "reasoning_tokens": "reasoning",
    "audio_prompt_tokens": "audio in",
    "audio_completion_tokens": "audio out",
}
# In the order of the table: parts stand after the whole that they are parts of.
_ORDER = (
    *("admitted", "requests", "attempts"),
    *("prompt_tokens", "cached_tokens", "cache_write_tokens", "audio_prompt_tokens"),
    *("completion_tokens", "reasoning_tokens", "audio_completion_tokens", "cost_usd"),
)
# A request that made no attempt is admitted under none of these.
_OF_ATTEMPTS = frozenset({"tag", "target", "provider"})
_NOTES = {
    "estimated": "{n} of the attempts {are} counted by us: the provider did not say how many "
    "tokens {they} took, or cannot have.",
    "unpriced": "{n} of the attempts {are} missing from the cost: no price is known for {them}.",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column, each cell as it is printed but for its width."""

    head: str
    cells: tuple[str, ...]
    foot: str
    right: bool  # where it is set: numbers on the right

    def lines(self) -> tuple[str, ...]:
        every = (self.head, *self.cells, self.foot)
        width = max(map(len, every))
        return tuple(each.rjust(width) if self.right else each.ljust(width) for each in every)


def usage_table(report: Mapping[str, Any], total: Mapping[str, Any] | None = None) -> list[str]:
    """
    Return the lines for an answer of `/admin/usage`.

    `total` is the row of everything, for where rows overlap; else they are added up.
    """
    groups: Sequence[str] = report["group_by"]
    period = f"{report['since'] or 'the first record'} to {report['until'] or 'now'}"
    rows: Sequence[Mapping[str, Any]] = report["rows"]
    if _OF_ATTEMPTS & set(groups):
        rows = [row for row in rows if row["attempts"]]
    missing = [report["note"]] if report.get("note") else []
    if not rows:
        return [f"nothing was used: {period}", *missing]
    everything = _sum_of(rows) if total is None else total
    columns = [*_group_columns(rows, groups), *_number_columns(rows, everything, groups)]
    lines = [GAP.join(cells).rstrip() for cells in zip(*(c.lines() for c in columns), strict=True)]
    rule = "-" * max(map(len, lines))
    notes = [*missing, *_notes(everything)]
    return [
        period,
        "",
        lines[0],
        rule,
        *lines[1:-1],
        rule,
        lines[-1],
        *([""] if notes else []),
        *notes,
    ]


def _group_columns(rows: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> Iterator[Column]:
    if not groups:
        yield Column("", tuple("" for _ in rows), "total", right=False)
    for index, group in enumerate(groups):
        cells = tuple(_shown(str(row[group])) for row in rows)
        yield Column(group, cells, "" if index else "total", right=False)


def _number_columns(
    rows: Sequence[Mapping[str, Any]], everything: Mapping[str, Any], groups: Sequence[str]
) -> Iterator[Column]:
    heads = {**_ALWAYS, **{name: head for name, head in _IF_ANY.items() if everything[name]}}
    if any(row["admitted"] != row["requests"] for row in rows) and not _OF_ATTEMPTS & set(groups):
        heads["admitted"] = "admitted"
    for name in _ORDER:
        if name in heads:
            numbers = [Decimal(row[name]) for row in (*rows, everything)]
            # All to the same number of places, so that they can be compared at a glance.
            places = max(0, *(-int(n.as_tuple().exponent) for n in numbers))
            cells = [f"{number:,.{places}f}" for number in numbers]
            yield Column(heads[name], tuple(cells[:-1]), cells[-1], right=True)


def _sum_of(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    names = (*_ORDER, *_NOTES)
    return {name: sum(Decimal(row[name]) for row in rows) for name in names}


def _notes(everything: Mapping[str, Any]) -> Iterator[str]:
    for name, text in _NOTES.items():
        if number := int(everything[name]):
            one = number == 1
            words = {"are": "is", "they": "it", "them": "it"} if one else {}
            yield text.format(
                n=f"{number:,}", **{w: words.get(w, w) for w in ("are", "they", "them")}
            )


def _shown(name: str) -> str:
    """Return a name that a stranger chose as it may stand in a terminal: no control codes."""
    name = "".join(c if c.isprintable() else "?" for c in name) or "-"
    return name if len(name) <= LONGEST_CELL else f"{name[: LONGEST_CELL - 1]}…"
