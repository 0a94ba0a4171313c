"""
The contract of a stream, whatever lane it comes from: it has begun only with its first content,
and it has ended only with a finish reason.

`begin` raises whatever happens before the first content as an ordinary failure. After it, a cut,
a stall, an unreadable or an error event is a BROKEN failure, raised to whoever reads; nothing is
ever ended silently.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Self

from proxy import sse
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.grammar import Grammar
from proxy.replies import EVENTS, Chunk, ChunkStream, Source
from proxy.retry import Kind
from proxy.types import Json, TargetTimeouts
from proxy.upstream import failures
from proxy.waiting import Bound, Waiting

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

    def see(self, chunk: Chunk) -> tuple[Chunk | None, UpstreamFailure | None]:
        """
        Take note of `chunk`, and return it as the caller may see it.

        With it comes the failure that an event reports, or is by not being readable, after what
        stands before it: one read of a socket may bring good tokens and the end of them.
        """
        chunk, failure = self._sound(chunk)
        told, plain = chunk.told, chunk.plain
        if plain is not None:
            self.begun = True
            self.seen.add(0)
        elif not told:
            return None, failure
        hidden = [event for event in told if self._note(event) and not self.wants_usage]
        return (chunk.without(hidden) if hidden else chunk), failure

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
        for index, ended in grammar.endings(event):
            self.seen.add(index)
            if ended:
                self.finished.add(index)
        if not grammar.reports(event):
            return False
        self.usage = True
        return grammar.only_usage(event)


async def begin(
    source: Source,
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
    judged = _Judged(source, progress, timeouts, clock, waits)
    first: list[Chunk] = []
    held_bytes = 0
    try:
        while not progress.begun:
            chunk = await judged.seen()
            if chunk is None:
                raise UpstreamFailure("the stream ended before its content", kind=Kind.TRANSIENT)
            first.append(chunk)
            held_bytes += len(chunk.raw)
            if held_bytes > PREAMBLE_LIMIT_BYTES and not progress.begun:
                raise UpstreamFailure("the stream begins without content", kind=Kind.TRANSIENT)
    except BaseException:
        await judged.aclose()
        raise
    judged.waited_s = clock.now() - started_s
    return ChunkStream(
        first,
        judged,
        now=waiting.now if waiting is not None else clock.now,
        headers=headers,
        dropped=dropped,
        content_type=content_type,
    )


class _Judged:
    """What a source brings, as the contract has it. The source is closed once it is over."""

    def __init__(
        self,
        source: Source,
        progress: Progress,
        timeouts: TargetTimeouts,
        clock: Clock,
        waits: Waits,
    ) -> None:
        self._source = source
        self._progress = progress
        self._timeouts = timeouts
        self._clock = clock
        self._waits = waits
        self._failure: UpstreamFailure | None = None  # that comes after what was read before it
        self._bound = Bound()
        self._settled_s: float | None = None
        self._over = False
        self.waited_s = 0.0  # only the time that the provider takes counts, not the reader's

    def __aiter__(self) -> Self:
        return self

    async def seen(self) -> Chunk | None:
        """Return the next chunk that the caller may see; None at the end of the source."""
        while self._failure is None:
            try:
                chunk = await anext(self._source)
            except StopAsyncIteration:
                return None
            shown, self._failure = self._progress.see(chunk)
            if shown is not None:
                return shown
        raise self._failure

    async def __anext__(self) -> Chunk:
        """Return what follows the beginning. Raises UpstreamFailure where the stream is BROKEN."""
        chunk: Chunk | None = None
        try:
            if not self._over:
                chunk = await self._next()
        except UpstreamFailure as failure:
            failure.kind = Kind.BROKEN
            raise
        finally:
            if chunk is None:
                await self.aclose()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._over = True
        self._bound.close()
        await self._source.aclose()

    async def _next(self) -> Chunk | None:
        progress, asked_s = self._progress, self._clock.now()
        try:
            with self._bound.to(self._limit_s()):
                chunk = await self.seen()
        except (TimeoutError, UpstreamFailure) as exc:
            # A choice that was asked for and has not begun may be what is missing.
            if progress.settled:
                return None
            if isinstance(exc, TimeoutError):
                raise UpstreamFailure("the stream stalled", kind=Kind.BROKEN) from exc
            raise
        finally:
            self.waited_s += self._clock.now() - asked_s
        if chunk is None and not progress.complete:
            raise UpstreamFailure("the stream ended without a finish reason", kind=Kind.BROKEN)
        return chunk

    def _limit_s(self) -> float:
        """Return how long the next chunk may be waited for."""
        limit_s = min(self._timeouts.idle_s, self._timeouts.stream_s - self.waited_s)
        if self._progress.settled:
            if self._settled_s is None:
                self._settled_s = self.waited_s
            wait_s = self._waits.done_s if self._progress.usage else self._waits.usage_s
            limit_s = min(limit_s, self._settled_s + wait_s - self.waited_s)
        return max(limit_s, 0.0)


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
