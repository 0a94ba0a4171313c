"""
The translated lane of chats against the unified one, request by request: the provider gets the
same body, and the caller the same answer or the same failure.

What may differ is written in `ALLOWED` and in the tests below that name a difference.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import orjson
import pytest

from proxy.clock import SystemClock
from proxy.config.price_table import FILE, shipped_table
from proxy.errors import UpstreamFailure
from proxy.replies import ChunkStream, Reply
from proxy.retry import Kind
from proxy.types import Call, Json, Lane, Target, Wishes
from proxy.upstream import Upstream
from proxy.upstream.fields import words_of
from proxy.upstream.lanes import Providers
from proxy.upstream.tongues import TONGUES
from tests.providers import (
    MISSING,
    Answer,
    Breaks,
    Endless,
    Entry,
    Fails,
    FakeAnthropic,
    Resets,
    SseStyle,
    Step,
    ToolCall,
    html_page,
    redirects,
)
from tests.upstream.test_lanes_agree import PIXEL, SCHEMA, facts_of
from tests.upstream.test_lanes_agree import REQUESTS as OPENAI_S
from tests.upstream.test_unified import HELLO, MB, TOOL, call_of, target_of, watched

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

# What LiteLLM makes up of an answer, or leaves out of it, and why the lane does not:
#   id           LiteLLM's own; the lane tells the provider's, by which Anthropic finds a request
#   created      each lane's own clock
ALLOWED = frozenset({"id", "created"})

USAGE: Json = {"input_tokens": 7, "output_tokens": 9}
EPHEMERAL = {"type": "ephemeral"}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": [1.5]}'}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "found"}
THOUGHT = {"type": "thinking", "thinking": "well", "signature": "c2lnbg=="}
HIDDEN = {"type": "redacted_thinking", "data": "aGlkZGVu"}
SAID = {"role": "assistant", "content": "hi"}
RICH: Json = {
    "type": "object",
    "title": "Place",
    "description": "where",
    "$defs": {"P": {"type": "string"}},
    "properties": {"at": {"$ref": "#/$defs/P"}, "n": {"type": "integer", "minimum": 1}},
    "required": ["at"],
    "additionalProperties": False,
}


def counted(**said: Any) -> Answer:
    """Return an answer whose usage does not depend on how the request was spelt."""
    return Answer(**{"usage": USAGE, **said})


def user(content: Any, **more: Any) -> Json:
    return {"role": "user", "content": content, **more}


def tool(name: str, **more: Any) -> Json:
    return {"type": "function", "function": {"name": name, **more}}


def image(url: Any, **more: Any) -> Json:
    return {"type": "image_url", "image_url": url, **more}


# Those that the lane writes itself ...
ORDINARY: dict[str, Json] = {
    "plain": {},
    "system": {"messages": [{"role": "system", "content": "be brief"}, *HELLO]},
    "two systems": {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "developer", "content": "be kind"},
            *HELLO,
        ]
    },
    "a system of parts": {
        "messages": [
            {
                "role": "system",
                "content": [
                    {"type": "text", "text": "be brief"},
                    {"type": "text", "text": "", "cache_control": EPHEMERAL},
                    {"type": "text", "text": "kept", "cache_control": EPHEMERAL},
                ],
            },
            *HELLO,
        ]
    },
    "an empty system": {"messages": [{"role": "system", "content": ""}, *HELLO]},
    "a system that is kept": {
        "messages": [{"role": "system", "content": "x", "cache_control": EPHEMERAL}, *HELLO]
    },
    "many turns": {"messages": [*HELLO, SAID, *HELLO] * 3},
    "two in a row": {"messages": [*HELLO, *HELLO, SAID, SAID, *HELLO]},
    "names": {"messages": [user("hello", name="ann")]},
    "nulls in messages": {"messages": [user("hello", name=None, cache_control=None)]},
    "unicode": {"messages": [user("größer 日本語 🙂 \u2028 \x00")]},
    "empty content": {"messages": [user(""), SAID, user("  \n")]},
    "empty parts": {"messages": [user([{"type": "text", "text": " "}])]},
    "an empty answer": {"messages": [*HELLO, {"role": "assistant", "content": ""}, *HELLO]},
    "parts": {"messages": [user([{"type": "text", "text": "hi"}, {"type": "text", "text": "ho"}])]},
    "kept parts": {
        "messages": [user([{"type": "text", "text": "hi", "cache_control": EPHEMERAL}])]
    },
    "a kept message": {"messages": [user("hi", cache_control={**EPHEMERAL, "ttl": "1h"})]},
    "a kept answer": {"messages": [*HELLO, {**SAID, "cache_control": EPHEMERAL}, *HELLO]},
    "an answer of parts": {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": [{"type": "text", "text": "a "}]},
            *HELLO,
        ]
    },
    "an answer as it came": {
        "messages": [
            *HELLO,
            {
                **SAID,
                "annotations": [{"type": "url_citation", "url_citation": {"url": "https://x"}}],
                "reasoning_content": "well",
                "thinking_blocks": [THOUGHT],
                **dict.fromkeys(("audio", "function_call", "refusal", "tool_calls")),
            },
            *HELLO,
        ]
    },
    "prefill": {"messages": [*HELLO, {"role": "assistant", "content": "the answer is  \n"}]},
    "vision by address": {"messages": [user([image({"url": "https://x.test/a.png"})])]},
    "vision by a bare address": {"messages": [user([image("https://x.test/a.png")])]},
    "vision by data": {
        "messages": [
            user([{"type": "text", "text": "what?"}, image({"url": PIXEL, "detail": "low"})])
        ]
    },
    "a kept image": {"messages": [user([image({"url": PIXEL}, cache_control=EPHEMERAL)])]},
    "tools": {"tools": [TOOL], "tool_choice": "auto"},
    "tools described": {"tools": [tool("look", description="looks", parameters=RICH, strict=True)]},
    "a tool without parameters": {"tools": [tool("look")]},
    "empty parameters": {"tools": [tool("look", parameters={})]},
    "other parameters": {"tools": [tool("look", parameters={"type": "string", "enum": ["a"]})]},
    "a kept tool": {"tools": [{**TOOL, "cache_control": EPHEMERAL}]},
    "one tool": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
    },
    "some tool": {"tools": [TOOL], "tool_choice": "required"},
    "no tool": {"tools": [TOOL], "tool_choice": "none", "parallel_tool_calls": True},
    "one after the other": {"tools": [TOOL], "parallel_tool_calls": False},
    "all at once": {"tools": [TOOL], "parallel_tool_calls": True},
    "a result": {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            RESULT,
            *HELLO,
        ],
        "tools": [TOOL],
    },
    "results of parallel tools": {
        "messages": [
            *HELLO,
            {**SAID, "tool_calls": [CALLED, {**CALLED, "id": "c2", "index": 1}]},
            {**RESULT, "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
            {**RESULT, "name": "look"},
        ],
        "tools": [TOOL],
    },
    "calls twice": {
        "messages": [
            *HELLO,
            {"role": "assistant", "tool_calls": [CALLED]},
            RESULT,
            {"role": "assistant", "content": "again", "tool_calls": [{**CALLED, "id": "c.2:x"}]},
            {**RESULT, "tool_call_id": "c.2:x", "content": ""},
        ],
        "tools": [TOOL],
    },
    "a call without arguments": {
        "messages": [
            *HELLO,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [{**CALLED, "function": {"name": "look", "arguments": ""}}],
            },
            RESULT,
        ],
        "tools": [TOOL],
    },
    "thoughts": {
        "messages": [*HELLO, {**SAID, "thinking_blocks": [THOUGHT, HIDDEN]}, *HELLO],
    },
    "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
    "not thinking": {"thinking": {"type": "disabled"}},
    "thinking, and thoughts": {
        "messages": [*HELLO, {**SAID, "thinking_blocks": [THOUGHT]}, *HELLO],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "max_completion_tokens": 2000,
    },
    "text": {"response_format": {"type": "text"}},
    "one choice": {"n": 1},
    "choices": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "functions": {"functions": [TOOL["function"]], "function_call": "auto"},
    "stop": {"stop": ["a", "b"]},
    "one stop": {"stop": "a"},
    "no stop": {"stop": []},
    "sampling": {"temperature": 0.0, "top_p": 0.5, "seed": 7},
    "one temperature": {"temperature": 1},
    "top_k": {"top_k": 5},
    "hot": {"temperature": 1.5},
    "penalties": {"frequency_penalty": 0.1, "presence_penalty": -0.1, "logit_bias": {"50256": -1}},
    "max_tokens": {"max_tokens": 10},
    "max_completion_tokens": {"max_completion_tokens": 10},
    "many tokens": {"max_tokens": 10_000_000},
    "tier": {"service_tier": "flex", "store": True, "metadata": {"a": "b"}, "user": "u"},
    "safety": {"safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "verbosity": {"verbosity": "low"},
    "usage asked for": {"stream_options": {"include_usage": True}},
    "nulls": {"temperature": None, "tools": None, "stop": None, "stream_options": None},
    "unknown": {"a_field_of_tomorrow": {"x": [1, {"y": None}]}},
    "long": {"messages": [user("word " * 20_000)]},
}
# ... and those that it leaves to LiteLLM, which may be refused by it.
UNUSUAL: dict[str, Json] = {
    "a developer's kept message": {
        "messages": [{"role": "developer", "content": "x", "cache_control": EPHEMERAL}, *HELLO]
    },
    "a part of a system message that is kept by nothing": {
        "messages": [
            {
                "role": "system",
                "content": [{"type": "text", "text": "x", "cache_control": None}],
            },
            *HELLO,
        ]
    },
    "a schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "json": {"response_format": {"type": "json_object"}},
    "effort": {"reasoning_effort": "low"},
    "thinking without a limit": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    "adaptive thinking": {"thinking": {"type": "adaptive"}},
    "a search": {"web_search_options": {}},
    "a search that is none": {"web_search_options": "a"},
    "both limits": {"max_tokens": 10, "max_completion_tokens": 11},
    "a limit that is no number": {"max_tokens": "ten"},
    "half a token": {"max_tokens": 10.5},
    "no temperature": {"temperature": "warm"},
    "stops of numbers": {"stop": [1]},
    "an address": {"user": "a@example.com"},
    "a telephone": {"user": "+49 123 4567890"},
    "of others": {"min_p": 0.1, "guided_json": {"a": 1}},
    "no tools": {"tools": []},
    "an odd name": {"tools": [tool("look/at")]},
    "an old schema": {"tools": [tool("look", parameters={"definitions": {"a": {}}})]},
    "a tool of Anthropic's": {"tools": [{"type": "computer_20250124", "function": {}}]},
    "a message's tool": {"tools": [{"name": "look", "input_schema": {"type": "object"}}]},
    "no messages": {"messages": []},
    "only a system": {"messages": [{"role": "system", "content": "x"}]},
    "a system later": {"messages": [*HELLO, {"role": "system", "content": "x"}, *HELLO]},
    "an answer first": {"messages": [SAID, *HELLO]},
    "nothing said": {"messages": [*HELLO, {"role": "assistant", "content": None}, *HELLO]},
    "no parts": {"messages": [user([])]},
    "a call without its result": {
        "messages": [*HELLO, {**SAID, "tool_calls": [CALLED]}, *HELLO],
        "tools": [TOOL],
    },
    "a result without its call": {"messages": [*HELLO, RESULT], "tools": [TOOL]},
    "two results": {
        "messages": [*HELLO, {**SAID, "tool_calls": [CALLED]}, RESULT, RESULT],
        "tools": [TOOL],
    },
    "one id twice": {
        "messages": [*HELLO, {**SAID, "tool_calls": [CALLED, CALLED]}, RESULT],
        "tools": [TOOL],
    },
    "calls of nothing": {"messages": [*HELLO, {**SAID, "tool_calls": []}, *HELLO]},
    "calls of no tool": {"messages": [*HELLO, {**SAID, "tool_calls": [CALLED]}, RESULT]},
    "arguments cut short": {
        "messages": [
            *HELLO,
            {
                **SAID,
                "tool_calls": [{**CALLED, "function": {"name": "look", "arguments": '{"a": '}}],
            },
            RESULT,
        ],
        "tools": [TOOL],
    },
    "thinking after calls": {
        "messages": [*HELLO, {**SAID, "tool_calls": [CALLED]}, RESULT],
        "tools": [TOOL],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "max_tokens": 2000,
    },
    "a thought unsigned": {
        "messages": [
            *HELLO,
            {**SAID, "thinking_blocks": [{"type": "thinking", "thinking": "x"}]},
            *HELLO,
        ]
    },
    "a file": {"messages": [user([{"type": "file", "file": {"file_id": "file-1"}}])]},
    "sound": OPENAI_S["sound"],
    "wrong types": {"temperature": "warm", "max_tokens": "ten", "tools": {}, "n": "two"},
}


def streamed(*events: dict[str, Any]) -> Answer:
    """Return a stream of just these events."""
    raw = b"".join(b"event: x\ndata: %s\n\n" % orjson.dumps(event) for event in events)
    return Answer(raw_body=raw, content_type="text/event-stream")


def started(model: str) -> dict[str, Any]:
    return {"type": "message_start", "message": {"model": model, "usage": USAGE}}


ENDED: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": "tool_use"},
    "usage": USAGE,
}
# A tool without parameters is called so: no piece of its arguments has anything in it.
NOTHING_CALLED = (
    {
        "type": "content_block_start",
        "index": 0,
        "content_block": {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "input_json_delta", "partial_json": ""},
    },
    {"type": "content_block_stop", "index": 0},
)
STOPPED: dict[str, Any] = {"type": "message_stop"}
ANSWERS: dict[str, Step] = {
    "whole": counted(),
    "no tokens": counted(tokens=0),
    "long": counted(text="a longer text " * 200),
    "unicode": counted(text="größer 日本語 🙂 \u2028 \x85 end"),
    "quotes": counted(text='a "quoted" \\ and \n \t\x00 end'),
    "tools": counted(
        tool_calls=(ToolCall("look", '{"a": "b\\u00e9 日"}', id="t1"), ToolCall("touch", id="t2"))
    ),
    "text and tools": counted(text="so: ", tool_calls=(ToolCall("look", '{"a": 1.50}', id="t1"),)),
    "reasoning": counted(
        reasoning="well, well",
        usage={**USAGE, "output_tokens_details": {"thinking_tokens": 3}},
    ),
    "a call of nothing": streamed(started("claude-sonnet-4-5"), *NOTHING_CALLED, ENDED, STOPPED),
    "a stop without an end": streamed(started("claude-sonnet-4-5"), *NOTHING_CALLED, STOPPED),
    "refusal": counted(refusal="no"),
    "cut by length": counted(finish="length"),
    "at a word": counted(finish="stop_sequence"),
    "paused": counted(finish="pause_turn"),
    "a finish of its own": counted(finish="odd"),
    "cached": counted(usage={**USAGE, "cache_read_input_tokens": 5}),
    "written": counted(
        usage={
            **USAGE,
            "cache_creation_input_tokens": 30,
            "cache_read_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
            "service_tier": "standard",
        }
    ),
    "usage of nulls": counted(
        usage={
            **USAGE,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "cache_creation": None,
            "server_tool_use": None,
            "service_tier": None,
            "inference_geo": "us",
        }
    ),
    "odd usage": counted(usage={"input_tokens": -1, "output_tokens": "many"}),
    "packed": counted(gzip=True),
    "byte by byte": counted(write_split=1),
    "CRLF": counted(sse_style=SseStyle(newline="\r\n", comments=True, bom=True)),
    "many lines": counted(sse_style=SseStyle(multiline=True, space=False, extras=True)),
    "closed": counted(close=True),
    "201": counted(status=201),
    "204": counted(status=204, raw_body=b"", framing="length"),
    "another type": counted(content_type="text/plain"),
    "a page": html_page(),
    "a redirection": redirects("http://127.0.0.1:1/elsewhere"),
    "no JSON": counted(raw_body=b"hello"),
    "a list": counted(raw_body=b"[]"),
    "no content": counted(raw_body=b'{"type": "message"}'),
    "an error inside": counted(
        raw_body=b'{"type": "error", "error": {"type": "overloaded_error", "message": "no"}}'
    ),
    "eof": Breaks(2, how="eof"),
    "ends": Breaks(2, how="ends"),
    "reset": Breaks(2, how="reset"),
    "eof before content": Breaks(0, how="eof"),
    "malformed": Breaks(2, how="malformed"),
    "garbage": Breaks(2, how="garbage_utf8"),
    "a page inside": Breaks(2, how="html"),
    "reset at once": Resets(),
    "reset before the body": Resets(before="body"),
    "hung up": Resets(how="eof"),
    **{str(status): Fails(status) for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 429)},
    **{str(status): Fails(status) for status in (500, 501, 502, 503, 504, 529)},
    "come back": Fails(429, headers={"retry-after": "7"}),
    "a text": Fails(400, body="no"),
    "an empty body": Fails(500, body=b""),
    "the key in it": Fails(400, body={"error": {"message": "bad sk-the-key-in-the-file-1234"}}),
}
FILES: dict[str, dict[str, Any]] = {
    "plain": {},
    "headers": {"extra_headers": {"X-Team": "a", "X-Other": "b"}},
    "more headers": {"headers": {"x-team": "b"}, "extra_headers": {"x-team": "c"}},
}


def _listed() -> list[str]:
    """Return the models of the table that are Anthropic's own."""
    spec = find_spec("litellm")
    assert spec is not None
    rows = orjson.loads((Path(spec.origin or "").parent / FILE).read_bytes())
    return sorted(name for name in rows if rows[name].get("litellm_provider") == "anthropic")


