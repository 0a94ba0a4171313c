"""
The contract of a stream, whatever lane it comes from: it has begun only with its first content,
and it has ended only with a finish reason.

`begin` raises whatever happens before the first content as an ordinary failure. After it, a cut,
a stall, an unreadable or an error event is a BROKEN failure, raised to whoever reads; nothing is
ever ended silently.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from proxy import sse
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.grammar import Grammar
from proxy.owed import Owed
from proxy.replies import EVENTS, Chunk, ChunkStream
from proxy.retry import Kind
from proxy.types import Json, TargetTimeouts
from proxy.upstream import failures
from proxy.waiting import Waiting

# What may come before the first content: role deltas and comments, not an answer in disguise.
PREAMBLE_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a provider that has finished is listened to."""

    usage_s: float = 1.0  # it owes at most its usage
    done_s: float = 0.02  # once that is there, only `[DONE]`, which keeps the connection usable


@dataclass(slots=True)
class Progress:
    """How far a stream has come, by its own events."""

    grammar: Grammar
    choices: int  # as many as were asked for
    wants_usage: bool
    secrets: tuple[str, ...] = ()
    begun: bool = False
    seen: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    usage: bool = False

    @property
    def complete(self) -> bool:
        """Every choice that has begun has ended."""
        return bool(self.finished) and self.finished >= self.seen

    @property
    def settled(self) -> bool:
        """Nothing more is expected but perhaps the usage."""
        return self.complete and len(self.finished) >= self.choices

    def see(self, chunk: Chunk) -> Iterator[Chunk]:
        """
        Take note of `chunk`, and yield it as the caller may see it.

        Raises UpstreamFailure at an event that cannot be read or that reports an error, after what
        stands before it: one read of a socket may bring good tokens and the end of them.
        """
        chunk, failure = self._sound(chunk)
        if chunk.plain is not None:
            self.begun = True
            self.seen.add(0)
        told = chunk.told
        hidden = [event for event in told if self._note(event) and not self.wants_usage]
        if told or chunk.plain is not None:
            yield chunk.without(hidden) if hidden else chunk
        if failure is not None:
            raise failure

    def _sound(self, chunk: Chunk) -> tuple[Chunk, UpstreamFailure | None]:
        try:
            told = chunk.told
        except ValueError as exc:
            failure = UpstreamFailure(
                "the provider sent an event that is not JSON", kind=Kind.TRANSIENT
            )
            failure.__cause__ = exc
            return self._sound(_readable(chunk))[0], failure
        for event in told:
            if (reported := self.grammar.failure(event)) is not None:
                failure = failures.of_event(reported, secrets=self.secrets)
                return Chunk.of_events(_before(event, chunk.events)), failure
        return chunk, None

    def _note(self, event: Json) -> bool:
        """Take note of one event; say whether it carries nothing but the usage."""
        grammar = self.grammar
        self.begun = self.begun or grammar.begins(event)
        self.usage = self.usage or grammar.reports(event)
        for index, ended in grammar.endings(event):
            self.seen.add(index)
            if ended:
                self.finished.add(index)
        return grammar.only_usage(event)


async def begin(
    source: AsyncGenerator[Chunk, None],
    progress: Progress,
    timeouts: TargetTimeouts,
    clock: Clock,
    *,
    headers: Mapping[str, str],
    dropped: Sequence[str],
    content_type: str = EVENTS,
    waiting: Waiting | None = None,
    waits: Waits = Waits(),
) -> ChunkStream:
    """
    Return `source` as a stream whose first content is in hand.

    Raises UpstreamFailure when it fails or ends before that. `source` is closed by the stream, or
    here when there is none. The time allowed for all this is the caller's to keep. `waiting` tells
    the provider's time from ours; without it, all the time until the next chunk is the provider's.
    """
    started_s = clock.now()
    source = _seen(source, progress)
    first: list[Chunk] = []
    held_bytes = 0
    try:
        while not progress.begun:
            chunk = await anext(source)
            first.append(chunk)
            held_bytes += len(chunk.raw)
            if held_bytes > PREAMBLE_LIMIT_BYTES and not progress.begun:
                raise UpstreamFailure("the stream begins without content", kind=Kind.TRANSIENT)
    except StopAsyncIteration as exc:
        raise UpstreamFailure("the stream ended before its content", kind=Kind.TRANSIENT) from exc
    except BaseException:
        await source.aclose()
        raise
    left_s = timeouts.stream_s - (clock.now() - started_s)
    rest = _rest(source, progress, clock, idle_s=timeouts.idle_s, left_s=left_s, waits=waits)
    now = waiting.now if waiting is not None else clock.now
    stream = ChunkStream(
        first, rest, now=now, headers=headers, dropped=dropped, content_type=content_type
    )
    owed = Owed()
    # A generator that nobody has begun to read closes nothing when it is closed.
    owed.push_async_callback(source.aclose)
    return stream.owe(owed)


async def _seen(
    source: AsyncGenerator[Chunk, None], progress: Progress
) -> AsyncGenerator[Chunk, None]:
    async with contextlib.aclosing(source):
        async for chunk in source:
            for part in progress.see(chunk):
                yield part


async def _rest(
    source: AsyncGenerator[Chunk, None],
    progress: Progress,
    clock: Clock,
    *,
    idle_s: float,
    left_s: float,
    waits: Waits,
) -> AsyncGenerator[Chunk, None]:
    """Yield what follows; only the time that the provider takes counts, not the reader's."""
    waited_s = 0.0
    settled_s: float | None = None
    try:
        while True:
            limit_s = min(idle_s, left_s - waited_s)
            if progress.settled:
                settled_s = waited_s if settled_s is None else settled_s
                wait_s = waits.done_s if progress.usage else waits.usage_s
                limit_s = min(limit_s, settled_s + wait_s - waited_s)
            asked_s = clock.now()
            try:
                chunk = await _next(source, limit_s)
            except UpstreamFailure:
                # A choice that was asked for and has not begun may be what is missing.
                if progress.settled:
                    return
                raise
            waited_s += clock.now() - asked_s
            if chunk is None:
                break
            yield chunk
        if not progress.complete:
            raise UpstreamFailure("the stream ended without a finish reason", kind=Kind.BROKEN)
    except UpstreamFailure as failure:
        failure.kind = Kind.BROKEN
        raise
    finally:
        await source.aclose()


async def _next(source: AsyncGenerator[Chunk, None], limit_s: float) -> Chunk | None:
    """Return the next chunk, or None at the end. Raises UpstreamFailure after `limit_s`."""
    try:
        async with asyncio.timeout(max(limit_s, 0.0)):
            return await anext(source, None)
    except TimeoutError as exc:
        raise UpstreamFailure("the stream stalled", kind=Kind.BROKEN) from exc


def _before(last: Json, events: Sequence[Json]) -> list[Json]:
    """Return the events that stand before `last`."""
    return list(takewhile(lambda event: event != last, events))


def _readable(chunk: Chunk) -> Chunk:
    """Return the events of `chunk` that stand before the first unreadable one."""
    events: list[Json] = []
    with contextlib.suppress(ValueError):
        for event in sse.Reader().feed(chunk.raw):
            events += Chunk.of_payloads([event.data]).events
    return Chunk.of_events(events)
