"""POST /v1/chat/completions: whole answers, streams, and errors in their stead."""

from __future__ import annotations

import orjson
import pytest

from proxy.errors import NoTargetAvailable, RateLimited, UpstreamFailure
from proxy.replies import Completion, Reply
from proxy.retry import Kind
from proxy.types import Call, Caller, Tally
from tests.api.fakes import (
    CHAT,
    COMPLETION,
    STREAMED,
    Client,
    Edge,
    Upstream,
    events,
    fails,
    replies,
    snapshot,
)

pytestmark = pytest.mark.anyio


async def test_a_completion_goes_out_byte_for_byte() -> None:
    client = await Edge(replies(COMPLETION)).post().run()
    assert client.status == 200
    assert client.headers["content-type"] == "application/json"
    assert client.headers["content-length"] == str(len(COMPLETION.raw))
    assert client.bodies == [COMPLETION.raw]


async def test_both_addresses_answer() -> None:
    edge = Edge(replies(COMPLETION))
    client = edge.post()
    client._scope["path"] = "/chat/completions"
    assert (await client.run()).status == 200


async def test_what_the_gateway_knows_stands_in_the_headers() -> None:
    edge: Edge

    async def serve(call: Call, tally: Tally) -> Reply:
        tally.target = "gpt/openai/gpt-4o"
        tally.trail += ["claude/anthropic/sonnet:429", "gpt/openai/gpt-4o:200"]
        tally.cache = "miss"
        edge.clock.now_s += 2.5
        tally.upstream_s, tally.waits_s = 2.0, 0.25
        headers = {"x-ratelimit-remaining-tokens": "17", "openai-organization": "secret-org"}
        return Completion(b"{}", headers=headers, dropped=("seed", "logit_bias"))

    edge = Edge(serve)
    headers = (await edge.post(x_request_id="abc.1").run()).headers
    assert headers["x-request-id"] == "abc.1"
    assert headers["x-mobius-target"] == "gpt/openai/gpt-4o"
    assert headers["x-mobius-attempts"] == "claude/anthropic/sonnet:429,gpt/openai/gpt-4o:200"
    assert headers["x-mobius-cache"] == "miss"
    assert headers["x-mobius-overhead-ms"] == "250.000"
    assert headers["x-mobius-dropped"] == "seed,logit_bias"
    assert headers["x-ratelimit-remaining-tokens"] == "17"
    assert "openai-organization" not in headers


async def test_an_error_is_an_envelope_with_the_same_headers() -> None:
    error = RateLimited("too many", retry_after_s=1.2, should_retry=False)
    client = await Edge(fails(error)).post().run()
    assert client.status == 429
    assert client.error == {
        "message": "too many",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
    }
    assert client.headers["retry-after"] == "2"
    assert client.headers["retry-after-ms"] == "1200"
    assert client.headers["x-should-retry"] == "false"
    assert client.headers["x-request-id"].startswith("req_")
    assert client.headers["x-mobius-cache"] == "bypass"


async def test_a_fault_of_ours_says_nothing() -> None:
    edge = Edge(fails(ValueError("sk-secret at http://10.0.0.1")))
    client = await edge.post().run()
    assert client.status == 500
    assert client.error["message"] == "internal error"
    assert client.error["code"] == "internal_error"
    assert b"sk-secret" not in b"".join(edge.log_lines)
    assert b"ValueError" in edge.log_lines[0]


async def test_each_chunk_is_one_message_and_done_ends_the_stream() -> None:
    source = Upstream(b'{"n":1}', b'{"n":2}')
    client = await Edge(replies(source.stream)).post(STREAMED).run()
    assert client.status == 200
    assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert client.headers["cache-control"] == "no-cache"
    assert client.headers["x-accel-buffering"] == "no"
    assert client.bodies == [b'data: {"n":1}\n\n', b'data: {"n":2}\n\n', b"data: [DONE]\n\n"]
    assert [message["more_body"] for message in client.sent[1:]] == [True, True, False]
    assert (source.closed, source.settled) == (1, 1)


async def test_a_stream_that_never_began_is_a_plain_error() -> None:
    client = await Edge(fails(NoTargetAvailable("all down"))).post(STREAMED).run()
    assert client.status == 503
    assert client.headers["content-type"] == "application/json"


async def test_a_stream_that_breaks_ends_with_an_error_event_and_without_done() -> None:
    failure = UpstreamFailure("the stream broke", kind=Kind.BROKEN)
    source = Upstream(b'{"n":1}', failure, b'{"n":2}')
    client = await Edge(replies(source.stream)).post(STREAMED).run()
    assert events(client.bodies)[1:] == [
        {
            "error": {
                "message": "the stream broke",
                "type": "server_error",
                "param": None,
                "code": "upstream_error",
            }
        }
    ]
    assert b"[DONE]" not in b"".join(client.bodies)
    assert client.sent[-1]["more_body"] is False
    assert (source.closed, source.settled) == (1, 1)