LISTED = _listed()
UNLISTED = ("claude-3-opus-latest", "claude-newfamily-7", "claude-opus-4-7-20991231", "gpt-4o", "x")
OWN_HEADERS = {"user-agent", "connection", "host", "accept", "content-length", "accept-encoding"}


@dataclass(frozen=True)
class Outcome:
    """What the caller gets: an answer, or a failure and what came before it."""

    events: list[Json]
    dropped: tuple[str, ...]
    headers: dict[str, str]
    failure: tuple[Any, ...] | None


class Both:
    """One provider, asked by each lane in turn."""

    def __init__(self, provider: FakeAnthropic, runner: asyncio.Runner) -> None:
        self.provider = provider
        self._runner = runner
        self.providers = Providers(SystemClock())
        self._lanes: Upstream = self.providers.lanes(lambda: MB)
        self.litellm: ModuleType = runner.run(self.providers.sdk.ready())

    def agree(
        self,
        target: Target,
        call: Call,
        step: Step,
        *,
        foreign: bool = False,
        own: bool | None = True,
    ) -> Outcome:
        """Ask by both lanes; what went out and what came back is the same."""
        unified, sent = self.ask(replace(target, lane=Lane.UNIFIED), call, step, foreign)
        translated, ours = self.ask(replace(target, lane=Lane.TRANSLATED), call, step, foreign)
        assert [entry.json for entry in ours] == [entry.json for entry in sent]
        assert [entry.path for entry in ours] == [entry.path for entry in sent]
        assert [_headers(entry) for entry in ours] == [_headers(entry) for entry in sent]
        assert translated == unified
        if own is not None:
            agents = {entry.headers["user-agent"] for entry in ours}
            assert agents == {"mobius"} if own else "mobius" not in agents
        return translated

    def outcomes(self, target: Target, call: Call, step: Step) -> tuple[Outcome, Outcome]:
        """Return what comes of it by LiteLLM, and by the lane."""
        unified, _ = self.ask(replace(target, lane=Lane.UNIFIED), call, step)
        translated, _ = self.ask(replace(target, lane=Lane.TRANSLATED), call, step)
        return unified, translated

    def ask(
        self, target: Target, call: Call, step: Step, foreign: bool = False
    ) -> tuple[Outcome, list[Entry]]:
        self.provider.reset_script()
        self.provider.always(step)
        self.provider.journal.clear()
        before = copy.deepcopy(call.body)
        outcome = self._runner.run(self._ask(target, call, foreign))
        assert call.body == before, "the next target is asked with it, and the next request perhaps"
        return outcome, list(self.provider.journal.requests())

    async def _ask(self, target: Target, call: Call, foreign: bool) -> Outcome:
        reply: Reply | None = None
        events: list[Json] = []
        failure = None
        try:
            reply = await self._lanes.call(target, call, foreign=foreign, waiting=watched())
            if isinstance(reply, ChunkStream):
                async with contextlib.aclosing(reply):
                    async for chunk in reply:
                        events += chunk.events
            else:
                events = [reply.body]
        except UpstreamFailure as exc:
            failure = facts_of(exc)
        headers = {} if reply is None else dict(reply.headers)
        told = [_told(event) for event in events]
        return Outcome(told, reply.dropped if reply else (), headers, failure)


