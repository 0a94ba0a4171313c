"""
What a provider's headers say about its limits: how much is left, and when to come back.

Rate limits are given on in the spelling and the units of OpenAI's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType

from proxy.leeway import Leeway, ProviderUnit

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
_FACTS = ("remaining", "limit", "reset")
# How each spelling names a unit's facts. Where a provider sends both, the later, OpenAI's, stands.
_SPELLINGS: tuple[tuple[str, tuple[ProviderUnit, ...]], ...] = (
    ("anthropic-ratelimit-{unit}-{fact}", tuple(ProviderUnit)),
    ("x-ratelimit-{fact}-{unit}", (ProviderUnit.REQUESTS, ProviderUnit.TOKENS)),
)
_NAMES: tuple[tuple[ProviderUnit, Mapping[str, str]], ...] = tuple(
    (unit, {fact: text.format(unit=unit.value.replace("_", "-"), fact=fact) for fact in _FACTS})
    for text, units in _SPELLINGS
    for unit in units
)
LONGEST_RESET_S = 86_400.0  # no limit of a provider's is of more than a day
_COUNT = re.compile(r"[0-9]{1,12}")
# `17ms`, `1.5s`, `6m0s`, `2h0m30s`: the digits are bounded, so that no float is infinite.
_DURATION = re.compile(
    r"(?:([0-9]{1,3})d)?(?:([0-9]{1,4})h)?(?:([0-9]{1,6})m(?!s))?"
    r"(?:([0-9]{1,9}(?:\.[0-9]{1,12})?)s)?(?:([0-9]{1,12}(?:\.[0-9]{1,12})?)ms)?"
)
_PARTS_S = (86_400.0, 3600.0, 60.0, 1.0, 0.001)


def rate_limits(headers: Mapping[str, str], *, wall_s: float) -> Mapping[str, str]:
    """
    Return the `x-ratelimit-*` headers of an answer; `headers` has lower-case names.

    Anthropic says as an RFC 3339 date when a limit is back, OpenAI in how long: `wall_s` is now.
    """
    if not _speaks_of_limits(headers):
        return {}
    found = {name: value for name, value in headers.items() if name.startswith(PREFIX)}
    for name, ours in ANTHROPIC.items():
        if name in headers:
            value = headers[name]
            found.setdefault(ours, _duration(value, wall_s) if name.endswith("reset") else value)
    return found


def leeways(headers: Mapping[str, str], *, wall_s: float) -> tuple[Leeway, ...]:
    """
    Return what the headers of an answer say is left of the provider's limits, a unit at most once.

    What cannot be read, or cannot be true, is left out: nobody is refused because of a header.
    """
    if not _speaks_of_limits(headers):
        return ()
    return tuple({each.unit: each for each in _found(headers, wall_s)}.values())


def _speaks_of_limits(headers: Mapping[str, str]) -> bool:
    return "ratelimit-" in " ".join(headers)


def _found(headers: Mapping[str, str], wall_s: float) -> Iterator[Leeway]:
    for unit, names in _NAMES:
        if (text := headers.get(names["remaining"])) is None:
            continue
        remaining, limit = _count(text), _count(headers.get(names["limit"]))
        reset_s = _reset_s(headers.get(names["reset"]), wall_s)
        # A limit of nothing is how some write that there is none.
        absurd = limit == 0 or (reset_s or 0.0) > LONGEST_RESET_S
        if remaining is None or absurd or (limit is not None and remaining > limit):
            continue
        yield Leeway(unit, remaining, limit, reset_s)


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and _COUNT.fullmatch(text) else None


def _reset_s(text: str | None, wall_s: float) -> float | None:
    """Return in how many seconds a limit is back: a duration, plain seconds, or a moment."""
    if not text:
        return None
    if found := _DURATION.fullmatch(text):
        parts = zip(found.groups(), _PARTS_S, strict=True)
        return sum(float(number) * part_s for number, part_s in parts if number)
    if (seconds := _number(text)) is not None:
        return seconds
    moment_s = _moment_s(text)
    return None if moment_s is None else max(0.0, moment_s - wall_s)


def _moment_s(date: str) -> float | None:
    """Return an RFC 3339 moment in seconds since 1970."""
    try:
        moment = datetime.fromisoformat(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _duration(date: str, wall_s: float) -> str:
    """Return the time until `date` as OpenAI writes it, `6m0s` or `1.5s`; else the text itself."""
    moment_s = _moment_s(date)
    if moment_s is None:
        return date
    left_s = max(0.0, moment_s - wall_s)
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
