"""
The unified lane: `litellm.acompletion`, for any provider.

LiteLLM writes the request and finds the place; what came back is judged by the wire. For a
provider that speaks OpenAI's format the answer's bytes are the provider's own; for any other they
are LiteLLM's translation. LiteLLM is imported in the background, never on a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from inspect import isasyncgen
from types import ModuleType
from typing import Any

import orjson

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.owed import Owed
from proxy.replies import EVENTS, Chunk, ChunkStream, Completion, Reply, Source
from proxy.retry import Kind
from proxy.types import HEARD, Call, Json, Surface, Target
from proxy.upstream import failures
from proxy.upstream.answer import Answer
from proxy.upstream.arguments import CHAT, MODERATE, SPEAK, Written, write_arguments
from proxy.upstream.events import DRAIN_S, chunks_of
from proxy.upstream.judge import choices_of_call, limit_of
from proxy.upstream.limits import leeways, rate_limits
from proxy.upstream.mend import MENDED
from proxy.upstream.others import normal_answer, reader_of, wrapped_in
from proxy.upstream.sdk import Sdk
from proxy.upstream.sounds import once, speech_of
from proxy.upstream.speak import speak
from proxy.upstream.stream import Progress, begin
from proxy.upstream.transcript import transcript_from
from proxy.upstream.wire import WIRE, Wire, WireError
from proxy.waiting import Waiting


class Unified:
    """Calls targets through LiteLLM. `limit_bytes` bounds a whole answer, decoded."""

    def __init__(self, sdk: Sdk, clock: Clock, *, limit_bytes: Callable[[], int]) -> None:
        self._sdk = sdk
        self._clock = clock
        self._limit_bytes = limit_bytes

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        litellm = await self._sdk.ready()
        written = write_arguments(litellm, target, call, foreign=foreign)
        streamed = _is_streamed(call, written)
        wire = Wire(
            connect_s=target.timeouts.connect_s,
            limit_bytes=self._limit_bytes(),
            stream=streamed,
            waiting=waiting,
            transport=self._sdk.transport,
            trust=target.trust,
            error=self._sdk.error,
            respelt=streamed and not written.native,
            kept=streamed and written.native and call.surface is not Surface.CHAT,
            mends=target.provider in MENDED,
            fixed=written.headers,
            secrets=written.secrets,
        )
        # To the first content: LiteLLM connects to some providers only when it is asked for that.
        token = WIRE.set(wire)
        try:
            reply = await self._reply(litellm, target, call, written, wire)
        except UpstreamFailure as failure:
            failure.leeways = leeways(wire.headers, wall_s=self._clock.wall())
            raise
        else:
            reply.leeways = leeways(wire.headers, wall_s=self._clock.wall())
            return reply
        finally:
            WIRE.reset(token)

    async def _reply(
        self, litellm: ModuleType, target: Target, call: Call, written: Written, wire: Wire
    ) -> Reply:
        whole = call.stream and not _is_streamed(call, written)
        limit_s, late = limit_of(target, call, whole=whole)
        try:
            async with Owed() as owed:
                # LiteLLM does not close every answer that it stops reading.
                owed.push_async_callback(wire.aclose)
                async with asyncio.timeout(limit_s):
                    answer = await self._ask(litellm, written, wire)
                    if not call.stream or call.surface in HEARD:
                        return self._completion(answer, call, written, wire)
                    stream = await self._stream(answer, target, call, written, wire)
                return stream.owe(owed.pop_all())
        except TimeoutError as exc:
            raise UpstreamFailure(f"no answer within {limit_s:g} s", kind=late) from exc

    async def _ask(self, litellm: ModuleType, written: Written, wire: Wire) -> Any:
        """Return what LiteLLM answers, or None where only the wire has an answer."""
        if written.function == MODERATE and not written.native:
            raise failures.of_surface()  # LiteLLM would ask anybody, as if it were OpenAI
        try:
            ask = _function(litellm, written)
            return await _connected(await ask(**written.arguments), wire)
        except UpstreamFailure:
            raise
        except Exception as exc:
            if wire.failure is not None:
                raise wire.failure from exc
            if wire.answer is not None and (wire.kept or not wire.stream):
                # LiteLLM could not read it: what it is, is judged by its bytes.
                return None
            tell = failures.of_exception if wire.sent else failures.of_writing
            failure = tell(exc, secrets=written.secrets)
            if failure.kind is Kind.MISSING and not wire.sent and written.function != CHAT:
                failure = failures.of_surface()
            raise failure from exc

    async def _stream(
        self, answer: Any, target: Target, call: Call, written: Written, wire: Wire
    ) -> ChunkStream:
        kind = EVENTS
        if call.surface is Surface.SPEECH:
            source, kind = _speech(answer, call, wire)
        elif written.native and wire.answer is not None:
            source = _native_chunks(wire.answer, wrapped_in(answer, call), wire)
        else:
            source = _translated_chunks(answer, call, wire, written)
        progress = Progress(
            GRAMMARS[call.surface],
            choices=choices_of_call(call),
            wants_usage=call.wants_usage,
            secrets=written.secrets,
        )
        stream = await begin(
            source,
            progress,
            target.timeouts,
            self._clock,
            headers=rate_limits(wire.headers, wall_s=self._clock.wall()),
            dropped=written.dropped,
            content_type=kind,
            waiting=wire.waiting,
        )
        owed = Owed()
        # Where nobody reads on, nothing else would: a generator not begun closes nothing.
        owed.push_async_callback(source.aclose)
        return stream.owe(owed)

    def _completion(self, answer: Any, call: Call, written: Written, wire: Wire) -> Completion:
        if call.surface is Surface.IMAGES and not wire.sent and not answer.data:
            raise failures.of_surface()  # LiteLLM has drawn nothing, and says nothing of it
        headers = rate_limits(wire.headers, wall_s=self._clock.wall())
        facts: Mapping[str, Any] = {"headers": headers, "dropped": written.dropped}
        if call.surface in HEARD and answer is not None:
            return transcript_from(call, normal_answer(call, answer), **facts)
        if not written.native and answer is not None:
            body = normal_answer(call, answer, counted=not wire.mended)
            return Completion(_dumped(body), body, **facts)
        raw = bytes(wire.body)
        try:
            body = orjson.loads(raw)
        except ValueError as exc:
            raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
        if isinstance(body, dict) and body.get("error"):
            raise failures.of_event(body, secrets=written.secrets)
        if not written.native or not GRAMMARS[call.surface].answers(body):
            raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT)
        return Completion(raw, body, **facts)


def _function(litellm: ModuleType, written: Written) -> Callable[..., Awaitable[Any]]:
    """Return what asks, LiteLLM's or in its place."""
    if written.function == SPEAK:
        return partial(speak, litellm)
    found: Callable[..., Awaitable[Any]] = getattr(litellm, written.function)
    return found


