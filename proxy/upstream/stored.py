"""Responses that a provider keeps: read, listed, cancelled or deleted where they were made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import quote, urlencode

from yarl import URL

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Surface, Target
from proxy.upstream import failures
from proxy.upstream.address import address_of
from proxy.upstream.http import Http
from proxy.upstream.secrets import secrets_of
from proxy.waiting import Waiting

CONTENT_TYPE = "content-type"


class Stored:
    """Asks over `http`. `limit_bytes` bounds an answer, decoded."""

    def __init__(self, http: Http, clock: Clock, *, limit_bytes: Callable[[], int]) -> None:
        self._http = http
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def ask(
        self, target: Target, method: str, path: Sequence[str], query: Sequence[tuple[str, str]]
    ) -> bytes:
        """Return what stands at `path` below the target's responses. Raises UpstreamFailure."""
        limit_s = target.timeouts.first_token_s  # nothing is generated for it
        try:
            async with asyncio.timeout(limit_s):
                return await self._ask(target, method, path, query)
        except TimeoutError as exc:
            raise UpstreamFailure(f"no answer within {limit_s:g} s", kind=Kind.SILENT) from exc

    async def _ask(
        self, target: Target, method: str, path: Sequence[str], query: Sequence[tuple[str, str]]
    ) -> bytes:
        address = address_of(target, Surface.RESPONSES)
        url = "/".join((str(address.url), *(quote(part, safe="") for part in path)))
        answer = await self._http.post(
            URL(f"{url}?{urlencode(query)}" if query else url, encoded=True),
            b"",
            {name: value for name, value in address.headers.items() if name != CONTENT_TYPE},
            connect_s=target.timeouts.connect_s,
            waiting=Waiting(self._clock.now),
            method=method,
        )
        try:
            body = await answer.whole(self._limit_bytes())
        finally:
            answer.close()
        if 200 <= answer.status < 300:
            return body
        raise failures.of_response(
            answer.status,
            answer.headers,
            body,
            now_s=self._clock.wall(),
            secrets=secrets_of(target),
        )
