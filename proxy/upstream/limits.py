"""A provider's rate limit headers, in the spelling and the units that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

# Anthropic's API reference, "Rate limits": Response headers.
ANTHROPIC: Mapping[str, str] = MappingProxyType(
    {
        "anthropic-ratelimit-requests-limit": "x-ratelimit-limit-requests",
        "anthropic-ratelimit-requests-remaining": "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-requests-reset": "x-ratelimit-reset-requests",
        "anthropic-ratelimit-tokens-limit": "x-ratelimit-limit-tokens",
        "anthropic-ratelimit-tokens-remaining": "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-tokens-reset": "x-ratelimit-reset-tokens",
    }
)
PREFIX = "x-ratelimit-"


def rate_limits(headers: Mapping[str, str], *, wall_s: float) -> Mapping[str, str]:
    """
    Return the `x-ratelimit-*` headers of an answer; `headers` has lower-case names.

    Anthropic says as an RFC 3339 date when a limit is back, OpenAI in how long: `wall_s` is now.
    """
    found = {name: value for name, value in headers.items() if name.startswith(PREFIX)}
    for name, ours in ANTHROPIC.items():
        if name in headers:
            value = headers[name]
            found.setdefault(ours, _duration(value, wall_s) if name.endswith("reset") else value)
    return found


def _duration(date: str, wall_s: float) -> str:
    """Return the time until `date` as OpenAI writes it, `6m0s` or `1.5s`; else the text itself."""
    try:
        left_s = max(0.0, datetime.fromisoformat(date).timestamp() - wall_s)
    except (ValueError, OverflowError):
        return date
    minutes, seconds = divmod(round(left_s, 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    parts = (f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else "")
    return f"{''.join(parts)}{seconds:g}s"
