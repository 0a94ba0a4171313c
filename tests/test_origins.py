"""Which account made a response, and who may go on from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import orjson
import pytest

from proxy.errors import NoTargetAvailable, ProxyError, ResponseUnknown
from proxy.origins import Origins, keeps, references
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.snapshot import Snapshot
from proxy.store.origins import MemoryOrigins
from proxy.types import Call, Lane, Ring, Surface, Tally, Target
from tests.fakes import FakeClock, group, target

WEB, OTHER = "key:web", "key:other"
FIRST = target("first", responses=Lane.DIRECT, credential="account-1")
SECOND = target("second", responses=Lane.DIRECT, credential="account-2")
TWIN = target("twin", responses=Lane.DIRECT, credential="account-2")
CLAUDE = target("claude", provider="anthropic")
RING = Ring("m", (group("m", FIRST), group("spare", CLAUDE, SECOND)), content=(group("c", TWIN),))


class Place:
    """Origins on fakes, and the ring that was asked last."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.origins = Origins([MemoryOrigins(self.clock)], self.clock)
        self.asked: Ring | None = None

    @property
    def labels(self) -> list[str]:
        assert self.asked is not None
        return [target.label for group in self.asked.groups for target in group.targets]

    async def answer(
        self,
        reply: Reply | ProxyError,
        by: Target = FIRST,
        *,
        ring: Ring = RING,
        tenant: str = WEB,
        **body: Any,
    ) -> Reply:
        call = Call("m", False, {"model": "m", "input": "a", **body}, Surface.RESPONSES)
        tally = Tally("r", Surface.RESPONSES, "m", False, 0.0)

        async def ask(narrowed: Ring) -> Reply:
            self.asked = narrowed
            if isinstance(reply, ProxyError):
                raise reply
            tally.target = by.label
            return reply

        return await self.origins.answer(ring, call, tenant, tally, ask)

    async def make(self, by: Target = SECOND, id: str = "resp_1", **body: Any) -> None:
        """Have a response made for WEB."""
        await self.answer(response(id, **body), by)


def response(id: str = "resp_9", **body: Any) -> Completion:
    return Completion(orjson.dumps({"id": id, "object": "response", "output": [], **body}))


def on_a_place(script: Callable[[Place], Any]) -> None:
    asyncio.run(script(Place()))


def test_what_begins_goes_to_anybody() -> None:
    async def script(place: Place) -> None:
        await place.answer(response())
        assert place.asked is RING

    on_a_place(script)


def test_what_goes_on_goes_to_the_account_that_made_it() -> None:
    async def script(place: Place) -> None:
        await place.make(SECOND)
        await place.answer(response(), SECOND, previous_response_id="resp_1")
        assert place.labels == ["second"]
        assert place.asked is not None
        assert [t.label for g in place.asked.content for t in g.targets] == ["twin"]

    on_a_place(script)


def test_a_conversation_and_the_items_of_a_response_are_known_too() -> None:
    items = [{"type": "reasoning", "id": "rs_1"}, {"type": "message", "id": "msg_1"}]

    async def script(place: Place) -> None:
        await place.make(SECOND, conversation={"id": "conv_1"}, output=items)
        for body in (
            {"conversation": "conv_1"},
            {"conversation": {"id": "conv_1"}},
            {"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user"}]},
        ):
            await place.answer(response(), SECOND, **body)
            assert place.labels == ["second"], body

    on_a_place(script)


