"""Responses over chats: what a chat is asked with, and who is asked for a chat at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.replies import ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.types import Call, Json, Lane, Surface, Target
from proxy.upstream import Upstream
from proxy.upstream.bridge import chat_of
from proxy.upstream.lanes import Providers
from tests.providers import Answer, Breaks, Fails, FakeOpenAI, Usage
from tests.upstream.test_unified import MB, target_of, watched

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object"}}


class Lanes:
    def __init__(self, provider: FakeOpenAI, runner: asyncio.Runner) -> None:
        self.provider, self.runner = provider, runner
        self.providers = Providers(SystemClock())
        self.litellm = runner.run(self._ready())
        self.lanes: Upstream = self.providers.lanes(lambda: MB)

    async def _ready(self) -> Any:
        return await self.providers.sdk.ready()

    def ask(self, target: Target, **body: Any) -> Reply:
        return self.runner.run(self._ask(target, call_of(**body)))

    async def _ask(self, target: Target, call: Call) -> Reply:
        reply = await self.lanes.call(target, call, foreign=False, waiting=watched())
        if isinstance(reply, ChunkStream):
            async for _ in reply:
                pass
        return reply


def call_of(**body: Any) -> Call:
    body = {"model": "m", "input": "hello", **body}
    return Call("m", body.get("stream") is True, body, surface=Surface.RESPONSES)


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    with asyncio.Runner() as runner, FakeOpenAI() as provider:
        subject = Lanes(provider, runner)
        yield subject
        runner.run(subject.providers.aclose())


@pytest.fixture(autouse=True)
def fresh(lanes: Lanes) -> None:
    lanes.provider.reset_script()
    lanes.provider.journal.clear()


def asked(lanes: Lanes, **body: Any) -> tuple[Json, tuple[str, ...]]:
    chat, dropped = chat_of(lanes.litellm, target_of("groq", "http://x"), call_of(**body))
    assert chat.surface is Surface.CHAT
    return {k: v for k, v in chat.body.items() if k != "model"}, dropped


def test_a_request_becomes_a_chat(lanes: Lanes) -> None:
    body, dropped = asked(
        lanes,
        instructions="be brief",
        max_output_tokens=20,
        temperature=0.5,
        tools=[FUNCTION],
        tool_choice={"type": "function", "name": "look"},
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": {"type": "json_schema", "name": "s", "schema": {}, "strict": True}},
    )
    assert dropped == ()
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hello"},
    ]
    assert (body["max_tokens"], body["temperature"], body["reasoning_effort"]) == (20, 0.5, "low")
    assert body["tools"][0]["function"]["name"] == "look"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "look"}}
    assert body["response_format"]["json_schema"]["name"] == "s"


def test_what_was_said_by_items_is_said_by_messages(lanes: Lanes) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "what is it?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "a"},
        {"type": "function_call_output", "call_id": "c2", "output": "b"},
        {"role": "developer", "content": "go on"},
    ]
    body, _ = asked(lanes, input=items, tools=[FUNCTION])
    said = body["messages"]
    assert [each["role"] for each in said] == ["user", "assistant", "tool", "tool", "developer"]
    assert said[1]["reasoning_content"] == "hm"
    assert [each["id"] for each in said[1]["tool_calls"]] == ["c1", "c2"]
    assert [each["tool_call_id"] for each in said[2:4]] == ["c1", "c2"]


@pytest.mark.parametrize(
    ("body", "dropped"),
    [
        ({"store": True, "include": [], "truncation": "disabled", "top_logprobs": 0}, ()),
        ({"truncation": "auto"}, ("truncation",)),
        ({"max_tool_calls": 3, "tomorrow": 1}, ("max_tool_calls", "tomorrow")),
        ({"tools": [FUNCTION, {"type": "code_interpreter"}]}, ("tools",)),
        ({"tool_choice": {"type": "file_search"}}, ("tool_choice",)),
    ],
)
def test_what_a_chat_has_no_word_for_is_named(
    lanes: Lanes, body: Json, dropped: tuple[str, ...]
) -> None:
    assert asked(lanes, **body)[1] == dropped
    if dropped:
        strict = replace(target_of("groq", "http://x"), drop_params=False)
        with pytest.raises(UpstreamFailure) as found:
            chat_of(lanes.litellm, strict, call_of(**body))
        assert found.value.kind is Kind.DIALECT


@pytest.mark.parametrize(
    "body",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"background": True},
    ],
)
def test_another_question_is_never_asked_in_its_place(lanes: Lanes, body: Json) -> None:
    with pytest.raises(UpstreamFailure) as found:
        lanes.ask(target_of("groq", lanes.provider.base_url), **body)
    assert found.value.kind is Kind.DIALECT
    assert len(lanes.provider.journal) == 0


def test_the_caller_s_own_body_is_left_alone(lanes: Lanes) -> None:
    body = {"input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}]}
    call = call_of(**body, tools=[FUNCTION])
    before = repr(call.body)
    chat_of(lanes.litellm, target_of("anthropic", "http://x"), call)
    assert repr(call.body) == before


@pytest.mark.parametrize(
    ("provider", "params", "bound"),
    [
        ("openai", {"api_base": "http://x"}, "max_tokens"),
        ("openai", {"api_base": None}, "max_completion_tokens"),
        ("azure", {"api_version": "1"}, "max_completion_tokens"),
        ("groq", {}, "max_tokens"),
    ],
)
def test_an_answer_is_bound_by_what_the_target_takes(
    lanes: Lanes, provider: str, params: dict[str, Any], bound: str
) -> None:
    target = replace(target_of(provider, "http://x"), params=params)
    chat, _ = chat_of(lanes.litellm, target, call_of(max_output_tokens=20))
    bounds = ("max_tokens", "max_completion_tokens")
    assert {name: chat.body[name] for name in bounds if name in chat.body} == {bound: 20}


@pytest.mark.parametrize(
    "body",
    [
        {"input": [3]},
        {"tools": 3},
        {"text": "json"},
        {"tool_choice": {"type": ["function"]}},
        {"reasoning": "much"},
        {"metadata": 3, "instructions": [3]},
    ],
)
def test_nonsense_is_no_fault_of_the_target_s(lanes: Lanes, body: Json) -> None:
    kinds: set[Kind] = set()
    try:
        lanes.ask(target_of("groq", lanes.provider.base_url), **body)
    except UpstreamFailure as failure:
        kinds.add(failure.kind)
    assert kinds <= {Kind.DIALECT, Kind.CALLER}


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_an_answer_of_another_form_is_a_failure(lanes: Lanes, stream: bool) -> None:
    odd = {"index": 0, "delta": {"annotations": 3, "content": "x"}, "finish_reason": "stop"}
    body = {"choices": [{**odd, "message": odd["delta"]}], "model": "x"}
    raw = json.dumps(body).encode()
    lanes.provider.script(
        Answer(raw_body=b"data: %s\n\n" % raw, content_type="text/event-stream")
        if stream
        else Answer(raw_body=raw)
    )
    direct = replace(target_of("openai", lanes.provider.base_url), lane=Lane.DIRECT)
    with pytest.raises(UpstreamFailure):
        lanes.ask(direct, stream=stream)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_what_the_chat_leaves_out_is_named_in_the_caller_s_words(
    lanes: Lanes, stream: bool
) -> None:
    asked = {"reasoning": {"effort": "low"}, "max_tool_calls": 3, "stream": stream}
    reply = lanes.ask(target_of("groq", lanes.provider.base_url), **asked)
    assert set(reply.dropped) >= {"max_tool_calls"}
    assert "reasoning_effort" not in reply.dropped
    assert reply.leeways


def test_an_answer_is_told_with_what_was_asked_and_what_it_took(lanes: Lanes) -> None:
    lanes.provider.script(Answer(text="so", reasoning="hm", usage=Usage(70, 30, 20, 10)))
    tools = [FUNCTION]
    reply = lanes.ask(target_of("groq", lanes.provider.base_url), tools=tools, temperature=0.5)
    assert isinstance(reply, Completion)
    body = reply.body
    assert [item["type"] for item in body["output"]] == ["reasoning", "message"]
    assert (body["store"], body["temperature"], body["status"]) == (False, 0.5, "completed")
    assert body["id"].startswith("resp_")
    usage = GRAMMARS[Surface.RESPONSES].usage(body, None)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (70, 30)
    assert (usage.cached_tokens, usage.reasoning_tokens) == (20, 10)


@pytest.mark.parametrize("provider", ["groq", "openai"])
def test_a_chat_that_breaks_is_no_whole_answer(lanes: Lanes, provider: str) -> None:
    lanes.provider.script(Breaks(2, how="ends"))
    with pytest.raises(UpstreamFailure) as found:
        lanes.ask(target_of(provider, lanes.provider.base_url), stream=True)
    assert found.value.kind is Kind.BROKEN


def test_a_mocked_target_answers_too(lanes: Lanes) -> None:
    target = target_of("openai", lanes.provider.base_url, model="gpt-4o", mock_response="hi")
    reply = lanes.ask(target)
    assert isinstance(reply, Completion)
    assert reply.body["output"][0]["content"][0]["text"] == "hi"
    assert len(lanes.provider.journal) == 0


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_thoughts_of_others_are_not_sent_to_whom_they_would_say_nothing(
    lanes: Lanes, stream: bool
) -> None:
    lanes.provider.script(Answer(reasoning="hm", text="so"))
    reply = lanes.ask(target_of("groq", lanes.provider.base_url))
    assert isinstance(reply, Completion)
    thoughts, message = reply.body["output"]
    own = {"type": "reasoning", "id": "rs_0a1b2c", "summary": [], "encrypted_content": "opaque"}
    direct = replace(
        target_of("openai", lanes.provider.base_url, model="gpt-4o"),
        lane=Lane.DIRECT,
        responses=Lane.DIRECT,
    )
    lanes.ask(direct, input=[thoughts, own, message], stream=stream)
    assert lanes.provider.journal.last.path == "/v1/responses"
    assert lanes.provider.journal.last.json["input"] == [own, message]
    lanes.ask(target_of("groq", lanes.provider.base_url), input=[thoughts, message])
    assert "hm" in str(lanes.provider.journal.last.json)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_azure_is_asked_where_its_responses_are(lanes: Lanes, stream: bool) -> None:
    base = f"http://127.0.0.1:{lanes.provider.port}"
    azure = replace(
        target_of("azure", base, model="deployed", api_version="2025-04-01-preview"),
        responses=Lane.DIRECT,
    )
    lanes.ask(azure, stream=stream)
    sent = lanes.provider.journal.last
    assert (sent.path, sent.query) == ("/openai/responses", {"api-version": "2025-04-01-preview"})
    assert sent.headers["api-key"] == azure.params["api_key"]
    assert sent.json["model"] == "deployed"
    # A version that is too old has none.
    lanes.provider.script(
        Fails(404, body={"error": {"code": "404", "message": "Resource not found"}})
    )
    old = replace(azure, identity=f"old-{stream}")
    reply = lanes.ask(old, stream=stream)
    assert lanes.provider.journal.last.path.endswith("/deployed/chat/completions")
    assert isinstance(reply, ChunkStream if stream else Completion)
    kept = lanes.runner.run(lanes.providers.stored(lambda: MB).ask(azure, "GET", ("resp_1",), ()))
    assert json.loads(kept)["id"] == "resp_1"
    sent = lanes.provider.journal.last
    assert sent.path == "/openai/responses/resp_1"
    assert sent.query == {"api-version": "2025-04-01-preview"}
