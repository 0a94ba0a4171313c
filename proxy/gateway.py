"""
The path of a request, top to bottom. Read this file first.

Each concern that has a before and an after is a context manager, so both halves sit together in
its own module and the order of the whole is the order of the lines below. What is still owed when
the reply starts streaming moves onto the stream (`pop_all`) and is paid when it closes.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from functools import partial
from typing import assert_never

from proxy.access import check_model, model_unknown, tenant_for
from proxy.admission import Admission
from proxy.attempts import Attempts
from proxy.batches import answer_each
from proxy.cache import Cache
from proxy.cacheable import may_be_kept
from proxy.flights import Asked
from proxy.grammar import GRAMMARS
from proxy.keys import KnownKeys
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.origins import Origins
from proxy.owed import Owed
from proxy.quota import Quota
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.resume import Resume
from proxy.snapshot import Snapshot
from proxy.types import Call, Caller, Group, Ring, Surface, Tally


class Gateway:
    def __init__(
        self,
        *,
        attempts: Attempts,
        resume: Resume,
        quota: Quota,
        cache: Cache | None = None,
        origins: Origins | None = None,
        metrics: Metrics,
        log: Log,
    ) -> None:
        self._cache = cache
        self._keys = KnownKeys()
        self._origins = origins
        self._attempts = attempts
        self._resume = resume
        self._quota = quota
        self._metrics = metrics
        self._log = log

    async def serve(self, call: Call, caller: Caller, snapshot: Snapshot, tally: Tally) -> Reply:
        """
        Answer `call`, or raise a ProxyError. Whoever reads a ChunkStream must close it.

        `snapshot` is the configuration for the whole of this request, whatever is saved meanwhile.
        """
        async with Owed() as owed:
            owed.callback(partial(self._log.request, tally))
            owed.enter_context(self._metrics.measure(tally))

            ring = ring_of(call, caller, snapshot)
            tally.model = ring.pattern or ring.model

            counted_as = ring.groups[0].name  # an alias is no way round a model's limits
            admission = await owed.enter_async_context(
                self._quota.admit(call, caller, snapshot, tally, counted_as=counted_as)
            )
            reply = await self._answer(ring, admission, snapshot)

            match reply:
                case Completion():
                    if call.stream:
                        self._metrics.content(tally)  # all of it at once
                    return reply
                case ChunkStream():
                    owed.callback(lambda: _add_wait(tally, reply))
                    see = partial(self._see, call, tally)
                    return reply.tap(see).owe(owed.pop_all())
                case _:
                    assert_never(reply)

    async def _answer(self, ring: Ring, admission: Admission, snapshot: Snapshot) -> Reply:
        """Return an answer that is kept or shared, where the file and the request allow that."""
        call, tally, caching = admission.call, admission.tally, snapshot.caching
        if self._cache is None or not may_be_kept(call, caching):
            return await self._ask(ring, admission, snapshot)
        keys = self._keys.of(call, admission.caller, ring, snapshot, admission.allowance)
        if keys is None:
            return await self._ask(ring, admission, snapshot)
        whole, inputs = keys

        def ask(part: Call = call) -> Awaitable[Reply]:
            admission.call = part  # only what is not kept, or after all the whole
            return self._ask(ring, admission, snapshot)

        asked = Asked(whole, call, tally.model, caching, call.wishes.cache, tally, inputs)
        if inputs:
            return await answer_each(self._cache, asked, ask)
        return await self._cache.answer(asked, ask)

    def _ask(self, ring: Ring, admission: Admission, snapshot: Snapshot) -> Awaitable[Reply]:
        """Have a target answer; what goes on from a response is asked where that was made."""
        call, tally = admission.call, admission.tally

        def run(ring: Ring) -> Awaitable[Reply]:
            if snapshot.policy.on_midstream == "continue":
                return self._resume.run(ring, admission, snapshot.policy)
            return self._attempts.run(ring, admission, snapshot.policy)

        if call.surface is not Surface.RESPONSES or self._origins is None:
            return run(ring)
        tenant = tenant_for(admission.caller, snapshot)
        return self._origins.answer(ring, call, tenant, tally, run)

    def _see(self, call: Call, tally: Tally, chunk: Chunk) -> None:
        if chunk.plain is not None:
            self._metrics.content(tally, chunk.plain.number)
        if told := chunk.told:
            begins = GRAMMARS[call.surface].begins
            for event in told:
                if begins(event):
                    self._metrics.content(tally)


def _add_wait(tally: Tally, stream: ChunkStream) -> None:
    tally.upstream_s += stream.waited_s


def ring_of(call: Call, caller: Caller, snapshot: Snapshot) -> Ring:
    """
    Return the ring that `call` may go round: its wishes and the caller's models are kept to.

    Raises ModelForbidden or ModelUnknown.
    """
    if call.wishes.order is not None:
        return _ordered(call.wishes.order, call, caller, snapshot)
    ring = _ring(call.model, caller, snapshot)
    if not caller.models and not call.wishes.disable_fallbacks and call.wishes.fallbacks is None:
        return ring
    own, fallbacks = ring.groups[:1], _allowed(ring.groups[1:], caller)
    if call.wishes.disable_fallbacks:
        return replace(ring, groups=own, oversized=(), content=())
    if call.wishes.fallbacks is not None:
        fallbacks = _wished(call.wishes.fallbacks, caller, snapshot)
    return replace(
        ring,
        groups=(*own, *fallbacks),
        oversized=_allowed(ring.oversized, caller),
        content=_allowed(ring.content, caller),
    )


def _ordered(names: tuple[str, ...], call: Call, caller: Caller, snapshot: Snapshot) -> Ring:
    """Return the ring of those models alone, in that order."""
    ring, others = _ring(names[0], caller, snapshot), _wished(names[1:], caller, snapshot)
    if call.wishes.disable_fallbacks:
        others = ()
    return replace(ring, groups=(ring.groups[0], *others), oversized=(), content=())


def _wished(names: tuple[str, ...], caller: Caller, snapshot: Snapshot) -> tuple[Group, ...]:
    return tuple(_ring(name, caller, snapshot).groups[0] for name in names)


def _ring(model: str, caller: Caller, snapshot: Snapshot) -> Ring:
    check_model(caller, model)
    ring = snapshot.ring(model)
    if ring is None:
        raise model_unknown(caller, model, snapshot.models())
    return ring


def _allowed(groups: tuple[Group, ...], caller: Caller) -> tuple[Group, ...]:
    return tuple(group for group in groups if caller.may_ask(group.name))
