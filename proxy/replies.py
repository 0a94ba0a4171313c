"""The values that travel outward: a whole completion, or a stream that has certainly begun."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

import orjson

from proxy import sse
from proxy.leeway import Leeway
from proxy.owed import Owed
from proxy.replay import name_of
from proxy.types import Json

JSON = "application/json"
EVENTS = "text/event-stream"
NO_HEADERS: Mapping[str, str] = {}


class Completion:
    """
    A whole answer: its bytes as they go out, and its JSON, parsed at most once.

    One that is `streamed` is all the events of a stream, what ends it included, and has no JSON.
    What else is no JSON (sound, plain text) comes with the `body` that is to be read for it.
    """

    __slots__ = ("_body", "content_type", "dropped", "headers", "leeways", "raw", "streamed")

    def __init__(
        self,
        raw: bytes,
        body: Json | None = None,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        dropped: Sequence[str] = (),
        content_type: str = JSON,
        streamed: bool = False,
    ) -> None:
        self.raw = raw
        self.content_type = content_type
        self.streamed = streamed
        self._body = body
        self.headers = headers  # the provider's own, lower-case: its rate limits
        self.dropped = tuple(dropped)  # the parameters that the target would not have understood
        self.leeways: tuple[Leeway, ...] = ()  # the same limits as `headers`, read

    @property
    def body(self) -> Json:
        if self._body is None:
            self._body = orjson.loads(self.raw)
        return self._body


class Plain(NamedTuple):
    """Events that are pieces of the text of a chat's only choice, and nothing else."""

    number: int
    text_bytes: int


class Chunk:
    """
    What one read of the provider's socket brought: whole events only, ready to be sent.

    `raw` is the bytes as they go out; `events` is their JSON, parsed at most once. Where some of
    them are known to be `plain`, `told` are the others: all that there is to learn from the chunk.
    """

    __slots__ = ("_came", "_events", "_odd", "_payloads", "_told", "plain", "raw")

    def __init__(
        self,
        raw: bytes,
        payloads: Sequence[bytes] | None = None,
        events: tuple[Json, ...] | None = None,
    ) -> None:
        self.raw = raw
        self.plain: Plain | None = None
        self._came = raw  # with what is hidden
        self._payloads = payloads  # None: they are read from what came
        self._events = events
        self._odd: Sequence[bytes] | None = None  # all of them
        self._told: tuple[Json, ...] | None = None

    @classmethod
    def of_payloads(cls, payloads: Sequence[bytes]) -> Self:
        """A chunk of events that are still bytes, and have no names."""
        return cls(b"".join(map(sse.frame, payloads)), payloads)

    @classmethod
    def of_frames(cls, raw: bytes, plain: Plain | None, odd: Sequence[bytes]) -> Self:
        """
        A chunk of events that are ready to be sent, each a `data: ` line and an empty one.

        `odd` are the frames, without their empty lines, that are not `plain`.
        """
        chunk = cls(raw)
        chunk.plain, chunk._odd = plain, odd
        if not odd:
            chunk._told = ()
        return chunk

    @classmethod
    def of_named(cls, events: Sequence[sse.ServerEvent]) -> Self:
        """
        A chunk of events that are still bytes, each under its name.

        One that came without has its type for it: Anthropic's SDK passes over what has no name.
        """
        raw = b"".join(sse.frame(e.data, e.name or _name_in(e.data)) for e in events)
        return cls(raw, [event.data for event in events])

    @classmethod
    def of_events(cls, events: Sequence[Json]) -> Self:
        """A chunk of events that are already JSON; one with a type has that for its name."""
        raw = b"".join(sse.frame(orjson.dumps(event), name_of(event)) for event in events)
        return cls(raw, events=tuple(events))

    @property
    def events(self) -> tuple[Json, ...]:
        """The JSON of each event. Raises ValueError when one is not a JSON object."""
        if self._events is None:
            payloads = _payloads_of(self._came) if self._payloads is None else self._payloads
            self._events = _read(payloads)
        return self._events

    @property
    def told(self) -> tuple[Json, ...]:
        """The JSON of each event that is not plain. Raises ValueError likewise."""
        if self._odd is None:
            return self.events
        if self._told is None:
            self._told = _read([frame[len(_HEAD) :] for frame in self._odd])
            if self.plain is None:
                self._events = self._told
        return self._told

    def without(self, hidden: Sequence[Json]) -> Chunk:
        """A chunk that sends all but `hidden`, some of its own events; they stay in `events`."""
        if self._odd is None:
            kept = [event for event in self.events if not any(event is h for h in hidden)]
            return Chunk(Chunk.of_events(kept).raw, events=self.events)
        raw, told = self.raw, self.told
        for frame, event in zip(self._odd, told, strict=True):
            if any(event is h for h in hidden):
                raw = raw.replace(frame + b"\n\n", b"", 1)
        chunk = Chunk(raw, events=self._events)
        chunk._came, chunk.plain, chunk._odd, chunk._told = self._came, self.plain, self._odd, told
        return chunk


