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


class Lists(Protocol):
    """What a provider says of its models; nothing that it answers with costs anything."""

    async def ask(self, target: Target) -> bool:
        """Return whether it has shown its list. Raises UpstreamFailure for faults of its own."""
        ...

    async def converses(self, target: Target) -> bool:
        """Say whether the target answers chats, as far as is known."""
        ...
