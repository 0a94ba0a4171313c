"""
Which account made a response, so that what goes on from it is asked there and nowhere else.

A response is kept by the provider's account that made it. Whoever goes on from one is sent to that
account, whatever model of it is asked for; where it fails nobody is asked in its place, for nobody
else knows the conversation. What is not known here (it was made elsewhere, or too long ago) is
asked for at each target of the ring that keeps anything. Nobody is sent to what was made for
another tenant. Without the ledger's file and without Redis this process knows what it saw itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from proxy.clock import Clock
from proxy.errors import (
    EVERYBODY_FAILED,
    ConversationUnknown,
    PreviousUnknown,
    ResponseUnknown,
)
from proxy.owed import Owed
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.snapshot import Snapshot
from proxy.store.origins import Origin, OriginStore, key_of
from proxy.types import Call, Group, Json, Lane, Ring, Surface, Tally, Target

Ask: TypeAlias = Callable[[Ring], Awaitable[Reply]]

PREVIOUS = "previous_response_id"
MOST_IDS = 64  # of one response and of its items, that are remembered
SHOWN = 100  # characters of a stranger's id


@dataclass(frozen=True, slots=True)
class Reference:
    """What a request names that is kept at a provider. Without an id nobody can be looked up."""

    param: str
    id: str = ""


class Origins:
    """What is known in `places`, which are asked in this order."""

    def __init__(self, places: Sequence[OriginStore], clock: Clock) -> None:
        self._places = tuple(places)
        self._clock = clock

    async def answer(self, ring: Ring, call: Call, tenant: str, tally: Tally, ask: Ask) -> Reply:
        """
        Return what `ask` does for the part of `ring` that may know what `call` goes on from.

        The response is the tenant's from then on. Raises ResponseUnknown where nobody may know it.
        """
        named = tuple(references(call.body))
        origin = await self._origin_of(named, tenant)
        narrowed = _narrowed(ring, named, origin) if named else ring
        with _alone(origin):
            reply = await ask(narrowed)
        maker = _target_of(narrowed, tally.target)
        if maker is None or not keeps(maker) or call.body.get("store") is False:
            return reply
        made_at = int(self._clock.wall())
        return await self._noted(reply, Origin(maker.credential, tenant, maker.label, made_at))

    async def find(self, id: str) -> Origin | None:
        """Return who made what has this id, as far as it is known."""
        key = key_of(id)
        for place in self._places:
            if (found := await place.find(key)) is not None:
                return found
        return None

    async def keeper(self, id: str, tenant: str, snapshot: Snapshot) -> Target:
        """Return a target of the account that keeps the response. Raises ResponseUnknown."""
        origin = await self.find(id)
        if origin is None or origin.tenant != tenant:
            raise ResponseUnknown(f"Response with id '{_shown(id)}' not found.")
        for target in snapshot.targets():
            if may_go_on(target, origin) and target.missing is None:
                return target
        raise ResponseUnknown(
            f"Response with id '{_shown(id)}' not found: {origin.target}, which keeps it, is not "
            "configured any more."
        )

    async def forget(self, id: str) -> None:
        key = key_of(id)
        await asyncio.gather(*(place.forget(key) for place in self._places))

    async def _origin_of(self, named: Sequence[Reference], tenant: str) -> Origin | None:
        """Return the first that is known. Raises ResponseUnknown for what is another tenant's."""
        known: Origin | None = None
        for reference in named:
            origin = await self.find(reference.id) if reference.id else None
            if origin is not None and origin.tenant != tenant:
                raise _unknown(reference)
            known = known or origin
        return known

    async def _noted(self, reply: Reply, origin: Origin) -> Reply:
        """Return the reply; its ids are known before anything of it goes out."""
        match reply:
            case Completion():
                await self._keep(_ids_of(reply.body), origin)
            case ChunkStream():
                events = (event for chunk in reply.at_hand for event in _told(chunk))
                responses = (event.get("response") for event in events)
                await self._keep([id for each in responses for id in _ids_of(each)], origin)
                self._watch(reply, origin)
        return reply

    def _watch(self, stream: ChunkStream, origin: Origin) -> None:
        """Have the ids of the items known once the end of the stream has told them."""
        keeping: list[asyncio.Task[None]] = []

        def see(chunk: Chunk) -> None:
            for event in chunk.told:
                response = event.get("response")
                if isinstance(response, dict) and response.get("output"):
                    ids = _ids_of(response)
                    keeping.append(asyncio.create_task(self._keep(ids, origin)))

        async def kept() -> None:
            await asyncio.gather(*keeping)

        owed = Owed()
        owed.push_async_callback(kept)
        stream.tap(see).owe(owed)

    async def _keep(self, ids: Sequence[str], origin: Origin) -> None:
        keys = [key_of(id) for id in dict.fromkeys(ids)][:MOST_IDS]
        if keys:
            await asyncio.gather(*(place.keep(keys, origin) for place in self._places))


