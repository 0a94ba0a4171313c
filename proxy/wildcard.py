"""
Names with `*` in them: which others they stand for. Pure.

No other sign means anything but itself, as in LiteLLM: a model may be called `claude[1m]`.
"""

from __future__ import annotations


def fits(name: str, pattern: str) -> bool:
    """Say whether the name is the pattern, or one that it stands for."""
    return name == pattern or matched(pattern, name) is not None


def matched(pattern: str, name: str) -> tuple[str, ...] | None:
    """
    Return what each `*` of the pattern stands for in `name`; None when it does not match.

    An earlier `*` takes as much as it can, as in LiteLLM; the cost is linear in the length of a
    name that a stranger chose, which a regular expression's is not.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return () if name == pattern else None
    *middle, last = rest
    end = len(name) - len(last)
    if end < len(first) or not (name.startswith(first) and name.endswith(last)):
        return None
    parts: list[str] = []
    for literal in reversed(middle):
        at = name.rfind(literal, len(first), end)
        if at < 0:
            return None
        parts.append(name[at + len(literal) : end])
        end = at
    return (name[len(first) : end], *reversed(parts))


def filled(template: str, parts: tuple[str, ...]) -> str:
    """Return the template with its `*` filled from the left; a `*` beyond the parts stays."""
    first, *rest = template.split("*")
    stars = (*parts[: len(rest)], *("*" for _ in rest[len(parts) :]))
    return first + "".join(star + literal for star, literal in zip(stars, rest, strict=True))