def _told(event: Json) -> Json:
    return {name: value for name, value in event.items() if name not in ALLOWED}


def _headers(entry: Entry) -> dict[str, str]:
    return {name: value for name, value in entry.headers.items() if name not in OWN_HEADERS}


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with asyncio.Runner() as runner, FakeAnthropic() as provider:
        subject = Both(provider, runner)
        yield subject
        runner.run(subject.providers.aclose())


def target(both: Both, model: str = "claude-sonnet-4-5", **params: Any) -> Target:
    table = shipped_table()
    assert table is not None
    facts = table.find("anthropic", model)
    to = target_of("anthropic", both.provider.base_url, **params)
    return replace(to, model=model, facts=facts)


def asked(body: Json, *, stream: bool = False) -> Call:
    call = call_of({**body, **({"stream": True} if stream else {})})
    return replace(call, wants_usage=True)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("name", ORDINARY)
def test_the_provider_gets_the_same_request(both: Both, name: str, stream: bool) -> None:
    outcome = both.agree(target(both), asked(ORDINARY[name], stream=stream), counted())
    assert outcome.failure is None


@pytest.mark.parametrize("name", UNUSUAL)
def test_what_is_unusual_goes_by_litellm(both: Both, name: str) -> None:
    both.agree(target(both), asked(UNUSUAL[name]), counted(), own=False)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("name", ANSWERS)
