"""What the gateway knows about an answer, as headers; and what the headers of a request say."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TypeAlias

from proxy.errors import ProxyError
from proxy.limits import duration, usd
from proxy.replies import Completion, Reply
from proxy.types import ANTHROPIC, Tally

RawHeaders: TypeAlias = list[tuple[bytes, bytes]]
RequestHeaders: TypeAlias = Mapping[bytes, bytes]

# As OpenAI names them; no other header of a provider goes out.
_FACTS = ("limit", "remaining", "reset")
_RATE_LIMITS = tuple(
    f"x-ratelimit-{fact}-{unit}" for unit in ("requests", "tokens") for fact in _FACTS
)
_LONGEST_VALUE = 2048  # characters; a trail of attempts is the longest there is
_UNSAFE = re.compile(r"[^\x20-\x7e\xa0-\xff]")
_TAG = re.compile(r"[A-Za-z0-9._-]{1,32}=[A-Za-z0-9._:/@ -]{1,64}")
MOST_TAGS = 8
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


def request_id_of(headers: RequestHeaders) -> str:
    """Return the id the caller gave the request, where it is fit for logs, else one of ours."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    # No secret: the system's own random numbers would cost more than the rest of the edge.
    return f"req_{random.getrandbits(128):032x}"


def key_of(headers: RequestHeaders) -> bytes:
    """
    Return the presented key, empty where there is none: bearer, Anthropic's header, Azure's.

    LiteLLM's own header comes first: who sends it has another's credential in the place of a key.
    """
    if given := headers.get(b"x-litellm-api-key"):
        return given.removeprefix(b"Bearer ").strip()
    scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and key.strip():
        return key.strip()
    return headers.get(b"x-api-key") or headers.get(b"api-key") or b""


def tags_of(headers: RequestHeaders) -> tuple[str, ...]:
    """
    Return the tags of `x-mobius-tag: agent=planner, team=a`, in order and each once.

    What is no `name=value`, or is too long for a ledger, is left out; so are all beyond the first
    few.
    """
    given = headers.get(b"x-mobius-tag")
    if given is None:
        return ()
    tags = (tag.strip() for tag in given.decode("latin-1").split(","))
    return tuple(sorted({tag for tag in tags if _TAG.fullmatch(tag)})[:MOST_TAGS])


def tally_headers(tally: Tally, now_s: float) -> RawHeaders:
    """Return what is known about a request so far."""
    ours_s = now_s - tally.started_s - tally.upstream_s - tally.waits_s
    id = tally.request_id.encode()  # which is fit for logs
    headers = [
        (b"x-request-id", id),
        (b"x-mobius-cache", tally.cache.encode()),
        (b"x-mobius-overhead-ms", b"%.3f" % (ours_s * 1000 if ours_s > 0 else 0.0)),
    ]
    if tally.surface in ANTHROPIC:
        headers.append((b"request-id", id))  # Anthropic's name for it
    if tally.cache_age_s is not None:
        headers.append((b"age", b"%d" % tally.cache_age_s))
    if tally.cache == "stale":
        # RFC 7234, section 5.5: it has expired, and whoever could have given another one failed.
        headers.append((b"warning", b'111 mobius "every target failed; this answer has expired"'))
    if tally.requests_left is not None or tally.tokens_left is not None:
        headers += _own_limits(tally)
    if tally.target != "none":
        headers.append((b"x-mobius-target", _label(tally.target)))
    if tally.trail:
        headers.append((b"x-mobius-attempts", joined(tally.trail)))
    return headers


def _own_limits(tally: Tally) -> RawHeaders:
    """Return how the caller's own limits stand, as OpenAI names and writes it."""
    headers: RawHeaders = []
    for unit, standing in (("requests", tally.requests_left), ("tokens", tally.tokens_left)):
        if standing is not None:
            facts = (standing.limit.most, standing.remaining, duration(standing.reset_s))
            for fact, value in zip(_FACTS, facts, strict=True):
                headers.append((f"x-ratelimit-{fact}-{unit}".encode(), str(value).encode()))
    return headers


def reply_headers(reply: Reply, tally: Tally) -> RawHeaders:
    """
    Return what the answering provider had to say: its rate limits, and what it did not know.

    Of what the caller has a limit of its own, that one is told instead. The cost of a whole answer
    is known with it; that of a stream is not yet.
    """
    headers: RawHeaders = []
    if reply.headers:
        own = {"requests": tally.requests_left, "tokens": tally.tokens_left}
        headers = [
            (name.encode(), safe(reply.headers[name]))
            for name in _RATE_LIMITS
            if name in reply.headers and own[name.rsplit("-", 1)[1]] is None
        ]
    if isinstance(reply, Completion) and tally.nano_usd is not None:
        headers.append((b"x-mobius-cost-usd", usd(tally.nano_usd).encode()))
    if reply.dropped:
        headers.append((b"x-mobius-dropped", joined(reply.dropped)))
    return headers


def error_headers(error: ProxyError) -> RawHeaders:
    """Return when to try again, and whether to."""
    headers: RawHeaders = []
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status == 408:
        # What is left of the body would be read for as long as the connection lasts.
        headers.append((b"connection", b"close"))
    if error.retry_after_s is not None:
        wait_s = max(0.001, error.retry_after_s)
        headers.append((b"retry-after", b"%d" % math.ceil(wait_s)))
        headers.append((b"retry-after-ms", b"%d" % math.ceil(wait_s * 1000)))
    if error.should_retry is False:
        headers.append((b"x-should-retry", b"false"))
    return headers


def joined(values: Sequence[str]) -> bytes:
    return safe(",".join(values))


@lru_cache(maxsize=1000)
def _label(label: str) -> bytes:
    """Return a target's label likewise: there are no more of them than the file has targets."""
    return safe(label)


def safe(value: str) -> bytes:
    """Return the value as a header may carry it: one line of Latin-1, of bounded length."""
    value = value[:_LONGEST_VALUE]
    if not (value.isascii() and value.isprintable()):
        value = _UNSAFE.sub("?", value)
    return value.strip().encode("latin-1")
