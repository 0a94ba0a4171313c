"""Responses of servers that may have none: found out once in a while, and answered all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest

from proxy.errors import UpstreamFailure
from proxy.replies import Completion
from proxy.retry import Kind
from proxy.types import Call, Lane, Surface, Target
from proxy.upstream.failures import of_response
from proxy.upstream.responding import AGAIN_S, TARGETS, Responding, no_such_address
from proxy.waiting import Waiting
from tests.fakes import Fails, FakeClock, FakeUpstream, Script, target

ASKED = Call("m", False, {"model": "m", "input": "a"}, Surface.RESPONSES)
ANSWER: dict[str, Any] = {"output": []}
NONE = Fails(Kind.MISSING, 404)


class Place:
    def __init__(self, direct: list[Script], bridge: list[Script]) -> None:
        self.clock = FakeClock()
        self.direct = FakeUpstream({"a": direct, "b": direct}, self.clock)
        self.bridge = FakeUpstream({"a": bridge, "b": bridge}, self.clock)
        self.responding = Responding(self.direct, self.bridge, self.clock)

    async def ask(self, to: Target | str = "a") -> Any:
        subject = target(to, lane=Lane.DIRECT) if isinstance(to, str) else to
        waiting = Waiting(self.clock.now)
        reply = await self.responding.call(subject, ASKED, foreign=False, waiting=waiting)
        assert isinstance(reply, Completion)
        return reply.body


def on(place: Place, script: Callable[[Place], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(script(place))


def test_where_there_are_responses_the_bridge_is_not_asked() -> None:
    async def script(place: Place) -> None:
        assert await place.ask() == ANSWER
        assert place.bridge.asked == []

    on(Place([ANSWER], []), script)


def test_where_there_are_none_its_chats_answer_and_nobody_looks_again_for_a_while() -> None:
    async def script(place: Place) -> None:
        for _ in range(3):
            assert await place.ask() == ANSWER
        assert (place.direct.asked, place.bridge.asked) == (["a"], ["a"] * 3)
        place.clock.pass_(AGAIN_S)
        assert await place.ask() == ANSWER
        assert await place.ask() == ANSWER
        assert (place.direct.asked, place.bridge.asked) == (["a", "a"], ["a"] * 5)

    on(Place([NONE, NONE], [ANSWER] * 5), script)


@pytest.mark.parametrize("kind", [Kind.TRANSIENT, Kind.CALLER, Kind.RATE_LIMITED, Kind.DIALECT])
def test_any_other_failure_is_a_failure(kind: Kind) -> None:
    async def script(place: Place) -> None:
        with pytest.raises(UpstreamFailure) as found:
            await place.ask()
        assert found.value.kind is kind
        assert place.bridge.asked == []

    on(Place([Fails(kind, 404)], []), script)


def test_where_there_is_nobody_at_all_it_is_looked_for_again() -> None:
    async def script(place: Place) -> None:
        with pytest.raises(UpstreamFailure):
            await place.ask()
        assert await place.ask() == ANSWER
        assert (place.direct.asked, place.bridge.asked) == (["a", "a"], ["a"])

    on(Place([NONE, ANSWER], [NONE]), script)


def test_a_failure_of_its_chats_is_no_reason_to_look_again() -> None:
    async def script(place: Place) -> None:
        with pytest.raises(UpstreamFailure):
            await place.ask()
        assert await place.ask() == ANSWER
        assert (place.direct.asked, place.bridge.asked) == (["a"], ["a", "a"])

    on(Place([NONE], [Kind.TRANSIENT, ANSWER]), script)


def test_one_target_says_nothing_of_another_and_few_are_remembered() -> None:
    async def script(place: Place) -> None:
        await place.ask("a")
        await place.ask("b")
        assert place.bridge.asked == ["a"]
        for number in range(TARGETS + 1):
            name = f"t{number}"
            place.direct._scripts[name] = iter([NONE, NONE])
            place.bridge._scripts[name] = iter([ANSWER, ANSWER])
            await place.ask(name)
        await place.ask("t0")
        await place.ask(f"t{TARGETS}")
        assert place.direct.asked[-1] == "t0"

    place = Place([], [])
    place.direct = FakeUpstream({"a": [NONE], "b": [ANSWER]}, place.clock)
    place.bridge = FakeUpstream({"a": [ANSWER]}, place.clock)
    place.responding = Responding(place.direct, place.bridge, place.clock)
    on(place, script)


def refusal(status: int, body: object) -> UpstreamFailure:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return of_response(status, {}, raw, now_s=0.0)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"detail": "Not Found"}),  # FastAPI, so vLLM and many others
        (404, b"404 page not found"),  # Go
        (404, b""),
        (404, b"<html><h1>404 Not Found</h1></html>"),
        (404, {"error": {"message": "Invalid URL (POST /v1/responses)", "code": None}}),
        (404, {"error": {"code": 404, "message": "File Not Found", "type": "not_found_error"}}),
        (404, {"message": "no Route matched with those values"}),  # Kong
        (405, {"detail": "Method Not Allowed"}),
        (501, b""),
    ],
)
def test_an_address_that_is_not_there_is_told_by_what_servers_say(
    status: int, body: object
) -> None:
    assert no_such_address(refusal(status, body))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}),
        (404, {"error": {"message": "No such thing", "code": "DeploymentNotFound"}}),
        (404, {"error": {"message": 'model "x" not found, try pulling it first'}}),
        (404, {"error": {"message": "Response with id 'resp_1' not found."}}),
        (400, {"error": {"message": "Not Found"}}),
        (500, b""),
        (301, b""),
    ],
)
def test_what_is_said_of_a_model_or_an_id_is_not_about_the_address(
    status: int, body: object
) -> None:
    assert not no_such_address(refusal(status, body))