def test_the_caller_gets_the_same_answer_or_failure(both: Both, name: str, stream: bool) -> None:
    outcome = both.agree(target(both), asked({}, stream=stream), ANSWERS[name])
    assert outcome.events or outcome.failure is not None


@pytest.mark.parametrize("name", ORDINARY)
def test_a_request_written_for_another_provider_loses_the_same_fields(
    both: Both, name: str
) -> None:
    both.agree(target(both), asked(ORDINARY[name]), counted(), foreign=True)


def test_what_a_model_understands_is_what_litellm_says_of_it(both: Both) -> None:
    litellm = both.litellm
    assert len(LISTED) > 15
    for model in LISTED:
        to = target(both, model)
        assert TONGUES["anthropic"].words(to, {}) == words_of(litellm, to, native=False), model


@pytest.mark.parametrize("model", [*LISTED, *UNLISTED])
def test_every_model_is_asked_as_litellm_asks_it(both: Both, model: str) -> None:
    own = model != "gpt-4o"  # which the table has for another provider
    both.agree(target(both, model), asked(ORDINARY["plain"]), counted(), own=own)
    for name in ("some tool", "sampling", "thinking"):
        both.agree(target(both, model), asked(ORDINARY[name]), counted(), own=None)


@pytest.mark.proof
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("model", [*LISTED, *UNLISTED])
def test_every_model_is_asked_anything_as_litellm_asks_it(both: Both, model: str) -> None:
    to = target(both, model)
    for call in map(asked, ORDINARY.values()):
        both.agree(to, call, counted(), own=None)
        both.agree(to, call, counted(), foreign=True, own=None)
        for dropping in (False, True):
            both.agree(replace(to, drop_params=dropping), call, counted(), own=None)


