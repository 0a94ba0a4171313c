"""
The unified lane: `litellm.acompletion`, for any provider.

LiteLLM writes the request and finds the place; what came back is judged by the wire. For a
provider that speaks OpenAI's format the answer's bytes are the provider's own; for any other they
are LiteLLM's translation. LiteLLM is imported in the background, never on a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from types import ModuleType
from typing import Any

import orjson

from proxy import sse
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.replies import Chunk, Completion, Reply
from proxy.retry import Kind
from proxy.types import Call, Target
from proxy.upstream import failures
from proxy.upstream.arguments import HANDLED, NATIVE, Written, write_arguments
from proxy.upstream.limits import rate_limits
from proxy.upstream.normal import normal_chunk, normal_completion
from proxy.upstream.sdk import Sdk
from proxy.upstream.stream import Progress, begin
from proxy.upstream.wire import WIRE, Answer, Wire

# How long the rest of a connection is waited for after `[DONE]`, so that it can be used again.
DRAIN_S = 0.02


class Unified:
    """Calls targets through LiteLLM. `limit_bytes` bounds a whole answer, decoded."""

    def __init__(self, sdk: Sdk, clock: Clock, *, limit_bytes: int) -> None:
        self._sdk = sdk
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def call(self, target: Target, call: Call, *, foreign: bool) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        litellm = await self._sdk.ready()
        written = write_arguments(litellm, target, call, foreign=foreign)
        wire = Wire(
            connect_s=target.timeouts.connect_s,
            limit_bytes=self._limit_bytes,
            stream=call.stream,
            secrets=written.secrets,
        )
        limit_s = target.timeouts.first_token_s if call.stream else target.timeouts.answer_s
        if call.wishes.timeout_s is not None:
            limit_s = min(limit_s, call.wishes.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._ask(litellm, target, written, wire)
                if call.stream:
                    return await self._stream(answer, target, call, written, wire)
                return _completion(answer, written, wire)
        except TimeoutError as exc:
            raise UpstreamFailure(f"no answer within {limit_s:g} s", kind=Kind.SILENT) from exc

    async def _ask(self, litellm: ModuleType, target: Target, written: Written, wire: Wire) -> Any:
        """Return what LiteLLM answers, or None where only the wire has an answer."""
        arguments = dict(written.arguments)
        if _takes_handler(litellm, target.provider):
            arguments["client"] = self._sdk.handler
        token = WIRE.set(wire)
        try:
            return await litellm.acompletion(**arguments)
        except Exception as exc:
            if wire.failure is not None:
                raise wire.failure from exc
            if written.native and not wire.stream and wire.body:
                # LiteLLM could not read it, which says nothing about the caller's SDK.
                return None
            raise failures.of_exception(exc, secrets=written.secrets) from exc
        finally:
            WIRE.reset(token)

    async def _stream(
        self, answer: Any, target: Target, call: Call, written: Written, wire: Wire
    ) -> Reply:
        if written.native and wire.answer is not None:
            source = _native_chunks(wire.answer, answer, wire)
        else:
            source = _translated_chunks(answer, wire, written)
        choices = call.body.get("n")
        progress = Progress(
            choices=choices if isinstance(choices, int) and choices > 0 else 1,
            wants_usage=call.wants_usage,
            secrets=written.secrets,
        )
        return await begin(
            source,
            progress,
            target.timeouts,
            self._clock,
            headers=rate_limits(wire.headers),
            dropped=written.dropped,
        )


def _takes_handler(litellm: ModuleType, provider: str) -> bool:
    """Say which of its two kinds of HTTP client LiteLLM asks `provider` with."""
    if provider in HANDLED:
        return True
    return provider not in NATIVE and provider not in litellm.openai_compatible_providers


def _completion(answer: Any, written: Written, wire: Wire) -> Completion:
    facts: Mapping[str, Any] = {"headers": rate_limits(wire.headers), "dropped": written.dropped}
    if not written.native:
        body = normal_completion(answer)
        return Completion(orjson.dumps(body), body, **facts)
    raw = bytes(wire.body)
    try:
        body = orjson.loads(raw)
    except ValueError as exc:
        raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
    if isinstance(body, dict) and body.get("error"):
        raise failures.of_event(body, secrets=written.secrets)
    if not isinstance(body, dict) or not body.get("choices"):
        raise UpstreamFailure("the answer holds no choice", kind=Kind.TRANSIENT)
    return Completion(raw, body, **facts)


async def _native_chunks(answer: Answer, wrapper: Any, wire: Wire) -> AsyncGenerator[Chunk, None]:
    """Yield what each socket read completes, up to `[DONE]` or the end of the stream."""
    reader = sse.Reader()
    pieces = aiter(answer)
    try:
        async for piece in pieces:
            try:
                payloads = [event.data for event in reader.feed(piece)]
            except sse.EventTooLarge as exc:
                raise UpstreamFailure(str(exc), kind=Kind.TRANSIENT) from exc
            done = sse.DONE in payloads
            if done:
                payloads = payloads[: payloads.index(sse.DONE)]
            if payloads:
                yield Chunk.of_payloads(payloads)
            if done:
                await _drain(pieces)
                return
    except Exception as exc:
        raise (wire.failure or failures.of_exception(exc)) from exc
    finally:
        await answer.aclose()
        await wrapper.aclose()


async def _drain(pieces: Any) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await anext(pieces, None)
    except Exception:
        return


async def _translated_chunks(
    wrapper: Any, wire: Wire, written: Written
) -> AsyncGenerator[Chunk, None]:
    """Yield LiteLLM's chunks, but not the finish reason that it invents for a cut stream."""
    async with aclosing(wrapper):
        try:
            async for chunk in wrapper:
                event = normal_chunk(chunk)
                finish = any(choice["finish_reason"] for choice in event["choices"])
                if finish and wire.sent and not _really_finished(wrapper):
                    return
                yield Chunk.of_events([event])
        except UpstreamFailure:
            raise
        except Exception as exc:
            failure = wire.failure or failures.of_exception(exc, secrets=written.secrets)
            raise failure from exc


def _really_finished(wrapper: Any) -> bool:
    return bool(
        getattr(wrapper, "received_finish_reason", None)
        or getattr(wrapper, "intermittent_finish_reason", None)
    )
