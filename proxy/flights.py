"""
One call for many identical requests at once.

The first request of a key begins a flight, and all who come meanwhile are on it: they read the same
answer from its first word on, each at its own pace. The call is the flight's, not the first
request's: it goes on when that one leaves, and is cancelled when the last one has left.

A flight that fails is begun once more by one who was on it; what the second one fails with is told
to all. A refusal of the provider's is told at once, and one by a caller's own limits to that caller
alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, TypeAlias

from proxy.caching import CacheWishes, Caching
from proxy.errors import (
    LimitReached,
    NoTargetAvailable,
    PriceUnknown,
    QuotaUnavailable,
    Refused,
    TooManyTokens,
)
from proxy.grammar import GRAMMARS
from proxy.owed import Owed
from proxy.replies import NO_HEADERS, Chunk, ChunkStream, Completion, Reply
from proxy.types import Call, Tally

OWN = (LimitReached, PriceUnknown, QuotaUnavailable, TooManyTokens)  # of one caller, not of others
MOST_CALLS = 2
CANCELLED = "the call that was to answer was cancelled"


class Asked(NamedTuple):
    """One request that the cache has something to do with."""

    key: str
    call: Call
    model: str
    caching: Caching
    wishes: CacheWishes
    tally: Tally
    inputs: tuple[str, ...] = ()  # keys, where each input of the call has an answer of its own

    @property
    def most_bytes(self) -> int:
        """How large an answer may be that is kept for others."""
        return self.caching.max_entry_bytes * (len(self.inputs) or 1)


Work: TypeAlias = Callable[[], Awaitable[Reply]]
Look: TypeAlias = Callable[[], Awaitable[Reply | None]]


class Flight:
    """One call and its answer, as far as it has come."""

    def __init__(self, asked: Asked, number: int, *, shared: bool) -> None:
        self.asked = asked  # by the first on board
        self.number = number  # of the calls that were made for the same requests
        self.shared = shared  # others may come on board
        self.whole: Completion | None = None
        self.chunks: list[Chunk] = []  # without the first `gone`, which all on board have read
        self.gone = 0
        self.kept_bytes = 0
        self.failure: Exception | None = None
        self.ended = False  # nothing more comes
        self.purged = False  # its answer is not to be kept, nor given to whoever comes now
        self._left = False  # by everybody, and cancelled for that
        self._source: ChunkStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._seats: set[Seat] = set()
        self._wanted = 0  # chunks: so many the fastest reader has asked for
        self._came = asyncio.Event()
        self._asked = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Say whether its answer has begun, or will never."""
        return self.ended or bool(self.came)

    @property
    def came(self) -> int:
        """How many chunks there were so far."""
        return self.gone + len(self.chunks)

    @property
    def open(self) -> bool:
        """Say whether somebody may still come on board: all that was said is still here."""
        return not (self.ended or self._left or self.purged) and self._is_kept

    @property
    def whole_said(self) -> bool:
        """Say whether the answer came to its end."""
        return self.ended and self.failure is None

    @property
    def complete(self) -> bool:
        """Say whether all of the answer is here, from its first word to its last, and may stay."""
        return self.whole_said and self._is_kept and not self.purged

    @property
    def _is_kept(self) -> bool:
        return not self.gone and self.kept_bytes <= self.asked.most_bytes

    @property
    def dropped(self) -> tuple[str, ...]:
        """The parameters that the target would not have understood."""
        reply = self.whole or self._source
        return () if reply is None else reply.dropped

    @property
    def headers(self) -> Mapping[str, str]:
        """What the provider said beside its answer."""
        reply = self.whole or self._source
        return NO_HEADERS if reply is None else reply.headers

    @property
    def answered_by(self) -> tuple[str, str]:
        """The label of the target that answers, and its provider, once the answer has begun."""
        return self.asked.tally.target, self.asked.tally.provider

    def start(self, work: Work, landed: Callable[[Flight], None]) -> asyncio.Task[None]:
        """Make the call; `landed` is told when nothing more comes, before anybody else."""
        self._task = asyncio.create_task(self._fly(work, landed), name="a call for many")
        self._task.add_done_callback(lambda _: self._never_began(landed))
        return self._task

    @contextmanager
    def seat(self) -> Iterator[Seat]:
        """Be on board inside the block. Without anybody on board the call is cancelled."""
        seat = Seat(self)
        self._seats.add(seat)
        try:
            yield seat
        finally:
            self._seats.discard(seat)
            if not self._seats and not self.ended and self._task is not None:
                # What it owes is still paid, which takes a moment; nobody may board it meanwhile.
                self._left = True
                self._task.cancel()

    def tell_wait(self, stream: ChunkStream) -> None:
        """Have the first reader's stream say how long the provider was waited for."""
        if self._source is not None:
            stream.waited_s = self._source.waited_s

    async def news(self) -> None:
        """Return when more has come, or when nothing will."""
        await self._came.wait()

    def want(self, chunks: int) -> None:
        """Have so many chunks read, from the first one on."""
        if chunks > self._wanted:
            self._wanted = chunks
            self._asked.set()

    def _tell(self) -> None:
        came, self._came = self._came, asyncio.Event()
        came.set()

    async def _fly(self, work: Work, landed: Callable[[Flight], None]) -> None:
        try:
            reply = await work()
            match reply:
                case Completion():
                    self.whole = reply
                    self.kept_bytes = len(reply.raw)
                case ChunkStream():
                    await self._pump(reply)
        except Exception as exc:
            self.failure = exc
        except BaseException:
            # Whoever is still on board was not cancelled itself.
            self.failure = NoTargetAvailable(CANCELLED)
            raise
        finally:
            self._land(landed)

    def _never_began(self, landed: Callable[[Flight], None]) -> None:
        """Land also when it was cancelled before the first line of `_fly`."""
        if not self.ended:
            self.failure = NoTargetAvailable(CANCELLED)
            self._land(landed)

    def _land(self, landed: Callable[[Flight], None]) -> None:
        self.ended = True
        try:
            landed(self)
        finally:
            self._tell()

    async def _pump(self, reply: ChunkStream) -> None:
        """Read as fast as the fastest reader does, and not faster."""
        self._source = reply
        async with Owed() as owed:
            owed.push_async_callback(reply.aclose)
            async for chunk in reply:
                self.chunks.append(chunk)
                self.kept_bytes += len(chunk.raw)
                self._forget()
                self._tell()
                while self._wanted <= self.came:
                    self._asked.clear()
                    await self._asked.wait()

    def _forget(self) -> None:
        """Drop what all on board have read, once nobody may come on board any more."""
        if not self.open:
            read = min((seat.place for seat in self._seats), default=self.came) - self.gone
            del self.chunks[:read]
            self.gone += read


