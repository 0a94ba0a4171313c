"""The addresses of responses that are kept: what goes on to their provider, and what does not."""

from __future__ import annotations

import asyncio

import pytest

from proxy.errors import ResponseUnknown, UpstreamFailure
from proxy.retry import Kind
from proxy.types import Caller
from tests.api.fakes import COMPLETION, Edge, Upstream, replies, snapshot

pytestmark = pytest.mark.anyio

KEYS = {"sk-web": Caller("web")}


def edge() -> Edge:
    return Edge(replies(COMPLETION), snapshot("gpt", callers=KEYS))


@pytest.mark.parametrize("root", ["/v1", ""])
@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        ("GET", "/responses/resp_1", ("GET", "resp_1", ())),
        ("HEAD", "/responses/resp_1", ("GET", "resp_1", ())),
        ("DELETE", "/responses/resp_1", ("DELETE", "resp_1", ())),
        ("GET", "/responses/resp_1/input_items", ("GET", "resp_1", ("input_items",))),
        ("POST", "/responses/resp_1/cancel", ("POST", "resp_1", ("cancel",))),
        # LiteLLM's own proxy makes such ids.
        ("GET", "/responses/resp_bGl0+ZWxs=.-x", ("GET", "resp_bGl0+ZWxs=.-x", ())),
    ],
)
async def test_each_address_is_passed_on(
    root: str, method: str, path: str, asked: tuple[str, str, tuple[str, ...]]
) -> None:
    place = edge()
    found = await place.get(root + path, method, authorization="Bearer sk-web").run()
    assert (found.status, found.json) == (200, {"id": "resp_1"})
    assert place.shelved == [(*asked, (), "web")]


async def test_the_query_goes_on_as_it_came_and_not_without_bounds() -> None:
    place = edge()
    path = "/v1/responses/resp_1?include[]=a%20b&include[]=c&limit=3&" + "x=y&" * 100
    assert (await place.get(path, authorization="Bearer sk-web").run()).status == 200
    (asked,) = place.shelved
    assert asked[3][:3] == (("include[]", "a b"), ("include[]", "c"), ("limit", "3"))
    assert len(asked[3]) == 20


@pytest.mark.parametrize("id", ["a" * 513, "-resp", "resp 1", "resp\u00e9", "resp?x", ".."])
async def test_what_cannot_be_an_id_goes_nowhere(id: str) -> None:
    place = edge()
    client = place.get("/v1/responses/x", authorization="Bearer sk-web")
    client._scope["path"] = f"/v1/responses/{id}"
    found = await client.run()
    assert (found.status, found.error["code"]) == (404, "response_not_found")
    assert place.shelved == []


async def test_its_events_are_told_one_after_the_other() -> None:
    place = edge()
    place.followed = Upstream(b'{"sequence_number": 8}', b'{"sequence_number": 9}')
    path = "/v1/responses/resp_1?stream=true&starting_after=7"
    found = await place.get(path, authorization="Bearer sk-web").run()
    assert found.status == 200
    assert found.headers["content-type"].startswith("text/event-stream")
    assert b"".join(found.bodies).count(b"data: ") == 2
    query = (("stream", "true"), ("starting_after", "7"))
    assert place.shelved == [("follow", "resp_1", (), query, "web")]
    assert (place.followed.closed, place.followed.settled, place.drain.in_flight) == (1, 1, 0)
    assert (await place.get("/v1/responses/resp_1?stream=true").run()).status == 401


async def test_events_that_break_end_with_an_error() -> None:
    place = edge()
    broken = UpstreamFailure("the stream stalled", kind=Kind.BROKEN)
    place.followed = Upstream(b'{"sequence_number": 8}', broken)
    path = "/v1/responses/resp_1?stream=true"
    found = await place.get(path, authorization="Bearer sk-web").run()
    assert (
        b'event: error\ndata: {"type":"error","sequence_number":9'
        in found.bodies[-2] + (found.bodies[-1])
    )
    place.shelf_error = ResponseUnknown("Response with id 'resp_1' not found.")
    found = await place.get(path, authorization="Bearer sk-web").run()
    assert (found.status, found.error["code"]) == (404, "response_not_found")


async def test_who_leaves_ends_them() -> None:
    place = edge()
    place.followed = Upstream(b'{"sequence_number": 8}', asyncio.Event())
    client = place.get("/v1/responses/resp_1?stream=true", authorization="Bearer sk-web")
    task = client.start()
    await place.followed.silent.wait()
    client.leave()
    await task
    assert (place.followed.closed, place.followed.settled, place.drain.in_flight) == (1, 1, 0)


async def test_without_a_key_nothing_is_looked_up() -> None:
    place = edge()
    assert (await place.get("/v1/responses/resp_1").run()).status == 401
    assert place.shelved == []


async def test_what_is_not_there_is_told_in_openai_s_form() -> None:
    place = edge()
    place.shelf_error = ResponseUnknown("Response with id 'resp_1' not found.")
    found = await place.get("/v1/responses/resp_1", authorization="Bearer sk-web").run()
    assert found.status == 404
    assert found.error == {
        "message": "Response with id 'resp_1' not found.",
        "type": "invalid_request_error",
        "param": None,
        "code": "response_not_found",
    }


async def test_a_server_that_is_full_says_so_here_too() -> None:
    place = Edge(replies(COMPLETION), snapshot("gpt", callers=KEYS, limits={"in_flight": 1}))
    async with place.drain.enter(1):
        found = await place.get("/v1/responses/resp_1", authorization="Bearer sk-web").run()
    assert (found.status, found.error["code"]) == (503, "server_is_overloaded")
    assert place.drain.in_flight == 0
