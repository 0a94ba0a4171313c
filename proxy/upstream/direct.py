"""
The direct lane: for a provider whose wire format is the caller's own, OpenAI's or Anthropic's.

The body goes out as it came, with `model` and what the file says replaced; the answer's bytes come
back untouched. LiteLLM is asked only for what a model of another provider understands, when a
request that was written for somebody else is sent to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS, Grammar
from proxy.owed import Owed
from proxy.replies import ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.types import ANTHROPIC, Call, Json, Surface, Target
from proxy.upstream import failures
from proxy.upstream.address import ANTHROPIC_VERSION, VERSION, address_of, headers_for
from proxy.upstream.events import chunks_of
from proxy.upstream.fields import drop, drops, filled, take_out
from proxy.upstream.history import presentable
from proxy.upstream.http import Answer, Http
from proxy.upstream.judge import choices_of_call, limit_of
from proxy.upstream.limits import leeways, rate_limits
from proxy.upstream.sdk import Sdk
from proxy.upstream.secrets import secrets_of
from proxy.upstream.stream import Progress, begin
from proxy.upstream.wire import BODILESS, ERROR_BODY_LIMIT, ERROR_BODY_WAIT_S
from proxy.waiting import Waiting

# Surfaces whose streams report a usage only when they are asked to.
OPTIONED = frozenset({Surface.CHAT, Surface.COMPLETIONS})


@dataclass(frozen=True, slots=True)
class Written:
    """A body ready to be sent, and what the caller is to be told about it."""

    body: bytes = field(repr=False)
    dropped: tuple[str, ...]
    secrets: tuple[str, ...] = field(repr=False)


class Direct:
    """Calls targets over `http`. `limit_bytes` bounds a whole answer, decoded."""

    def __init__(
        self, http: Http, sdk: Sdk, clock: Clock, *, limit_bytes: Callable[[], int]
    ) -> None:
        self._http = http
        self._sdk = sdk
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        written = await self._write(target, call, foreign=foreign)
        limit_s, late = limit_of(target, call)
        address = address_of(target, call.surface)
        try:
            async with Owed() as owed:
                async with asyncio.timeout(limit_s):
                    answer = await self._http.post(
                        address.url,
                        written.body,
                        headers_for(address, _said(call)),
                        connect_s=target.timeouts.connect_s,
                        waiting=waiting,
                    )
                    owed.callback(answer.close)
                    reply = await self._read(answer, target, call, written, waiting)
                if isinstance(reply, ChunkStream):
                    return reply.owe(owed.pop_all())
                return reply
        except TimeoutError as exc:
            raise UpstreamFailure(f"no answer within {limit_s:g} s", kind=late) from exc

    async def _write(self, target: Target, call: Call, *, foreign: bool) -> Written:
        body = filled(target, call)
        for path in target.params.get("additional_drop_params") or ():
            take_out(path, body)
        dropped: tuple[str, ...] = ()
        if call.surface is Surface.CHAT and drops(target, foreign=foreign):
            litellm = await self._sdk.ready()
            dropped = tuple(
                drop(litellm, target, call, body, native=True, foreign=foreign, dropping=True)
            )
        options = body.get("stream_options")
        if (
            call.stream
            and call.surface in OPTIONED
            and (options is None or isinstance(options, dict))
        ):
            # The usage is a fact to settle with; a chunk that nobody asked for is dropped again.
            body["stream_options"] = {**(options or {}), "include_usage": True}
        if call.surface in ANTHROPIC:
            body["messages"] = presentable(body["messages"])
        body["model"] = target.model
        body |= target.params.get("extra_body") or {}
        return Written(_dumped(body), dropped, secrets_of(target))

    async def _read(
        self, answer: Answer, target: Target, call: Call, written: Written, waiting: Waiting
    ) -> Reply:
        wall_s, grammar = self._clock.wall(), GRAMMARS[call.surface]
        try:
            await self._check(answer, written)
            headers = rate_limits(answer.headers, wall_s=wall_s)
            reply: Reply
            if call.stream:
                reply = await begin(
                    chunks_of(answer, answer.drain, named=grammar.named),
                    Progress(
                        grammar,
                        choices=choices_of_call(call),
                        wants_usage=call.wants_usage,
                        secrets=written.secrets,
                    ),
                    target.timeouts,
                    self._clock,
                    headers=headers,
                    dropped=written.dropped,
                    waiting=waiting,
                )
            else:
                raw = await answer.whole(self._limit_bytes())
                body = _loaded(raw, grammar, written)
                reply = Completion(raw, body, headers=headers, dropped=written.dropped)
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


def _said(call: Call) -> Mapping[str, str]:
    """Return what of the caller's headers the provider is to get, with what it must get."""
    return {VERSION: ANTHROPIC_VERSION, **call.headers} if call.surface in ANTHROPIC else {}


def _dumped(body: Json) -> bytes:
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


def _loaded(raw: bytes, grammar: Grammar, written: Written) -> Json:
    """Return the JSON of a whole answer. Raises UpstreamFailure where it is none."""
    try:
        body: Any = orjson.loads(raw)
    except ValueError as exc:
        raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
    if isinstance(body, dict) and (reported := grammar.failure(body)) is not None:
        raise failures.of_event(reported, secrets=written.secrets)
    if not grammar.answers(body):
        raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT)
    found: Json = body
    return found
