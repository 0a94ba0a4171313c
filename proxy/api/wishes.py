"""What the headers of a request say about its own handling; a body says the same in its fields."""

from __future__ import annotations

import math
from dataclasses import replace

from proxy.api.headers import RequestHeaders
from proxy.api.parse import MOST_FALLBACKS, MOST_RETRIES
from proxy.errors import RequestInvalid
from proxy.types import Wishes

ORDER = b"x-mobius-order"
# The second of each is what clients of LiteLLM's proxy send.
TIMEOUTS = (b"x-mobius-timeout", b"x-litellm-timeout")
RETRIES = (b"x-mobius-num-retries", b"x-litellm-num-retries")
NO_FALLBACK = b"x-mobius-no-fallback"
SESSION = b"x-mobius-session"
CACHE = b"cache-control"
_HEADERS = frozenset({ORDER, *TIMEOUTS, *RETRIES, NO_FALLBACK, SESSION, CACHE})
LONGEST_SESSION = 256  # characters
_YES, _NO = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off", ""})


def with_headers(wishes: Wishes, headers: RequestHeaders) -> Wishes:
    """
    Return the wishes of a body and those of the headers, which stand nearer to the caller.

    Raises RequestInvalid naming the header.
    """
    if _HEADERS.isdisjoint(headers):
        return wishes
    if control := headers.get(CACHE):
        wishes = replace(wishes, cache=wishes.cache.with_header(control))
    if (order := headers.get(ORDER)) is not None:
        wishes = replace(wishes, order=_order(order))
    if name := _first(TIMEOUTS, headers):
        wishes = replace(wishes, timeout_s=_timeout_s(name, headers[name]))
    if name := _first(RETRIES, headers):
        wishes = replace(wishes, num_retries=_retries(name, headers[name]))
    if (flag := headers.get(NO_FALLBACK)) is not None and _flag(flag):
        wishes = replace(wishes, disable_fallbacks=True)
    if session := headers.get(SESSION):
        wishes = replace(wishes, session=session.decode("latin-1")[:LONGEST_SESSION])
    return wishes


def _first(names: tuple[bytes, ...], headers: RequestHeaders) -> bytes | None:
    return next((name for name in names if name in headers), None)


def _order(value: bytes) -> tuple[str, ...]:
    names = [name.strip() for name in value.decode("latin-1").split(",")]
    found = tuple(dict.fromkeys(name for name in names if name))
    if not found or len(found) > MOST_FALLBACKS:
        raise _wrong(ORDER, f"1 to {MOST_FALLBACKS} names of models, with commas between them")
    return found


def _timeout_s(name: bytes, value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise _wrong(name, "a positive number of seconds")
    return seconds


def _retries(name: bytes, value: bytes) -> int:
    text = value.decode("latin-1").strip()
    # A long row of digits is refused before it is read: it could be of any length.
    if not (text.isascii() and text.isdigit() and len(text) < 9 and int(text) <= MOST_RETRIES):
        raise _wrong(name, f"a whole number from 0 to {MOST_RETRIES}")
    return int(text)


def _flag(value: bytes) -> bool:
    text = value.decode("latin-1").strip().lower()
    if text not in _YES | _NO:
        raise _wrong(NO_FALLBACK, "true or false")
    return text in _YES


def _wrong(header: bytes, expected: str) -> RequestInvalid:
    name = header.decode()
    return RequestInvalid(f"`{name}` must be {expected}", param=name)
