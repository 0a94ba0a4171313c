"""Responses that a provider keeps: read, followed, cancelled or deleted where they were made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import quote

import orjson

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.owed import Owed
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.types import Surface, Target
from proxy.upstream import failures
from proxy.upstream.address import address_of
from proxy.upstream.events import chunks_of
from proxy.upstream.http import Answer, Http
from proxy.upstream.secrets import secrets_of
from proxy.upstream.stream import Progress, begin
from proxy.upstream.wire import EVENTS
from proxy.waiting import Waiting

Query: TypeAlias = Sequence[tuple[str, str]]

CONTENT_TYPE = "content-type"
NOTHING = b"{}"  # instead of no body, which some answer a DELETE with


class Stored:
    """Asks over `http`. `limit_bytes` bounds an answer, decoded."""

    def __init__(self, http: Http, clock: Clock, *, limit_bytes: Callable[[], int]) -> None:
        self._http = http
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def ask(self, target: Target, method: str, path: Sequence[str], query: Query) -> bytes:
        """Return what stands at `path` below the target's responses. Raises UpstreamFailure."""
        async with _in_time(target):
            answer = await self._open(target, method, path, query)
            try:
                return _checked(await answer.whole(self._limit_bytes()) or NOTHING)
            finally:
                answer.close()

    async def follow(self, target: Target, path: Sequence[str], query: Query) -> ChunkStream:
        """
        Return the events of a response, those that are past first. Raises UpstreamFailure.

        Nobody else could tell them, so that they are told as they come: there is no first content
        to wait for.
        """
        async with Owed() as owed:
            async with _in_time(target):
                answer = await self._open(target, "GET", path, query)
            owed.callback(answer.close)
            if not answer.headers.get("content-type", "").startswith(EVENTS):
                raise UpstreamFailure("the answer is no stream", kind=Kind.TRANSIENT)
            grammar, secrets = GRAMMARS[Surface.RESPONSES], secrets_of(target)
            stream = await begin(
                chunks_of(answer, answer.drain, named=True),
                Progress(grammar, choices=1, wants_usage=True, secrets=secrets, begun=True),
                target.timeouts,
                self._clock,
                headers={},
                dropped=(),
            )
            return stream.owe(owed.pop_all())

    async def _open(self, target: Target, method: str, path: Sequence[str], query: Query) -> Answer:
        """Return an answer whose status says that it is one. Raises UpstreamFailure."""
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
            trust=target.trust,
        )
        if 200 <= answer.status < 300:
            return answer
        try:
            body = await answer.whole(self._limit_bytes())
        finally:
            answer.close()
        raise failures.of_response(
            answer.status,
            answer.headers,
            body,
            now_s=self._clock.wall(),
            secrets=secrets_of(target),
        )


@asynccontextmanager
async def _in_time(target: Target) -> AsyncIterator[None]:
    """Raise UpstreamFailure where the block takes longer than a first token may."""
    limit_s = target.timeouts.first_token_s  # nothing is generated for it
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError as exc:
        raise UpstreamFailure(f"no answer within {limit_s:g} s", kind=Kind.SILENT) from exc


def _checked(body: bytes) -> bytes:
    """Return the body. Raises UpstreamFailure where it is no JSON, but a page of somebody's."""
    try:
        orjson.loads(body)
    except ValueError as exc:
        raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
    return body
