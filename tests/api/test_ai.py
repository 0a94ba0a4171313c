"""POST /ai/generate and /ai/stream: what a reply and a failure look like in their form."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from proxy.errors import (
    BudgetSpent,
    DeadlineExceeded,
    LimitReached,
    NoTargetAvailable,
    ProviderAuthFailed,
    ProxyError,
    RateLimited,
    Refused,
    UpstreamFailure,
)
from proxy.replies import Completion, Reply
from proxy.retry import Kind
from proxy.types import Call, Caller, Surface, Tally, Usage
from tests.api.fakes import Client, Edge, Serve, Upstream, events, fails, replies, snapshot

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "hi"}]
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def asked(script: Serve, path: str = "/ai/generate", body: object = MESSAGES) -> Client:
    edge = Edge(script, snapshot("chat"))
    client = edge.post(body, x_request_id="abc")
    client._scope["path"] = path
    return client


def answers(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> Completion:
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return Completion(orjson.dumps({"model": "gpt-4o-x", "choices": choices, **more}))


def by(provider: str, reply: Reply) -> Serve:
    async def serve(call: Call, tally: Tally) -> Reply:
        tally.provider = provider
        return reply

    return serve


def piece(delta: dict[str, Any], finish: str | None = None, index: int = 0) -> bytes:
    return orjson.dumps({"choices": [{"index": index, "delta": delta, "finish_reason": finish}]})


async def lines(*pieces: bytes | Exception) -> list[dict[str, Any]]:
    client = await asked(by("openai", Upstream(*pieces).stream), "/ai/stream").run()
    assert b"[DONE]" not in b"".join(client.bodies)
    found: list[dict[str, Any]] = events(client.bodies)
    return found


def line(delta: str, kind: str = "content.delta", finish: str | None = None, **more: Any) -> Any:
    fields = {"delta": delta, "type": kind, "provider": "openai", "finish_reason": finish}
    return {**fields, **more}


async def test_a_whole_answer_is_one_flat_object() -> None:
    edge: Edge

    async def serve(call: Call, tally: Tally) -> Reply:
        assert tally.surface is Surface.AI
        tally.provider = "anthropic"
        edge.clock.now_s += 0.41
        return answers({"role": "assistant", "content": "Hello"}, usage=COUNTS)

    edge = Edge(serve, snapshot("chat"))
    client = edge.post(MESSAGES, x_request_id="abc")
    client._scope["path"] = "/ai/generate"
    await client.run()
    assert (client.status, client.headers["content-type"]) == (200, "application/json")
    assert client.headers["content-length"] == str(len(client.bodies[0]))
    assert client.json == {
        "content": "Hello",
        "provider": "anthropic",
        "model": "gpt-4o-x",
        "usage": COUNTS,
        "latency": 0.41,
        "request_id": "abc",
        "finish_reason": "completed",
    }


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("stop", "completed"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("tool_calls", "tool_calls"),
        ("function_call", "tool_calls"),
        ("odd", "odd"),
        (None, None),
    ],
)
async def test_how_an_answer_ended_is_told(told: str | None, shown: str | None) -> None:
    client = await asked(replies(answers({"content": "x"}, told))).run()
    assert client.json["finish_reason"] == shown
    if told is not None:
        assert (await lines(piece({"content": "x"}), piece({}, told)))[-1] == line(
            "", "content.done", shown
        )


async def test_what_is_no_content_stands_beside_it() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"content": None, "tool_calls": calls, "reasoning_content": "hm", "refusal": "no"}
    answer = (await asked(replies(answers(message, "tool_calls"))).run()).json
    assert answer["content"] == ""
    assert (answer["tool_calls"], answer["reasoning"], answer["refusal"]) == (calls, "hm", "no")


async def test_an_older_call_of_a_function_is_a_call_of_a_tool() -> None:
    called = {"name": "f", "arguments": "{}"}
    message = {"content": None, "function_call": called}
    answer = (await asked(replies(answers(message, "function_call"))).run()).json
    assert answer["tool_calls"] == [{"index": 0, "type": "function", "function": called}]


async def test_content_in_parts_is_joined_and_thoughts_are_none() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "Hel"},
        {"type": "text", "text": "lo"},
        7,
    ]
    answer = (await asked(replies(answers({"content": parts}))).run()).json
    assert (answer["content"], answer["reasoning"]) == ("Hello", "hm")
    assert await lines(piece({"content": parts}), piece({}, "stop")) == [
        line("", "reasoning.delta", reasoning="hm"),
        line("Hello"),
        line("", "content.done", "completed"),
    ]


async def test_tokens_that_no_provider_counted_are_counted_by_us() -> None:
    async def serve(call: Call, tally: Tally) -> Reply:
        tally.usage = Usage(3, 2, estimated=True)
        return answers({"content": "x"})

    assert (await asked(serve).run()).json["usage"] == COUNTS
    assert (await asked(replies(answers({"content": "x"}))).run()).json["usage"] is None


async def test_an_answer_without_choices_is_an_empty_one() -> None:
    answer = (await asked(replies(Completion(b'{"choices":[null],"usage":7}'))).run()).json
    assert (answer["content"], answer["model"], answer["usage"]) == ("", None, None)


async def test_an_answer_that_was_kept_is_of_the_provider_that_once_made_it() -> None:
    async def serve(call: Call, tally: Tally) -> Reply:
        tally.provider, tally.kept_of, tally.cache = "cache", "anthropic", "hit"
        return answers({"content": "x"})

    client = await asked(serve).run()
    assert client.json["provider"] == "anthropic"
    assert client.headers["x-mobius-cache"] == "hit"


async def test_a_stream_is_a_line_for_each_piece_and_one_that_ends_it() -> None:
    source = Upstream(
        piece({"role": "assistant", "content": ""}),
        piece({"content": "Hi"}),
        piece({"content": " you"}),
        piece({}, "stop"),
        orjson.dumps({"choices": [], "usage": COUNTS}),
    )
    client = await asked(by("openai", source.stream), "/ai/stream").run()
    assert client.status == 200
    assert client.headers["content-type"].split(";")[0] == "text/event-stream"
    assert b"".join(client.bodies) == (
        b'data: {"delta":"Hi","type":"content.delta","provider":"openai","finish_reason":null}\n\n'
        b'data: {"delta":" you","type":"content.delta","provider":"openai","finish_reason":null}'
        b'\n\ndata: {"delta":"","type":"content.done","provider":"openai",'
        b'"finish_reason":"completed"}\n\n'
    )
    assert (source.closed, source.settled) == (1, 1)


async def test_the_deltas_of_a_stream_are_its_content_and_nothing_else() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    found = await lines(
        piece({"reasoning_content": "hm", "reasoning": "hm"}),
        piece({"content": "a"}),
        piece({"refusal": "no"}),
        piece({"tool_calls": [call]}),
        piece({"content": "other choice"}, index=1),
        piece({"content": "b"}, "tool_calls"),
    )
    assert found == [
        line("", "reasoning.delta", reasoning="hm"),
        line("a"),
        line("", "refusal.delta", refusal="no"),
        line("", "tool_calls.delta", tool_calls=[call]),
        line("b"),
        line("", "content.done", "tool_calls"),
    ]
    assert "".join(each["delta"] for each in found) == "ab"


async def test_a_stream_that_breaks_ends_with_an_error_and_is_not_done() -> None:
    failure = UpstreamFailure("the stream broke", kind=Kind.BROKEN, provider_message="in-band")
    assert await lines(piece({"content": "a"}), failure) == [line("a"), {"error": "in-band"}]


async def test_a_fault_of_ours_within_a_stream_says_nothing() -> None:
    assert await lines(piece({"content": "a"}), KeyError("sk-secret")) == [
        line("a"),
        {"error": "internal error"},
    ]


@pytest.mark.parametrize("path", ["/ai/generate", "/ai/stream"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NoTargetAvailable("down", retry_after_s=3), 503, "no_target_available"),
        (RateLimited("limited", retry_after_s=3), 503, "rate_limit_exceeded"),
        (ProviderAuthFailed("keys"), 503, "provider_auth_error"),
        (DeadlineExceeded("late"), 503, "deadline_exceeded"),
        (UpstreamFailure("broke", kind=Kind.BROKEN), 503, "upstream_error"),
        (LimitReached("yours"), 429, "rate_limit_exceeded"),
        (BudgetSpent("yours"), 429, "insufficient_quota"),
        (
            Refused(UpstreamFailure("bad", kind=Kind.CALLER, provider_code="x"), status=422),
            *(422, "x"),
        ),
    ],
)
async def test_all_providers_failing_is_a_503_and_all_else_is_as_it_was(
    path: str, error: ProxyError, status: int, code: str
) -> None:
    client = await asked(fails(error), path).run()
    assert (client.status, client.error["code"]) == (status, code)
    assert client.headers["content-type"] == "application/json"
    assert ("retry-after" in client.headers) is (error.retry_after_s is not None)


@pytest.mark.parametrize("path", ["/ai/generate", "/ai/stream"])
async def test_a_request_of_another_form_is_an_envelope(path: str) -> None:
    client = await asked(fails(AssertionError()), path, [{"role": "user"}, "hi"]).run()
    assert client.status == 400
    assert client.error == {
        "message": "`messages[1]` must be an object",
        "type": "invalid_request_error",
        "param": "messages[1]",
        "code": None,
    }


async def test_a_key_is_needed_where_there_are_keys() -> None:
    edge = Edge(fails(AssertionError()), snapshot("chat", callers={"sk-web": Caller("web")}))
    for path in ("/ai/generate", "/ai/stream"):
        client = edge.post(MESSAGES)
        client._scope["path"] = path
        assert (await client.run()).status == 401
    assert (await edge.get("/ai/providers/health").run()).status == 401


@pytest.mark.parametrize("fails_late", [False, True])
async def test_a_stream_that_waits_is_kept_and_may_still_fail(fails_late: bool) -> None:
    edge: Edge

    async def serve(call: Call, tally: Tally) -> Reply:
        await edge.clock.advance(15)
        await client.has(2)
        tally.provider = "openai"
        if fails_late:
            raise NoTargetAvailable("all down")
        return Upstream(piece({"content": "a"}), piece({}, "stop")).stream

    edge = Edge(serve, snapshot("chat"))
    client = edge.post(MESSAGES)
    client._scope["path"] = "/ai/stream"
    await client.run()
    assert (client.status, client.bodies[0]) == (200, b": keepalive\n\n")
    done = [line("a"), line("", "content.done", "completed")]
    assert events(client.bodies) == ([{"error": "all down"}] if fails_late else done)
    assert client.sent[-1]["more_body"] is False


async def test_a_client_that_leaves_a_silent_stream_closes_it() -> None:
    source = Upstream(piece({"content": "a"}), asyncio.Event())
    client = asked(by("openai", source.stream), "/ai/stream")
    request = client.start()
    await source.silent.wait()
    client.leave()
    await request
    assert (source.closed, source.settled) == (1, 1)
    assert events(client.bodies) == [line("a")]
