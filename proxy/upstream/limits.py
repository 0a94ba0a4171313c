"""
What a provider's headers say about its limits: how much is left, and when to come back.

Rate limits are given on in the spelling and the units of OpenAI's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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


def retry_after_s(headers: Mapping[str, str], *, now_s: float) -> float | None:
    """
    Return the seconds that `retry-after-ms` or `retry-after` asks for, or None when unusable.

    RFC 9110, section 10.2.3: seconds or an HTTP date. Negative, past, infinite and unreadable
    values are unusable; absurdly long ones are left to the caller's cap.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    if text is None:
        return None
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        # `-0000`, or no zone at all: the standard knows none but UTC.
        moment = moment.replace(tzinfo=UTC)
    wait_s = moment.timestamp() - now_s
    return wait_s if wait_s >= 0 else None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else -1.0
    except ValueError:
        return None
    return value if value >= 0 and math.isfinite(value) else None
