"""
One request over our own HTTP client and what came of it, whatever it was written in.

The lanes that go past LiteLLM write a request and say how its answer is read; the connection, the
time, what is an error and what an end is judged here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS, Grammar
from proxy.owed import Owed
from proxy.replies import ChunkStream, Completion, Reply, Source
from proxy.retry import Kind
from proxy.types import Call, Json, Target
from proxy.upstream import failures
from proxy.upstream.address import Address, headers_for
from proxy.upstream.form import Form
from proxy.upstream.http import Answer, Http
from proxy.upstream.judge import choices_of_call, limit_of
from proxy.upstream.limits import leeways, rate_limits
from proxy.upstream.stream import Progress, begin
from proxy.upstream.wire import BODILESS, ERROR_BODY_LIMIT, ERROR_BODY_WAIT_S
from proxy.waiting import Waiting


class Reading(Protocol):
    """How one answer is read: as the provider writes it, told as the caller's surface says."""

    def streams(self, answer: Answer) -> bool:
        """Say whether the answer is a stream, where one was asked for."""
        ...

    def source(self, answer: Answer) -> tuple[Source, str]:
        """
        Return the chunks of a stream for the caller, and the type of their content.

        Raises UpstreamFailure.
        """
        ...

    def whole(
        self, raw: bytes, answer: Answer, *, secrets: tuple[str, ...], **facts: Any
    ) -> Completion:
        """Return a whole answer for the caller. Raises UpstreamFailure where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """A body ready to be sent, where to, and how its answer is read and told to the caller."""

    body: bytes | Form = field(repr=False)
    address: Address
    headers: Mapping[str, str] = field(repr=False)  # of this request, beside the address's own
    reading: Reading
    dropped: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)


class Exchange:
    """Asks over `http`. `limit_bytes` bounds a whole answer, decoded."""

    def __init__(self, http: Http, clock: Clock, *, limit_bytes: Callable[[], int]) -> None:
        self._http = http
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def ask(self, target: Target, call: Call, written: Written, waiting: Waiting) -> Reply:
        """Send what is written, once, and return its answer, as `Upstream.call` says."""
        limit_s, late = limit_of(target, call)
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._http.post(
                    written.address.url,
                    written.body,
                    _headers(written),
                    connect_s=target.timeouts.connect_s,
                    waiting=waiting,
                    trust=target.trust,
                )
                try:
                    reply = await self._read(answer, target, call, written, waiting)
                except BaseException:
                    answer.close()
                    raise
        except TimeoutError as exc:
            raise UpstreamFailure(f"no answer within {limit_s:g} s", kind=late) from exc
        if isinstance(reply, ChunkStream):
            owed = Owed()
            owed.callback(answer.close)
            return reply.owe(owed)
        answer.close()
        return reply

    async def _read(
        self, answer: Answer, target: Target, call: Call, written: Written, waiting: Waiting
    ) -> Reply:
        wall_s = self._clock.wall()
        try:
            await self._check(answer, written)
            headers = rate_limits(answer.headers, wall_s=wall_s)
            reply: Reply
            if call.stream and written.reading.streams(answer):
                source, kind = written.reading.source(answer)
                reply = await begin(
                    source,
                    Progress(
                        GRAMMARS[call.surface],
                        choices=choices_of_call(call),
                        wants_usage=call.wants_usage,
                        secrets=written.secrets,
                    ),
                    target.timeouts,
                    self._clock,
                    headers=headers,
                    dropped=written.dropped,
                    content_type=kind,
                    waiting=waiting,
                )
            else:
                raw = await answer.whole(self._limit_bytes())
                reply = written.reading.whole(
                    raw, answer, secrets=written.secrets, headers=headers, dropped=written.dropped
                )
        except UpstreamFailure as failure:
            failure.leeways = leeways(answer.headers, wall_s=wall_s)
            raise
        reply.leeways = leeways(answer.headers, wall_s=wall_s)
        return reply

    async def _check(self, answer: Answer, written: Written) -> None:
        """Return when the head of the answer promises one. Raises UpstreamFailure."""
        if not 200 <= answer.status < 300 or answer.status in BODILESS:
            raise failures.of_response(
                answer.status,
                answer.headers,
                await _error_body(answer),
                now_s=self._clock.wall(),
                secrets=written.secrets,
            )
        if answer.headers.get("content-type", "").startswith("text/html"):
            raise UpstreamFailure("the provider answered with a web page", kind=Kind.TRANSIENT)


def dumped(body: Json) -> bytes:
    """Return a body as it is sent. Raises UpstreamFailure."""
    try:
        return orjson.dumps(body)
    except TypeError as exc:
        # YAML has dates, which a body of JSON has not.
        raise UpstreamFailure(
            "the file's fields for this target are no JSON", kind=Kind.DIALECT
        ) from exc


async def _error_body(answer: Answer) -> bytes:
    """Return what there is of it: the status alone says enough."""
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_WAIT_S):
            async for piece in answer:
                body += piece
                if len(body) >= ERROR_BODY_LIMIT:
                    break
    except (UpstreamFailure, TimeoutError):
        pass
    return bytes(body)


def _headers(written: Written) -> Mapping[str, str]:
    headers = headers_for(written.address, written.headers)
    return {**headers, **written.body.headers} if isinstance(written.body, Form) else headers


def loaded(raw: bytes, grammar: Grammar, secrets: tuple[str, ...]) -> Json:
    """Return the JSON of a whole answer. Raises UpstreamFailure where it is none."""
    try:
        body: Any = orjson.loads(raw)
    except ValueError as exc:
        raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
    if isinstance(body, dict) and (reported := grammar.failure(body)) is not None:
        raise failures.of_event(reported, secrets=secrets)
    if not grammar.answers(body):
        raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT)
    found: Json = body
    return found