class Seat:
    """One request on board: what it has read is its own, what it has not read is kept for it."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self.place = 0  # how many chunks it has read

    async def reply(self, call: Call) -> Reply:
        """
        Return the answer in the way that `call` wants it, once it has begun.

        Raises what the call failed with before that.
        """
        flight = self._flight
        while not flight.begun:
            await flight.news()
        if flight.whole is not None:
            return flight.whole
        if flight.failure is not None and not flight.came:
            raise _afresh(flight.failure)
        return ChunkStream((), self._read(call), headers=flight.headers, dropped=flight.dropped)

    async def _read(self, call: Call) -> AsyncGenerator[Chunk, None]:
        flight = self._flight
        same = call.wants_usage is flight.asked.call.wants_usage
        while True:
            if self.place < flight.came:
                chunk = flight.chunks[self.place - flight.gone]
                self.place += 1
                yield chunk if same else _seen_by(call, chunk)
            elif flight.failure is not None:
                raise _afresh(flight.failure)
            elif flight.ended:
                return
            else:
                flight.want(self.place + 1)
                await flight.news()


class Flights:
    """The flights of one process, by key."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        self.tasks: set[asyncio.Task[None]] = set()  # the calls that are under way
        self._under_way: set[Flight] = set()  # also those that nobody else may board

    def __len__(self) -> int:
        return len(self._flights)

    def find(self, key: str) -> Flight | None:
        """Return the flight that a request of this key may board."""
        flight = self._flights.get(key)
        return flight if flight is not None and flight.open else None

    def purge(self, *, key: str | None, model: str | None) -> None:
        """Have no answer of theirs kept, as of calls that are made from now on."""
        for flight in self._under_way:
            if key in (None, flight.asked.key, *flight.asked.inputs) and model in (
                None,
                flight.asked.model,
            ):
                flight.purged = True

    def begin(
        self, asked: Asked, work: Work, see: Callable[[Flight], None], *, number: int, shared: bool
    ) -> Flight:
        """Return a flight that has begun; `see` is told of it when it has landed."""
        flight = Flight(asked, number, shared=shared)
        self._under_way.add(flight)
        if shared:
            self._flights[asked.key] = flight

        def landed(flight: Flight) -> None:
            self._under_way.discard(flight)
            if self._flights.get(asked.key) is flight:
                del self._flights[asked.key]
            see(flight)

        task = flight.start(work, landed)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return flight


def next_number(failure: BaseException, number: int) -> int | None:
    """Return the number of the flight that may follow one that failed so; None: all are told."""
    if isinstance(failure, OWN):
        return number
    if isinstance(failure, Refused) or number >= MOST_CALLS:
        return None
    return number + 1


def _afresh(failure: Exception) -> Exception:
    """Return the failure, to be raised by one of many: the way of the others is no part of it."""
    return failure.with_traceback(None)


def _seen_by(call: Call, chunk: Chunk) -> Chunk:
    """Return the chunk with the usage that this call asked for, or without it."""
    if call.wants_usage:
        return Chunk.of_events(chunk.events)
    only_usage = GRAMMARS[call.surface].only_usage
    return chunk.without([event for event in chunk.events if only_usage(event)])