def _is_streamed(call: Call, written: Written) -> bool:
    """Say whether the answer is read as it comes: what is heard, or said, LiteLLM has whole."""
    whole = call.surface in HEARD or (call.surface is Surface.SPEECH and not written.native)
    return call.stream and not whole


async def _connected(answer: Any, wire: Wire) -> Any:
    """Return the answer, where it is ours to read once it has a connection."""
    if wire.kept and wire.answer is None:
        # LiteLLM connects only when it is read; there is nothing for it in the stream.
        await anext(answer, None)
    return answer


def _dumped(body: Json) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # A count of more than 64 bits: no reason to withhold the answer.
        return orjson.dumps({name: value for name, value in body.items() if name != "usage"})


async def _native_chunks(answer: Answer, wrapper: Any, wire: Wire) -> AsyncGenerator[Chunk, None]:
    """Yield what each socket read completes, up to `[DONE]` or the end of the stream."""
    try:
        async with aclosing(chunks_of(answer, answer.drain)) as chunks:
            async for chunk in chunks:
                yield chunk
    except Exception as exc:
        raise (wire.failure or failures.of_exception(exc)) from exc
    finally:
        await answer.aclose()
        if wrapper is not None:
            await wrapper.aclose()


def _speech(answer: Any, call: Call, wire: Wire) -> tuple[Source, str]:
    """Return the chunks of speech, and the type of their content. Raises UpstreamFailure."""
    if wire.kept and wire.answer is not None:
        kind = wire.headers.get("content-type", "")
        source, kind = speech_of(call, kind, wire.answer, wire.answer.drain)
        return _told_by(source, wire), kind
    if answer is None:
        raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT)
    return speech_of(call, answer.content_type, once(answer.sound), _nothing_to_drain, answer.usage)


async def _nothing_to_drain(limit_s: float) -> None:
    return


async def _told_by(source: Source, wire: Wire) -> AsyncGenerator[Chunk, None]:
    """Yield what `source` does, and fail as the wire says."""
    try:
        async with aclosing(source):
            async for chunk in source:
                yield chunk
    except WireError as exc:
        raise (wire.failure or failures.of_exception(exc)) from exc


async def _translated_chunks(
    wrapper: Any, call: Call, wire: Wire, written: Written
) -> AsyncGenerator[Chunk, None]:
    """Yield LiteLLM's chunks, but not the finish reason that it invents for a cut stream."""
    read = reader_of(call, counted=lambda: not wire.mended)
    endings = GRAMMARS[call.surface].endings
    chat = wrapped_in(wrapper, call)
    async with aclosing(chat):
        try:
            async for chunk in wrapper:
                event = read(chunk)
                ended = any(end for _, end in endings(event))
                if ended and wire.sent and not _really_finished(chat, wire):
                    return
                yield Chunk.of_events([event])
            if wire.answer is not None:
                await wire.answer.drain(DRAIN_S)
        except UpstreamFailure:
            raise
        except Exception as exc:
            failure = wire.failure or failures.of_exception(exc, secrets=written.secrets)
            raise failure from exc


def _really_finished(wrapper: Any, wire: Wire) -> bool:
    if isasyncgen(wrapper):
        # Nothing can be asked of it, but what went by on the wire is known.
        return wire.openai and wire.finished
    return not wire.cut and bool(
        getattr(wrapper, "received_finish_reason", None)
        or getattr(wrapper, "intermittent_finish_reason", None)
    )