@pytest.mark.parametrize("name", FILES)
def test_what_the_file_says_is_done_alike(both: Both, name: str) -> None:
    for stream in (False, True):
        to = target(both, **FILES[name])
        both.agree(to, asked(ORDINARY["tools"], stream=stream), counted())
        filled = {"max_tokens": 5, "top_p": 0.1, "stop": "x"}
        both.agree(replace(to, defaults=filled), asked({}, stream=stream), counted())


# Where the lanes differ, and why.


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_thoughts_that_the_provider_does_not_count_are_not_counted(
    both: Both, stream: bool
) -> None:
    """LiteLLM counts them with the tokenizer of a model of OpenAI's."""
    step, call = counted(reasoning="well, well"), asked({}, stream=stream)
    unified, translated = both.outcomes(target(both), call, step)
    last = translated.events[-1]["usage"]
    assert "completion_tokens_details" not in last
    del unified.events[-1]["usage"]["completion_tokens_details"]
    assert translated == unified


@pytest.mark.parametrize("usage", [MISSING, "many"])
def test_a_usage_that_the_provider_does_not_tell_is_not_made_up(both: Both, usage: Any) -> None:
    """LiteLLM counts the text of the stream itself; the ledger has an estimate of its own."""
    step = counted(usage=usage)
    unified, translated = both.outcomes(target(both), asked({}, stream=True), step)
    assert not any("usage" in event for event in translated.events)
    assert translated.events == [event for event in unified.events if _says(event)]


