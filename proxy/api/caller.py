"""The headers of a request → its Caller."""

from __future__ import annotations

import re

from proxy.access import find_caller
from proxy.api.headers import RequestHeaders, key_of
from proxy.errors import OriginRefused
from proxy.snapshot import Snapshot
from proxy.types import Caller

_LOOPBACK_ORIGIN = re.compile(rb"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")


def caller_by(headers: RequestHeaders, snapshot: Snapshot, *, wall_s: float) -> Caller:
    """
    Return who asks. Raises KeyRejected; OriginRefused where no key is needed.

    A server without keys answers whoever can reach it, and every page in a browser on the same
    machine can. What a page cannot do is to hide where it comes from.
    """
    caller = find_caller(snapshot.callers, key_of(headers), wall_s=wall_s)
    if not snapshot.callers:
        origin = headers.get(b"origin")
        foreign = origin is not None and not _LOOPBACK_ORIGIN.fullmatch(origin)
        if foreign or headers.get(b"sec-fetch-site") == b"cross-site":
            raise OriginRefused("a server without keys does not answer web pages of other sites")
    return caller
