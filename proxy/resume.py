"""
A stream that broke after its first content, finished by what is left of the ring's plan.

Only with `mobius.on_midstream: continue`, and only where it can be done exactly: the client gets
every character of one text once, or the error that it would have got anyway. Each target that is
asked to go on either begins with the text that was sent (a prefill, where its model is known to
take one), or has to say it again, word for word, before anything of it is passed on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn, Self

from proxy.admission import Admission
from proxy.attempts import Attempts
from proxy.clock import Clock
from proxy.errors import ProxyError, UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.kept import streamed
from proxy.metrics import Metrics
from proxy.policy import RingPolicy
from proxy.replies import Chunk, ChunkStream, Reply
from proxy.retry import Kind
from proxy.seam import NOTHING_USED, Diverged, Said, Seam, may_go_on, ways
from proxy.types import Call, Json, Ring, Surface, Target, Usage
from proxy.waiting import within
from proxy.walk import Walk

SEAM = b": resumed\n\n"
REFUSALS = frozenset({Kind.CALLER, Kind.DIALECT})  # of a prefill, perhaps; not of the request


class Resume:
    """`attempts`, whose streams of plain text are finished by the next target where they break."""

    def __init__(self, attempts: Attempts, metrics: Metrics, clock: Clock) -> None:
        self._attempts = attempts
        self._metrics = metrics
        self._clock = clock

    async def run(self, ring: Ring, admission: Admission, policy: RingPolicy) -> Reply:
        """Return what `Attempts.run` does, and raise what it raises."""
        if not may_go_on(admission.call):
            return await self._attempts.run(ring, admission, policy)
        walks: list[Walk] = []
        reply = await self._attempts.run(ring, admission, policy, begun=walks.append)
        if not isinstance(reply, ChunkStream):
            return reply
        (walk,) = walks
        source = _Finishing(reply, walk, self._attempts, self._metrics, self._clock)
        return ChunkStream(
            (),
            source,
            now=source.waited_s,
            headers=reply.headers,
            dropped=reply.dropped,
            content_type=reply.content_type,
        )


class _Finishing:
    """The chunks of a stream, and of those that go on with it. One of them is open at a time."""

    def __init__(
        self, stream: ChunkStream, walk: Walk, attempts: Attempts, metrics: Metrics, clock: Clock
    ) -> None:
        self._stream = stream
        self._walk = walk
        self._call = walk.call
        self._left = left_of(walk)
        self._attempts = attempts
        self._metrics = metrics
        self._clock = clock
        self._said = Said()
        self._seam: Seam | None = None  # with what goes on; None: nothing has broken yet
        self._broken: UpstreamFailure | None = None
        self._deadline_s = 0.0  # by which the text has to go on
        self._told = False  # what became of it
        self._past_s = 0.0  # that the streams before this one were waited for
        self._before = walk.tally.usage or NOTHING_USED  # by those that failed before any content

    def waited_s(self) -> float:
        """Seconds that the providers were waited for, since the first content."""
        return self._past_s + self._stream.waited_s

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """Return what the client is to get next. Raises UpstreamFailure where that is nothing."""
        while True:
            try:
                shown = self._shown(await self._next())
            except StopAsyncIteration:
                self._tell("whole")
                raise
            except Diverged:
                self._give_up("diverged")
            except TimeoutError:
                self._give_up("failed")
            except UpstreamFailure as failure:
                await self._go_on(failure)
            else:
                if shown is not None:
                    self._said.add(shown)
                    return shown

    async def aclose(self) -> None:
        """Close what is open. A client that left meanwhile has the text go on no further."""
        self._tell("cancelled")
        await self._stream.aclose()

    async def _next(self) -> Chunk:
        if self._seam is None or self._seam.joined:
            return await anext(self._stream)
        left_s = max(0.0, self._deadline_s - self._clock.now())
        return await within(left_s, anext(self._stream))

    def _shown(self, chunk: Chunk) -> Chunk | None:
        """Return the chunk as the client is to see it. Raises Diverged."""
        seam = self._seam
        if seam is None:
            return chunk
        joined = seam.joined
        try:
            events = seam.take(chunk.events)
        except ValueError as exc:
            raise Diverged from exc
        if not events:
            return None
        only_usage = GRAMMARS[Surface.CHAT].only_usage
        shown = Chunk.of_events(events)
        if not self._call.wants_usage:
            shown = shown.without([event for event in events if only_usage(event)])
        if joined or not seam.joined:
            return shown
        return Chunk(SEAM + shown.raw, events=shown.events)

    async def _go_on(self, failure: UpstreamFailure) -> None:
        """Have another stream in the place of the one that broke. Raises UpstreamFailure."""
        self._broken, said = failure, self._said.read()
        if said.text is None or said.ended:
            self._give_up("unfit")
        self._deadline_s = self._clock.now() + self._walk.policy.deadline
        while self._left and self._clock.now() < self._deadline_s:
            target = self._left.pop(0)
            if self._attempts.rests(target, self._walk.policy):
                continue
            self._walk.tally.fallbacks += 1
            try:
                if await self._goes_on(target, said.text, said.head):
                    return
            except ProxyError:  # the caller's own limits: they are the same for everybody
                break
        self._give_up("failed")

    async def _goes_on(self, target: Target, text: str, head: Json) -> bool:
        """Have the target's stream in the place of the one that broke, where it answers."""
        for way in ways(self._call, text, target):
            try:
                reply = await self._ask(target, way.call)
            except UpstreamFailure as refusal:
                if refusal.kind not in REFUSALS:
                    return False
            else:
                self._past_s += self._stream.waited_s
                self._stream, self._seam = reply, Seam(way.due, head, self._used())
                return True
        return False

    async def _ask(self, target: Target, call: Call) -> ChunkStream:
        walk = replace(self._walk, call=call, deadline_s=self._deadline_s)
        walk.admission.call = call
        reply = await self._attempts.finish(target, walk)
        if isinstance(reply, ChunkStream):
            return reply
        return streamed(Chunk.of_events(GRAMMARS[Surface.CHAT].events(reply.body, usage=True)), ())

    def _used(self) -> Usage:
        """Return what the streams that broke have used, as far as it is known."""
        used, before = self._walk.tally.usage or NOTHING_USED, self._before
        return Usage(
            used.prompt_tokens - before.prompt_tokens,
            used.completion_tokens - before.completion_tokens,
        )

    def _give_up(self, result: str) -> NoReturn:
        """Raise what broke the stream: that is the answer then. Whoever hears it closes this."""
        self._tell(result)
        raise self._broken or UpstreamFailure("the stream broke", kind=Kind.BROKEN)

    def _tell(self, result: str) -> None:
        if self._broken is not None and not self._told:
            self._told = True
            self._metrics.resumed(self._walk.tally, result)


def left_of(walk: Walk) -> list[Target]:
    """Return who stands in the plan behind the one that answered. No place is in it twice."""
    targets = walk.plan.targets
    place = next(i for i, target in enumerate(targets) if target.label == walk.tally.target)
    return [target for target in targets[place + 1 :] if walk.may_answer(target)]