@pytest.mark.parametrize(("after", "kind"), [(0, Kind.OVERLOADED), (2, Kind.BROKEN)])
def test_an_error_inside_a_stream_is_told_in_the_providers_words(
    both: Both, after: int, kind: Kind
) -> None:
    """LiteLLM keeps them to itself, and which error it was."""
    step = Breaks(after, how="error_event", opening=after > 0)
    unified, translated = both.outcomes(target(both), asked({}, stream=True), step)
    assert translated.events == unified.events
    assert translated.failure is not None
    assert translated.failure[:5] == (kind, None, "Overloaded", None, "overloaded_error")


def test_a_stream_names_the_model_that_answers(both: Both) -> None:
    """So does LiteLLM in a whole answer; in a stream it names the one that was asked."""
    step = streamed(started("claude-sonnet-4-5-20250929"), *NOTHING_CALLED, ENDED, STOPPED)
    unified, translated = both.outcomes(target(both), asked({}, stream=True), step)
    assert {event["model"] for event in translated.events} == {"claude-sonnet-4-5-20250929"}
    assert {event["model"] for event in unified.events} == {"claude-sonnet-4-5"}
    unnamed = [[{**e, "model": ""} for e in each.events] for each in (unified, translated)]
    assert unnamed[0] == unnamed[1]