_HEAD = b"data: "


def _payloads_of(raw: bytes) -> list[bytes]:
    return [frame[len(_HEAD) :] for frame in raw.split(b"\n\n")[:-1]]


def _read(payloads: Sequence[bytes]) -> tuple[Json, ...]:
    events = tuple(map(orjson.loads, payloads))
    if not all(isinstance(event, dict) for event in events):
        raise ValueError("an event is not a JSON object")
    return events


def _name_in(payload: bytes) -> bytes:
    try:
        event = orjson.loads(payload)
    except ValueError:
        return b""
    return name_of(event) if isinstance(event, dict) else b""


class Source(Protocol):
    """Chunks as they come, of which there are none any more once it has failed or is closed."""

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    def __anext__(self) -> Awaitable[Chunk]: ...

    def aclose(self) -> Awaitable[None]: ...


class ChunkStream:
    """
    A reply that is still arriving, with its first content already in hand.

    Opening it can therefore no longer fail, which is what lets the ring treat a stream as an
    ordinary return value. `owe()` moves the request's unfinished business (breaker to tell, clock
    to stop, later quota to settle) onto the stream; `aclose()` does it, exactly once, whether the
    stream ended, broke, or lost its reader.
    """

    def __init__(
        self,
        first: Sequence[Chunk],
        rest: Source,
        *,
        now: Callable[[], float] = time.monotonic,
        headers: Mapping[str, str] = NO_HEADERS,
        dropped: Sequence[str] = (),
        content_type: str = EVENTS,
    ) -> None:
        self.headers = headers
        self.dropped = tuple(dropped)
        self.content_type = content_type  # another one: bytes that are no events
        self.leeways: tuple[Leeway, ...] = ()
        # For the provider, since the stream began; by `now`, which may know our own time apart.
        self.waited_s = 0.0
        self._now = now
        self._first = list(first)
        self._rest = rest
        self._taps: list[Callable[[Chunk], None]] = []
        self._owed = Owed()
        self._closing: asyncio.Task[None] | None = None
        # How it ended, as the exit stack wants to hear it; None only after a full read.
        self._outcome: BaseException | None = asyncio.CancelledError("the reader left early")

    @property
    def at_hand(self) -> tuple[Chunk, ...]:
        """The chunks that have arrived and that nobody has read yet."""
        return tuple(self._first)

    def tap(self, see: Callable[[Chunk], None]) -> Self:
        """Show every chunk to `see` before it is returned."""
        self._taps.append(see)
        return self

    def owe(self, unfinished: Owed) -> Self:
        """Take over `unfinished`: unwound when the stream closes, after what it had before."""
        unfinished.take(self._owed)
        self._owed = unfinished
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        try:
            if self._first:
                chunk = self._first.pop(0)
            else:
                asked_s = self._now()
                try:
                    chunk = await anext(self._rest)
                finally:
                    self.waited_s += self._now() - asked_s
            for see in self._taps:
                see(chunk)
        except StopAsyncIteration:
            if isinstance(self._outcome, asyncio.CancelledError):  # not broken before
                self._outcome = None
            await self._pay()
            raise
        except Exception as exc:
            self._outcome = exc
            await self._pay()
            raise
        return chunk

    async def aclose(self) -> None:
        """
        Close the provider's connection and pay what is owed. Safe to call again.

        A task that is cancelled meanwhile is cancelled afterwards: what is owed is paid in full,
        because the tokens were spent all the same.
        """
        closing = self._closing
        if closing is None:
            # A task of its own: a cancel scope holds off anyio's cancellations, not asyncio's.
            closing = self._closing = asyncio.get_running_loop().create_task(self._close())
        cancelled: asyncio.CancelledError | None = None
        while not closing.done():
            try:
                await _end_of(closing)
            except asyncio.CancelledError as exc:
                cancelled = exc
        if cancelled is not None:
            raise cancelled from closing.exception()
        closing.result()

    async def _pay(self) -> None:
        """
        Close before the reader tells anybody that it is over: what it took is on record by then.

        What goes wrong in this is no reason to withhold an answer; `aclose` will say it again.
        """
        with suppress(Exception):
            await self.aclose()

    async def _close(self) -> None:
        try:
            await self._rest.aclose()
        finally:
            await self._owed.__aexit__(*_exit_of(self._outcome))


def _end_of(task: asyncio.Task[None]) -> asyncio.Future[None]:
    """Return what is done when the task is, whatever came of it; to cancel it cancels no task."""
    end = task.get_loop().create_future()
    task.add_done_callback(lambda _: None if end.done() else end.set_result(None))
    return end


def _exit_of(
    exc: BaseException | None,
) -> tuple[type[BaseException] | None, BaseException | None, TracebackType | None]:
    return (type(exc), exc, exc.__traceback__) if exc else (None, None, None)


Reply: TypeAlias = Completion | ChunkStream
