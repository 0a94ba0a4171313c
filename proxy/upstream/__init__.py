"""One call to one target: the port that the ring asks through, and the choice of a lane."""

from __future__ import annotations

from typing import Protocol

from proxy.replies import Reply
from proxy.types import Call, Target
from proxy.waiting import Waiting


class Upstream(Protocol):
    """
    Calls one target once.

    Returns when the reply is certain: the whole completion, or a stream whose first content has
    arrived. Raises UpstreamFailure for everything else. Never retries, never logs. `foreign` says
    that the request was written for another provider than the target's. The provider is awaited
    through `waiting`, so that the rest of the time is known to be our own.
    """

    async def call(
        self, target: Target, call: Call, *, foreign: bool, waiting: Waiting
    ) -> Reply: ...
