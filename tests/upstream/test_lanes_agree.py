"""
The direct lane against the unified one, request by request: the provider gets the same body and
key, and the caller the same answer or the same failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from proxy import sse
from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.replies import ChunkStream, Reply
from proxy.types import Call, Json, Lane, Target, Wishes
from proxy.upstream import Upstream
from proxy.upstream.lanes import Providers
from tests.providers import (
    MISSING,
    Answer,
    Breaks,
    Endless,
    Entry,
    Fails,
    FakeOpenAI,
    NoDone,
    Resets,
    SseStyle,
    Step,
    ToolCall,
    html_page,
    openai_errors,
    redirects,
)
from tests.upstream.test_unified import HELLO, MB, TOOL, call_of, target_of, watched

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"name": "s", "strict": True, "schema": {"type": "object", "properties": {}}}
CALLED = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
REQUESTS: dict[str, Json] = {
    "plain": {},
    "no messages of the user": {"messages": [{"role": "system", "content": "be brief"}]},
    "developer": {"messages": [{"role": "developer", "content": "be brief"}, *HELLO]},
    "many turns": {"messages": [*HELLO, {"role": "assistant", "content": "hi"}, *HELLO] * 3},
    "names": {"messages": [{"role": "user", "name": "ann", "content": "hello"}]},
    "unicode": {"messages": [{"role": "user", "content": "größer 日本語 🙂 \u2028 \x00"}]},
    "empty content": {"messages": [{"role": "user", "content": ""}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
    "vision by address": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}],
            }
        ]
    },
    "vision by data": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is it?"},
                    {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
                ],
            }
        ]
    },
    "sound": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
                ],
            }
        ],
        "modalities": ["text", "audio"],
        "audio": {"voice": "alloy", "format": "wav"},
    },
    "a file": {
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]
    },
    "tools": {"tools": [TOOL], "tool_choice": "auto"},
    "one tool": {
        "tools": [TOOL],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
    },
    "results of tools": {
        "messages": [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [CALLED, CALLED | {"id": "c2"}]},
            {"role": "tool", "tool_call_id": "c1", "content": "1"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
        ],
        "tools": [TOOL],
    },
    "functions": {"functions": [TOOL["function"]], "function_call": "auto"},
    "a schema": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "json": {"response_format": {"type": "json_object"}},
    "text": {"response_format": {"type": "text"}},
    "choices": {"n": 2},
    "no choices": {"n": 0},
    "logprobs": {"logprobs": True, "top_logprobs": 3},
    "stop": {"stop": ["a", "b"]},
    "one stop": {"stop": "a"},
    "sampling": {"temperature": 0.0, "top_p": 0.5, "seed": 7},
    "hot": {"temperature": 2},
    "penalties": {"frequency_penalty": 0.1, "presence_penalty": -0.1, "logit_bias": {"50256": -1}},
    "max_tokens": {"max_tokens": 10},
    "max_completion_tokens": {"max_completion_tokens": 10},
    "both": {"max_tokens": 10, "max_completion_tokens": 11},
    "reasoning": {"reasoning_effort": "low", "verbosity": "low"},
    "tier": {"service_tier": "flex", "store": True, "metadata": {"a": "b"}, "user": "u"},
    "safety": {"safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "web search": {"web_search_options": {}},
    "usage asked for": {"stream_options": {"include_usage": True}},
    "usage not asked for": {"stream_options": {"include_usage": False}},
    "other options": {"stream_options": {"include_obfuscation": False}},
    "nulls": {"temperature": None, "tools": None, "stop": None, "stream_options": None},
    "unknown": {"a_field_of_tomorrow": {"x": [1, {"y": None}]}, "thinking": {"type": "enabled"}},
    "of others": {"top_k": 5, "min_p": 0.1, "guided_json": {}, "chat_template_kwargs": {"a": 1}},
    "wrong types": {"temperature": "warm", "max_tokens": "ten", "tools": {}, "n": "two"},
    "numbers": {"seed": 2**53, "temperature": 1e-7, "top_p": 1.0},
    "long": {"messages": [{"role": "user", "content": "word " * 20_000}]},
}
ANSWERS: dict[str, Step] = {
    "whole": Answer(),
    "no tokens": Answer(tokens=0),
    "long": Answer(text="a longer text " * 2_000),
    "unicode": Answer(text="größer 日本語 🙂 \u2028 end"),
    "tools": Answer(tool_calls=(ToolCall("look", '{"a": "b"}'), ToolCall("touch"))),
    "reasoning": Answer(reasoning="well, well"),
    "refusal": Answer(refusal="no"),
    "cut by length": Answer(finish="length"),
    "filtered": Answer(finish="content_filter"),
    "a finish of its own": Answer(finish="odd"),
    "no usage": Answer(usage=MISSING),
    "odd usage": Answer(usage={"prompt_tokens": -1, "completion_tokens": "many"}),
    "packed": Answer(gzip=True),
    "byte by byte": Answer(write_split=1),
    "CRLF": Answer(sse_style=SseStyle(newline="\r\n", comments=True, bom=True)),
    "many lines": Answer(sse_style=SseStyle(multiline=True, space=False, extras=True)),
    "limits": Answer(headers={"x-ratelimit-remaining-requests": "7", "x-request-id": "p-1"}),
    "closed": Answer(close=True),
    "201": Answer(status=201),
    "204": Answer(status=204, raw_body=b"", framing="length"),
    "another type": Answer(content_type="text/plain"),
    "a page": html_page(),
    "a redirection": redirects("http://127.0.0.1:1/elsewhere"),
    "no JSON": Answer(raw_body=b"hello"),
    "a list": Answer(raw_body=b"[]"),
    "no choices": Answer(raw_body=b'{"choices": []}'),
    "an error inside": Answer(raw_body=b'{"error": {"message": "no", "code": "server_error"}}'),
    "no end mark": NoDone(),
    "eof": Breaks(2, how="eof"),
    "ends": Breaks(2, how="ends"),
    "reset": Breaks(2, how="reset"),
    "eof before content": Breaks(0, how="eof"),
    "malformed": Breaks(2, how="malformed"),
    "garbage": Breaks(2, how="garbage_utf8"),
    "an error event": Breaks(2, how="error_event"),
    "an error event first": Breaks(0, how="error_event", opening=False),
    "a page inside": Breaks(2, how="html"),
    "too large": Endless(limit_bytes=3 * MB),
    "a bomb": Endless(limit_bytes=3 * MB, gzip=True),
    "reset at once": Resets(),
    "reset before the body": Resets(before="body"),
    "hung up": Resets(how="eof"),
    **{str(status): Fails(status) for status in (400, 401, 402, 403, 404, 408, 409, 413, 422, 429)},
    **{str(status): Fails(status) for status in (500, 501, 502, 503, 504, 529)},
    "an empty account": openai_errors.insufficient_quota(),
    "come back": Fails(429, headers={"retry-after": "7"}),
    "a text": Fails(400, body="no"),
    "an empty body": Fails(500, body=b""),
    "the key in it": Fails(400, body={"error": {"message": "bad sk-the-key-in-the-file-1234"}}),
}
FILES: dict[str, dict[str, Any]] = {
    "plain": {},
    "a body of its own": {"extra_body": {"top_k": 3, "temperature": 0.5}},
    "headers": {"extra_headers": {"X-Team": "a", "Authorization": "Bearer other-key-1234"}},
    "more headers": {"headers": {"x-team": "b"}, "extra_headers": {"x-team": "c"}},
    "an organization": {"organization": "org-1", "project": "proj-1"},
    "left out": {"additional_drop_params": ["user", "tools[*].function.parameters"]},
}
# What HTTP clients write of themselves.
OWN_HEADERS = {"user-agent", "connection", "host", "accept", "content-length", "accept-encoding"}


# What the fake counts, and its clock; and the length of the prompt, in bytes of JSON.
NUMBERED = re.compile(
    rb'chatcmpl-\w+|call_fake\w+|fp_\w+|"created": ?\d+|"(prompt|total)_tokens": ?\d+'
)


@dataclass(frozen=True)
class Outcome:
    """What the caller gets: an answer, or a failure and what came before it."""

    raw: bytes
    dropped: tuple[str, ...]
    headers: dict[str, str]
    failure: tuple[Any, ...] | None


class Both:
    """One provider, asked by each lane in turn."""

    def __init__(self, provider: FakeOpenAI, runner: asyncio.Runner) -> None:
        self._provider = provider
        self._runner = runner
        providers = Providers(SystemClock())
        self._lanes: Upstream = providers.lanes(lambda: MB)
        self.providers = providers

    def agree(self, target: Target, call: Call, step: Step, *, foreign: bool = False) -> Outcome:
        """Ask by both lanes; what went out and what came back is the same."""
        self._provider.reset_script()
        self._provider.always(step)
        outcomes, sent = [], []
        before = copy.deepcopy(call.body)
        for lane in (Lane.UNIFIED, Lane.DIRECT):
            self._provider.journal.clear()
            asked = replace(target, lane=lane)
            outcomes.append(self._runner.run(self._ask(asked, call, foreign)))
            (entry,) = self._provider.journal.requests()
            sent.append(entry)
        assert call.body == before, "the next target is asked with it, and the next request perhaps"
        unified, direct = sent
        # LiteLLM sends a project, which is a header, as a field too.
        unsaid = {"project"} if "project" in target.params else set()
        assert direct.json == {k: v for k, v in unified.json.items() if k not in unsaid}
        assert direct.path == unified.path
        assert _headers(direct) == _headers(unified)
        assert outcomes[1] == outcomes[0]
        return outcomes[1]

    async def _ask(self, target: Target, call: Call, foreign: bool) -> Outcome:
        reply: Reply | None = None
        raw, failure = b"", None
        try:
            reply = await self._lanes.call(target, call, foreign=foreign, waiting=watched())
            if isinstance(reply, ChunkStream):
                async with contextlib.aclosing(reply):
                    async for chunk in reply:
                        # A chunk that hides the usage is spelt anew; where chunks end is chance.
                        raw += b"".join(
                            _spelt(event.data) for event in sse.Reader().feed(chunk.raw)
                        )
            else:
                raw = reply.raw
        except UpstreamFailure as exc:
            failure = facts_of(exc)
        headers = {} if reply is None else _timeless(dict(reply.headers))
        return Outcome(NUMBERED.sub(b"", raw), reply.dropped if reply else (), headers, failure)


def _spelt(payload: bytes) -> bytes:
    return orjson.dumps(orjson.loads(payload))


def facts_of(failure: UpstreamFailure) -> tuple[Any, ...]:
    """What two lanes have to say alike of a failure."""
    return (
        failure.kind,
        failure.provider_status,
        failure.provider_message,
        failure.provider_code,
        failure.provider_type,
        failure.param,
        failure.retry_after_s,
        failure.tokens_spent,
        tuple(leeway.unit for leeway in failure.leeways),
    )


def _timeless(headers: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if "reset" not in name}


def _headers(entry: Entry) -> dict[str, str]:
    return {
        name: value
        for name, value in entry.headers.items()
        if name not in OWN_HEADERS and not name.startswith("x-stainless")
    }


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with asyncio.Runner() as runner, FakeOpenAI() as provider:
        subject = Both(provider, runner)
        runner.run(subject.providers.sdk.ready())
        yield subject
        runner.run(subject.providers.aclose())


def target(both: Both, name: str = "openai", **params: Any) -> Target:
    return target_of(name, both._provider.base_url, **params)


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("name", REQUESTS)
def test_the_provider_gets_the_same_request(both: Both, name: str, stream: bool) -> None:
    asked = call_of({**REQUESTS[name], **({"stream": True} if stream else {})})
    assert both.agree(target(both), asked, Answer()).failure is None


@pytest.mark.parametrize("provider", ["custom_openai", "litellm_proxy", "hosted_vllm"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_so_does_every_other_provider_of_this_lane(both: Both, provider: str, stream: bool) -> None:
    for name in ("plain", "developer", "tools", "unknown", "of others", "nulls", "max_tokens"):
        asked = call_of({**REQUESTS[name], **({"stream": True} if stream else {})})
        assert both.agree(target(both, provider), asked, Answer()).failure is None


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_written_for_another_provider_loses_the_same_fields(
    both: Both, name: str
) -> None:
    for model in ("gpt-4o", "o3-mini", "gpt-5"):
        to = replace(target(both), model=model)
        both.agree(to, call_of({**REQUESTS[name]}), Answer(), foreign=True)
        both.agree(
            replace(to, drop_params=False), call_of({**REQUESTS[name]}), Answer(), foreign=True
        )
        both.agree(replace(to, drop_params=True), call_of({**REQUESTS[name]}), Answer())


@pytest.mark.parametrize("name", FILES)
def test_what_the_file_says_is_done_alike(both: Both, name: str) -> None:
    body = {**REQUESTS["tools"], "user": "u", "temperature": 1}
    for stream in (False, True):
        to = target(both, **FILES[name])
        both.agree(to, call_of(body | {"stream": stream}), Answer())
        filled = {"max_tokens": 5, "stream_options": {"include_usage": False}, "top_p": 0.1}
        both.agree(replace(to, defaults=filled), call_of(body | {"stream": stream}), Answer())


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("name", ANSWERS)
def test_the_caller_gets_the_same_answer_or_failure(both: Both, name: str, stream: bool) -> None:
    asked = call_of({"stream": stream, "n": 1})
    step = ANSWERS[name]
    outcome = both.agree(target(both), asked, step)
    assert bool(outcome.raw) or outcome.failure is not None


def test_a_wish_for_less_time_is_kept_by_both(both: Both) -> None:
    call = replace(call_of({}), wishes=Wishes(timeout_s=0.05))
    outcome = both.agree(target(both), call, Answer(delay_s=5.0))
    assert outcome.failure is not None