async def test_a_provider_s_words_in_a_stream_are_passed_on() -> None:
    failure = UpstreamFailure(
        "in-band", kind=Kind.BROKEN, provider_message="over\udc00loaded", provider_code="x1"
    )
    client = await Edge(replies(Upstream(b"{}", failure).stream)).post(STREAMED).run()
    error = events(client.bodies)[1]["error"]
    assert (error["message"], error["code"]) == ("over?loaded", "x1")


async def test_a_fault_of_ours_within_a_stream_says_nothing() -> None:
    source = Upstream(b'{"n":1}', KeyError("sk-secret"))
    client = await Edge(replies(source.stream)).post(STREAMED).run()
    assert events(client.bodies)[1]["error"]["code"] == "internal_error"
    assert b"sk-secret" not in b"".join(client.bodies)
    assert source.settled == 1


async def test_the_body_reaches_the_gateway_without_what_was_meant_for_us() -> None:
    edge = Edge(replies(COMPLETION))
    wishes = {"num_retries": 0, "timeout": 2, "fallbacks": ["claude"], "cache": {"ttl": 1}}
    await edge.post({**CHAT, **wishes, "top_k": 5}).run()
    [call] = edge.gateway.calls
    assert call.body == {**CHAT, "top_k": 5}
    assert call.wishes.num_retries == 0
    assert call.wishes.timeout_s == 2.0
    assert call.wishes.fallbacks == ("claude",)
    assert edge.gateway.callers == ["anonymous"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "outcome", "caller"),
    [
        (b"{", {"authorization": "Bearer sk-web"}, 400, "invalid_request_error", "web"),
        (CHAT, {}, 401, "invalid_api_key", "none"),
        (CHAT, {"x_long": "a" * 2048}, 431, "request_headers_too_large", "none"),
    ],
)
async def test_a_request_that_never_reached_the_gateway_has_its_line_too(
    body: object, headers: dict[str, str], status: int, outcome: str, caller: str
) -> None:
    callers = {"sk-web": Caller("web")}
    edge = Edge(replies(COMPLETION), snapshot(callers=callers, limits={"header_kb": 1}))
    client = await edge.post(body, x_request_id="abc", **headers).run()
    [line] = [orjson.loads(line) for line in edge.log_lines]
    assert client.status == line["status"] == status
    assert (line["event"], line["outcome"], line["caller"]) == ("request", outcome, caller)
    assert (line["request_id"], line["model"]) == ("abc", "unknown")


async def test_a_client_that_leaves_before_its_body_is_here_has_its_line_too() -> None:
    edge = Edge(replies(COMPLETION))
    client = Client(edge.app, pieces=[])
    client.leave()
    await client.run()
    [line] = [orjson.loads(line) for line in edge.log_lines]
    assert (line["outcome"], client.sent) == ("cancelled", [])


async def test_the_line_of_what_the_gateway_has_seen_is_the_gateway_s() -> None:
    edge = Edge(fails(NoTargetAvailable("all down")))
    await edge.post().run()
    assert edge.log_lines == []


async def test_a_model_has_no_name_of_ours_until_the_gateway_knows_it() -> None:
    models: list[str] = []

    async def serve(call: Call, tally: Tally) -> Reply:
        models.append(tally.model)
        return COMPLETION

    await Edge(serve).post({**CHAT, "model": "invented"}).run()
    assert models == ["unknown"]


async def test_a_whole_answer_to_a_stream_that_was_announced_is_an_error_event() -> None:
    edge: Edge

    async def serve(call: Call, tally: Tally) -> Reply:
        await edge.clock.advance(15)
        await client.has(2)
        return COMPLETION

    edge = Edge(serve)
    client = edge.post(STREAMED)
    await client.run()
    assert client.bodies[0] == b": keepalive\n\n"
    assert events(client.bodies)[0]["error"]["code"] == "internal_error"


KEPT = Completion(b'data: {"n":1}\n\ndata: [DONE]\n\n', streamed=True)


async def test_a_stream_that_is_kept_goes_out_in_one_piece() -> None:
    client = await Edge(replies(KEPT)).post(STREAMED).run()
    assert client.status == 200
    assert client.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert client.headers["content-length"] == str(len(KEPT.raw))
    assert client.bodies == [KEPT.raw]
    assert [message["more_body"] for message in client.sent[1:]] == [False]


async def test_a_stream_that_is_kept_ends_one_that_was_announced() -> None:
    edge: Edge

    async def serve(call: Call, tally: Tally) -> Reply:
        await edge.clock.advance(15)
        await client.has(2)
        return KEPT

    edge = Edge(serve)
    client = edge.post(STREAMED)
    await client.run()
    assert "content-length" not in client.headers
    assert client.bodies == [b": keepalive\n\n", KEPT.raw]
    assert [message["more_body"] for message in client.sent[1:]] == [True, False]