def keeps(target: Target) -> bool:
    """Say whether a target may keep what it says; one that is asked by its chats keeps nothing."""
    return target.lane_of(Surface.RESPONSES) is Lane.DIRECT


def may_go_on(target: Target, origin: Origin) -> bool:
    return target.credential == origin.credential and keeps(target)


def references(body: Json) -> Iterator[Reference]:
    """Yield what a request names that a provider keeps; of its items the last one only."""
    if (previous := body.get(PREVIOUS)) is not None:
        yield Reference(PREVIOUS, previous if isinstance(previous, str) else "")
    if (conversation := body.get("conversation")) is not None:
        named = conversation.get("id") if isinstance(conversation, Mapping) else conversation
        yield Reference("conversation", named if isinstance(named, str) else "")
    if body.get("prompt") is not None:
        yield Reference("prompt")  # an account's, and nobody's conversation
    items = body.get("input")
    for item in reversed(items) if isinstance(items, list) else ():
        if isinstance(item, Mapping) and item.get("type") == "item_reference":
            named = item.get("id")
            yield Reference("input", named if isinstance(named, str) else "")
            return


def _narrowed(ring: Ring, named: Sequence[Reference], origin: Origin | None) -> Ring:
    """Return the ring with no target that cannot know. Raises ResponseUnknown where none can."""

    def may_know(target: Target) -> bool:
        return keeps(target) if origin is None else may_go_on(target, origin)

    groups = _only(ring.groups, may_know)
    if not groups:
        raise _unknown(named[0], why=_why_nobody(ring, origin))
    oversized, content = _only(ring.oversized, may_know), _only(ring.content, may_know)
    return replace(ring, groups=groups, oversized=oversized, content=content)


def _only(groups: tuple[Group, ...], may_know: Callable[[Target], bool]) -> tuple[Group, ...]:
    found = (replace(g, targets=tuple(filter(may_know, g.targets))) for g in groups)
    return tuple(group for group in found if group.targets)


def _why_nobody(ring: Ring, origin: Origin | None) -> str:
    if origin is None:
        return f"no target of {ring.model!r} keeps anything; send the whole conversation as `input`"
    return (
        f"it is kept by {origin.target}, which is not among the targets of {ring.model!r} now; "
        "send the whole conversation as `input`"
    )


@contextmanager
def _alone(origin: Origin | None) -> Iterator[None]:
    """Have a failure of those who know the conversation say why nobody else was asked."""
    try:
        yield
    except EVERYBODY_FAILED as error:
        if origin is not None:
            error.message += f"; the conversation is kept by {origin.target} and known to no other"
        raise


def _unknown(reference: Reference, why: str = "") -> ResponseUnknown:
    kinds = {
        PREVIOUS: (PreviousUnknown, "Previous response"),
        "conversation": (ConversationUnknown, "Conversation"),
        "prompt": (ConversationUnknown, "Prompt"),
    }
    kind, word = kinds.get(reference.param, (ConversationUnknown, "Item"))
    id = f" with id '{_shown(reference.id)}'" if reference.id else ""
    return kind(f"{word}{id} not found{f': {why}' if why else ''}.", param=reference.param)


def _shown(id: str) -> str:
    return id[:SHOWN]


def _target_of(ring: Ring, label: str) -> Target | None:
    groups = (*ring.groups, *ring.oversized, *ring.content)
    targets = (target for group in groups for target in group.targets)
    return next((target for target in targets if target.label == label), None)


def _told(chunk: Chunk) -> tuple[Json, ...]:
    try:
        return chunk.told
    except ValueError:
        return ()  # whoever reads it says so


def _ids_of(response: Any) -> list[str]:
    """Return the ids of a response that its provider keeps: its own, and what belongs to it."""
    if not isinstance(response, Mapping) or response.get("store") is False:
        return []
    output = response.get("output")
    named = (response, response.get("conversation"), *(output if isinstance(output, list) else ()))
    ids = (each.get("id") for each in named if isinstance(each, Mapping))
    return [id for id in ids if isinstance(id, str) and id]
