"""
What is known of a public name, by LiteLLM's words for it. Pure.

A name may stand for several targets, and whichever answers must fit what is said of it: a limit is
the smallest, a capability is there where all have it, and a price is the dearest, beside the range
of it. Of what one of them does not say, nothing is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from proxy.catalogue import is_listed
from proxy.pricing import is_known_price
from proxy.types import Target

SMALLEST = ("max_input_tokens", "max_output_tokens")


def described(targets: Sequence[Target]) -> dict[str, Any]:
    """Return the fields that are said of the targets together."""
    said = [_said(target) for target in targets]
    shared = [name for name in said[0] if all(name in each for each in said)] if said else []
    fields: dict[str, Any] = {}
    ranges: dict[str, list[Any]] = {}
    for name in sorted(shared):
        values = [each[name] for each in said]
        if name in SMALLEST:
            fields[name] = min(values)
        elif is_known_price(name):
            fields[name] = max(values)
            if min(values) < max(values):
                ranges[name] = [min(values), max(values)]
        elif name.startswith("supports_"):
            fields[name] = all(value is True for value in values)
        elif all(value == values[0] for value in values):
            fields[name] = values[0]
    return {**fields, **({"ranges": ranges} if ranges else {})}


def owner_of(targets: Sequence[Target]) -> str | None:
    """Return the provider, where there is only one."""
    providers = {target.provider for target in targets}
    return providers.pop() if len(providers) == 1 else None


def _said(target: Target) -> Mapping[str, Any]:
    """Return what is known of one target; the file's word stands above that of LiteLLM's table."""
    facts = target.facts
    limits = (facts.max_input_tokens, facts.max_output_tokens)
    known = {n: limit for n, limit in zip(SMALLEST, limits, strict=True) if limit is not None}
    stated = {} if target.stated.mocked else dict(_stated(target))
    return {**dict(facts.listed), **stated, **known}


def _stated(target: Target) -> Iterator[tuple[str, Any]]:
    for source in (target.info, dict(target.stated.numbers)):
        for name, value in source.items():
            fits = (
                str if name == "mode" else (bool if name.startswith("supports_") else float | int)
            )
            if is_listed(name) and isinstance(value, fits):
                yield name, value