@pytest.mark.parametrize(
    "named",
    [
        {"previous_response_id": "resp_of_old"},
        {"conversation": "conv_9"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_9"}]},
        {"previous_response_id": 17},
    ],
)
def test_what_nobody_remembers_goes_to_all_who_keep_anything(named: dict[str, Any]) -> None:
    async def script(place: Place) -> None:
        await place.answer(response(), **named)
        assert place.labels == ["first", "second"]
        with pytest.raises(ResponseUnknown, match="send the whole conversation"):
            await place.answer(response(), ring=Ring("m", (group("m", CLAUDE),)), **named)

    on_a_place(script)


@pytest.mark.parametrize(
    ("named", "status", "code"),
    [
        ({"previous_response_id": "resp_1"}, 400, "previous_response_not_found"),
        ({"conversation": "conv_1"}, 404, "conversation_not_found"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, 404, "conversation_not_found"),
    ],
)
def test_nobody_goes_on_from_what_was_made_for_somebody_else(
    named: dict[str, Any], status: int, code: str
) -> None:
    async def script(place: Place) -> None:
        await place.make(conversation={"id": "conv_1"}, output=[{"id": "msg_1"}])
        place.asked = None
        with pytest.raises(ResponseUnknown) as found:
            await place.answer(response(), tenant=OTHER, **named)
        assert (found.value.status, found.value.code) == (status, code)
        assert "second" not in found.value.message
        assert place.asked is None

    on_a_place(script)


def test_where_its_account_is_no_target_of_the_model_nobody_stands_in_for_it() -> None:
    async def script(place: Place) -> None:
        await place.make(SECOND)
        place.asked = None
        for ring in (Ring("m", (group("m", FIRST),)), Ring("m", (group("m", CLAUDE),))):
            with pytest.raises(ResponseUnknown, match=r"kept by second, which is not among"):
                await place.answer(response(), ring=ring, previous_response_id="resp_1")
        assert place.asked is None

    on_a_place(script)


def test_a_target_of_that_account_that_is_asked_by_its_chats_does_not_know_it() -> None:
    chats = target("chats", credential="account-2")

    async def script(place: Place) -> None:
        await place.make(SECOND)
        both = Ring("m", (group("m", chats, SECOND),))
        await place.answer(response(), SECOND, ring=both, previous_response_id="resp_1")
        assert place.labels == ["second"]

    on_a_place(script)


def test_a_failure_of_the_only_one_who_knows_says_so() -> None:
    async def script(place: Place) -> None:
        await place.make(SECOND)
        down = NoTargetAvailable("no target of 'm' is available")
        with pytest.raises(NoTargetAvailable) as found:
            await place.answer(down, previous_response_id="resp_1")
        assert found.value.message.endswith("is kept by second and known to no other")
        down = NoTargetAvailable("no target of 'm' is available")
        with pytest.raises(NoTargetAvailable) as found:
            await place.answer(down, previous_response_id="resp_of_old")
        assert found.value.message == "no target of 'm' is available"

    on_a_place(script)


@pytest.mark.parametrize(
    ("by", "body", "asked"),
    [
        (CLAUDE, {}, {}),
        (FIRST, {"store": False}, {}),
        (FIRST, {}, {"store": False}),
    ],
    ids=["of a target that keeps nothing", "as the response says", "as was asked"],
)
def test_only_what_is_kept_is_remembered(
    by: Target, body: dict[str, Any], asked: dict[str, Any]
) -> None:
    async def script(place: Place) -> None:
        await place.answer(response("resp_1", **body), by, **asked)
        assert await place.origins.find("resp_1") is None

    on_a_place(script)


def test_of_odd_answers_only_ids_are_taken() -> None:
    async def script(place: Place) -> None:
        await place.make(id="", output=[None, {"id": 3}, {}, {"id": "msg_1"}], conversation="c")
        assert await place.origins.find("msg_1") is not None
        await place.answer(Completion(b'{"id": null, "output": {}}'), FIRST)
        many = [{"id": f"msg_{number}"} for number in range(1000)]
        await place.make(id="resp_2", output=many)
        assert await place.origins.find("resp_2") is not None
        assert await place.origins.find("msg_999") is None

    on_a_place(script)


async def events(*said: dict[str, Any]) -> AsyncGenerator[Chunk, None]:
    for each in said:
        yield Chunk.of_events([each])


CREATED = {"type": "response.created", "response": {"id": "resp_1", "output": []}}
DELTA = {"type": "response.output_text.delta", "delta": "t0"}
COMPLETED = {
    "type": "response.completed",
    "response": {"id": "resp_1", "output": [{"id": "msg_1"}]},
}


def test_a_stream_is_known_before_its_first_event_is_read() -> None:
    async def script(place: Place) -> None:
        stream = ChunkStream([Chunk.of_events([CREATED, DELTA])], events(COMPLETED))
        reply = await place.answer(stream, SECOND)
        assert reply is stream
        await place.answer(response(), previous_response_id="resp_1")
        assert place.labels == ["second"]
        assert await place.origins.find("msg_1") is None
        async for _ in stream:
            pass
        assert await place.origins.find("msg_1") is not None

    on_a_place(script)


def test_a_stream_that_cannot_be_read_is_nobody_s() -> None:
    async def script(place: Place) -> None:
        stream = ChunkStream([Chunk.of_payloads([b"["])], events())
        assert await place.answer(stream, SECOND) is stream
        await stream.aclose()

    on_a_place(script)


# Who is asked for a response itself


def test_a_response_is_read_where_it_is_by_whom_it_was_made_for() -> None:
    now = Snapshot(rings={"m": RING, "spare": Ring("spare", (RING.groups[1],))})
    twin = Snapshot(rings={"c": Ring("c", RING.content)})

    async def script(place: Place) -> None:
        await place.make(SECOND)
        assert await place.origins.keeper("resp_1", WEB, now) == SECOND
        # Any other of the same account will do; without one it is gone.
        assert await place.origins.keeper("resp_1", WEB, twin) == TWIN
        with pytest.raises(ResponseUnknown, match="second, which keeps it, is not configured"):
            await place.origins.keeper("resp_1", WEB, Snapshot())
        unset = target("unset", responses=Lane.DIRECT, credential="account-2", missing="KEY")
        with pytest.raises(ResponseUnknown):
            await place.origins.keeper(
                "resp_1", WEB, Snapshot(rings={"m": Ring("m", (group("m", unset),))})
            )

    on_a_place(script)


def test_what_is_another_s_is_as_unknown_as_what_nobody_made() -> None:
    now = Snapshot(rings={"spare": Ring("spare", (RING.groups[1],))})

    async def script(place: Place) -> None:
        await place.make(SECOND)
        told = []
        for id, tenant in (("resp_1", OTHER), ("resp_2", WEB)):
            with pytest.raises(ResponseUnknown) as found:
                await place.origins.keeper(id, tenant, now)
            assert (found.value.status, found.value.code) == (404, "response_not_found")
            told.append(found.value.message.replace(id, "ID"))
        assert told[0] == told[1] == "Response with id 'ID' not found."

    on_a_place(script)


def test_what_is_forgotten_is_unknown() -> None:
    async def script(place: Place) -> None:
        await place.make()
        await place.origins.forget("resp_1")
        assert await place.origins.find("resp_1") is None

    on_a_place(script)


def test_a_target_that_is_asked_by_its_chats_keeps_nothing() -> None:
    assert keeps(FIRST)
    assert not keeps(target("x", lane=Lane.DIRECT, responses=Lane.AS_CHAT))
    assert not keeps(CLAUDE)


def test_a_request_that_names_nothing_refers_to_nothing() -> None:
    for body in ({}, {"input": "a"}, {"input": [1, {"type": "message"}]}, {"prompt": None}):
        assert list(references(body)) == []
