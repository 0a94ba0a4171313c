"""LiteLLM's table of prices and limits, read from its file and not asked of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from proxy.catalogue import (
    HABITS,
    STATED,
    UPLIFT_OF_ENDPOINT,
    UPLIFT_OF_REGION,
    PriceTable,
    is_listed,
)

FILE = "model_prices_and_context_window_backup.json"
EXAMPLE = "sample_spec"  # a row that explains the others
UPLIFTS = (UPLIFT_OF_ENDPOINT, UPLIFT_OF_REGION)
KEPT = frozenset({*STATED, *HABITS, "litellm_provider", "tiered_pricing"})


@cache
def shipped_table() -> PriceTable | None:
    """Return the table of the installed LiteLLM; None when there is none. Read once per process."""
    spec = importlib.util.find_spec("litellm")
    for place in (spec.submodule_search_locations if spec else None) or ():
        if (found := read_table(Path(place) / FILE)) is not None:
            return found
    return None


def read_table(file: Path) -> PriceTable | None:
    """Return the table in a file; None when it cannot be read or is no such table."""
    try:
        rows = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(rows, dict):
        return None
    # A third of the file is about what nobody here asks for.
    return PriceTable(
        {
            name.lower(): _kept(row)
            for name, row in rows.items()
            if name != EXAMPLE and isinstance(row, dict)
        }
    )


def _kept(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {
        name: value
        for name, value in row.items()
        if name in KEPT or name.startswith(UPLIFTS) or is_listed(name)
    }