@pytest.mark.parametrize("gzip", [False, True])
def test_a_stream_that_says_the_same_again_and_again_is_not_cut_off(both: Both, gzip: bool) -> None:
    """LiteLLM takes a hundred equal pieces for a model that is lost."""
    step = Endless(limit_bytes=3 * MB, gzip=gzip)
    unified, translated = both.outcomes(target(both), asked({}, stream=True), step)
    assert unified.failure is not None
    assert translated.failure is None
    assert sum(len(_text(event)) for event in translated.events) > MB


@pytest.mark.parametrize("gzip", [False, True])
def test_a_whole_answer_is_bounded_by_both(both: Both, gzip: bool) -> None:
    outcome = both.agree(target(both), asked({}), Endless(limit_bytes=3 * MB, gzip=gzip))
    assert outcome.failure is not None


def test_an_error_inside_a_whole_answer_is_told_by_both(both: Both) -> None:
    outcome = both.agree(target(both), asked({}), Breaks(0, how="error_event"))
    assert outcome.failure is not None


def test_a_wish_for_less_time_is_kept_by_both(both: Both) -> None:
    call = replace(asked({}), wishes=Wishes(timeout_s=0.05))
    outcome = both.agree(target(both), call, counted(delay_s=5.0))
    assert outcome.failure is not None


def _says(event: Json) -> bool:
    return any(choice["delta"] or choice["finish_reason"] for choice in event["choices"])


def _text(event: Json) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
