"""
One call for identical requests of several replicas: the first makes it, the others listen.

A replica whose leader is gone before a word of the answer was passed on makes the call itself, or
listens to the next one. After the first word a lost leader is a stream that broke.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import orjson

from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.store.board import Begun, Board, Following, LeaderLost, Leading
from proxy.types import Call, Json, Tally

MOST_LOST = 5  # leaders


class Relay:
    """Stands between a flight of this process and the call that it makes."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._leads: dict[str, Leading] = {}

    async def fly(
        self,
        key: str,
        call: Call,
        tally: Tally,
        work: Callable[[], Awaitable[Reply]],
        look: Callable[[], Awaitable[Reply | None]],
    ) -> Reply:
        """
        Return another replica's answer, or that of `work`.

        `look` finds an answer that was kept a moment ago. Where this process leads, others go on
        waiting until `land`.
        """
        lost = 0
        while True:
            # Who has lost so many may be reading what no leader has written.
            place = await self._board.take(key) if lost < MOST_LOST else None
            if place is None:
                return await work()
            if isinstance(place, Following):
                try:
                    return await self._listen(place, call, tally)
                except LeaderLost:
                    lost += 1
                    continue
            self._leads[key] = place
            try:
                reply = await look() or await work()
            except BaseException:
                await self.land(key, ok=False)
                raise
            return self._told(place, reply, tally)

    async def land(self, key: str, *, ok: bool) -> None:
        """Have others know that the answer is whole and kept, or that there is none."""
        leading = self._leads.pop(key, None)
        if leading is not None:
            await leading.land(ok=ok)

    def _told(self, leading: Leading, reply: Reply, tally: Tally) -> Reply:
        streamed = isinstance(reply, ChunkStream)
        leading.begins(Begun(tally.target, tally.provider, streamed, reply.dropped))
        match reply:
            case Completion():
                leading.says(reply.raw, 0)
                return reply
            case ChunkStream():
                return reply.tap(lambda chunk: _say(leading, chunk))

    async def _listen(self, following: Following, call: Call, tally: Tally) -> Reply:
        begun = await following.begun()
        if not begun.streamed:
            reply: Reply = Completion(await following.whole(), dropped=begun.dropped)
        else:
            events = following.events()
            first = await _begun(events, call)
            reply = ChunkStream(first, _rest(events, call), dropped=begun.dropped)
        tally.target, tally.provider, tally.cache = begun.target, begun.provider, "shared"
        return reply


async def _begun(events: AsyncGenerator[list[Json], None], call: Call) -> list[Chunk]:
    """Return what is said up to the first content: before that, a leader can be replaced."""
    first, begins = [], GRAMMARS[call.surface].begins
    async for each in events:
        first.append(_heard(each, call))
        if any(map(begins, each)):
            break
    return first


def _say(leading: Leading, chunk: Chunk) -> None:
    if chunk.events:
        # A copy: behind the bytes that orjson makes there are up to 4 KB, and many are held.
        leading.says(bytes(memoryview(orjson.dumps(chunk.events))), len(chunk.events))


def _heard(events: list[Json], call: Call) -> Chunk:
    """Return what the leader says, all of it, as this call wants to have it sent."""
    chunk = Chunk.of_events(events)
    if call.wants_usage:
        return chunk
    only_usage = GRAMMARS[call.surface].only_usage
    hidden = [event for event in chunk.events if only_usage(event)]
    return chunk.without(hidden) if hidden else chunk


async def _rest(
    events: AsyncGenerator[list[Json], None], call: Call
) -> AsyncGenerator[Chunk, None]:
    try:
        async for each in events:
            yield _heard(each, call)
    except LeaderLost as exc:
        raise UpstreamFailure("the replica that made the call is gone", kind=Kind.BROKEN) from exc
