"""Responses that a provider keeps: read, listed, cancelled or deleted where they were made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from urllib.parse import quote

import orjson

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
NOTHING = b"{}"  # instead of no body, which some answer a DELETE with


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
        below = "/".join((address.url.raw_path, *(quote(part, safe="") for part in path)))
        url = address.url.with_path(below, encoded=True)
        answer = await self._http.post(
            url.with_query([*address.url.query.items(), *query]),
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
            return _checked(body or NOTHING)
        raise failures.of_response(
            answer.status,
            answer.headers,
            body,
            now_s=self._clock.wall(),
            secrets=secrets_of(target),
        )


def _checked(body: bytes) -> bytes:
    """Return the body. Raises UpstreamFailure where it is no JSON, but a page of somebody's."""
    try:
        orjson.loads(body)
    except ValueError as exc:
        raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
    return body
