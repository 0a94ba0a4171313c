"""
Responses that providers keep, for those who had them made: read, listed, cancelled, deleted.

Each is asked for where it was made, with the key of the file. What was made for somebody else is
as unknown as what nobody made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from proxy.access import tenant_for
from proxy.errors import ProviderAuthFailed, RateLimited, UpstreamFailure
from proxy.origins import Origins
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.snapshot import Snapshot
from proxy.types import Caller, Target
from proxy.verdict import refused

Query = Sequence[tuple[str, str]]
DELETE = "DELETE"
CREDENTIAL = frozenset({Kind.CREDENTIAL, Kind.EXHAUSTED})


class Keeps(Protocol):
    """What a target keeps."""

    async def ask(self, target: Target, method: str, path: Sequence[str], query: Query) -> bytes:
        """Return what stands at `path` below its responses. Raises UpstreamFailure."""
        ...

    async def follow(self, target: Target, path: Sequence[str], query: Query) -> ChunkStream:
        """Return the events of what stands there. Raises UpstreamFailure."""
        ...


class Shelf:
    def __init__(self, origins: Origins, keeps: Keeps) -> None:
        self._origins = origins
        self._keeps = keeps

    async def ask(
        self,
        method: str,
        id: str,
        below: Sequence[str],
        query: Query,
        *,
        caller: Caller,
        snapshot: Snapshot,
    ) -> bytes:
        """
        Return what the provider says of the response, or of what stands below it.

        Raises ResponseUnknown; Refused, RateLimited, ProviderAuthFailed and UpstreamFailure for
        what the provider answers instead.
        """
        target = await self._origins.keeper(id, tenant_for(caller, snapshot), snapshot)
        with _told(target):
            body = await self._keeps.ask(target, method, (id, *below), query)
        if method == DELETE:
            await self._origins.forget(id)
        return body

    async def follow(
        self, id: str, query: Query, *, caller: Caller, snapshot: Snapshot
    ) -> ChunkStream:
        """Return the events of the response, as its provider tells them. Raises likewise."""
        target = await self._origins.keeper(id, tenant_for(caller, snapshot), snapshot)
        with _told(target):
            return await self._keeps.follow(target, (id,), query)


@contextmanager
def _told(target: Target) -> Iterator[None]:
    """Raise what the caller is to be told, where the provider fails."""
    try:
        yield
    except UpstreamFailure as failure:
        if failure.kind in CREDENTIAL:
            raise ProviderAuthFailed(
                f"the provider of {target.label} refused the gateway's own key"
            ) from failure
        if failure.kind is Kind.RATE_LIMITED:
            text = failure.provider_message or f"{target.label} is rate limited"
            raise RateLimited(text, retry_after_s=failure.retry_after_s) from failure
        if 400 <= (failure.provider_status or 0) < 500:
            raise refused(failure) from failure
        raise
