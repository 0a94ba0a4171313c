"""What the headers of a request say about its own handling; a body says the same in its fields."""

from __future__ import annotations

import math
from dataclasses import replace

from proxy.api.headers import RequestHeaders
from proxy.api.parse import MOST_FALLBACKS
from proxy.errors import RequestInvalid
from proxy.types import Wishes

ORDER = b"x-mobius-order"
TIMEOUT = b"x-mobius-timeout"
NO_FALLBACK = b"x-mobius-no-fallback"
SESSION = b"x-mobius-session"
CACHE = b"cache-control"
LONGEST_SESSION = 256  # characters
_YES, _NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})


def with_headers(wishes: Wishes, headers: RequestHeaders) -> Wishes:
    """
    Return the wishes of a body and those of the headers, which stand nearer to the caller.

    Raises RequestInvalid naming the header.
    """
    if control := headers.get(CACHE):
        wishes = replace(wishes, cache=wishes.cache.with_header(control))
    if (order := headers.get(ORDER)) is not None:
        wishes = replace(wishes, order=_order(order))
    if (timeout := headers.get(TIMEOUT)) is not None:
        wishes = replace(wishes, timeout_s=_timeout_s(timeout))
    if (flag := headers.get(NO_FALLBACK)) is not None and _flag(flag):
        wishes = replace(wishes, disable_fallbacks=True)
    if session := headers.get(SESSION):
        wishes = replace(wishes, session=session.decode("latin-1")[:LONGEST_SESSION])
    return wishes


def _order(value: bytes) -> tuple[str, ...]:
    names = [name.strip() for name in value.decode("latin-1").split(",")]
    found = tuple(dict.fromkeys(name for name in names if name))
    if not found or len(found) > MOST_FALLBACKS:
        raise _wrong(ORDER, f"1 to {MOST_FALLBACKS} names of models, with commas between them")
    return found


def _timeout_s(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _wrong(TIMEOUT, "a positive number of seconds")
    return seconds


def _flag(value: bytes) -> bool:
    text = value.decode("latin-1").strip().lower()
    if text not in _YES | _NO:
        raise _wrong(NO_FALLBACK, "true or false")
    return text in _YES


def _wrong(header: bytes, expected: str) -> RequestInvalid:
    name = header.decode()
    return RequestInvalid(f"`{name}` must be {expected}", param=name)
