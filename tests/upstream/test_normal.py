"""LiteLLM's answers, as OpenAI would have written them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from proxy.aggregate import aggregate
from proxy.types import Json, Target
from proxy.upstream.normal import normal_chunk, normal_completion
from proxy.usage import usage_of
from tests.providers import Answer, FakeAnthropic, FakeGemini, FakeProvider, ToolCall, Usage
from tests.upstream.test_unified import KEY, TOOL, Lane, target_of

# LiteLLM's own, about its types.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}


@dataclass
class Dumped:
    """What LiteLLM's objects have in common."""

    fields: dict[str, Any]

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        assert mode == "json"
        return self.fields


def completion(*choices: Json, **more: Any) -> Json:
    fields = {"id": "x", "created": 1, "model": "m", "object": "chat.completion", **more}
    return normal_completion(Dumped({**fields, "choices": list(choices)}))


def chunk(*choices: Json, **more: Any) -> Json:
    fields = {"id": "x", "created": 1, "model": "m", "object": "chat.completion.chunk", **more}
    return normal_chunk(Dumped({**fields, "choices": list(choices)}))


def test_a_message_has_all_that_openai_requires_and_nothing_that_is_empty() -> None:
    message: dict[str, Any] = {
        "content": None, "tool_calls": None, "function_call": None, "audio": None, "images": [],
        "provider_specific_fields": {"a": 1}, "reasoning_content": "hm",
    }  # fmt: skip
    assert completion({"message": message})["choices"] == [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "reasoning_content": "hm",
            },
        }
    ]


def test_a_call_in_a_whole_message_has_no_index_and_in_a_stream_it_has() -> None:
    call = {**CALL, "index": 3}
    whole = completion({"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"})
    assert whole["choices"][0]["message"]["tool_calls"] == [CALL]
    piece = {
        "index": 3,
        "id": None,
        "function": {"name": None, "arguments": "{"},
        "type": "function",
    }
    delta = chunk({"delta": {"tool_calls": [piece], "content": None}})["choices"][0]["delta"]
    assert delta == {
        "tool_calls": [{"index": 3, "function": {"arguments": "{"}, "type": "function"}]
    }


def test_counts_that_nobody_made_are_left_out_of_the_usage() -> None:
    usage = {
        "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.1, "speed": None,
        "prompt_tokens_details": {"cached_tokens": 1, "audio_tokens": None},
        "completion_tokens_details": None,
    }  # fmt: skip
    kept = {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
    assert completion(usage=usage)["usage"] == kept
    assert chunk(usage=usage)["usage"] == kept
    assert usage["cost"] == 0.1


def test_the_usage_of_a_stream_comes_with_no_choice() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert chunk({"delta": {"content": None}, "finish_reason": None}, usage=usage)["choices"] == []
    last = chunk({"delta": {}, "finish_reason": "stop"}, usage=usage)
    assert last["choices"][0]["finish_reason"] == "stop"


def test_litellm_s_own_fields_and_its_empty_lists_are_left_out() -> None:
    body = completion(system_fingerprint=None, citations=["x"], vertex_ai_safety_results=[])
    assert body.keys() == {"id", "created", "model", "object", "choices"}


def test_a_finish_that_openai_does_not_know_is_a_stop() -> None:
    for said, told in (("eos", "stop"), ("length", "length"), ("content_filter", "content_filter")):
        assert (
            completion({"message": {}, "finish_reason": said})["choices"][0]["finish_reason"]
            == told
        )
    assert chunk({"delta": {"content": "x"}})["choices"][0]["finish_reason"] is None


def test_the_nulls_within_logprobs_are_openai_s_own() -> None:
    token = {"token": "a", "logprob": -1.0, "bytes": None, "top_logprobs": []}
    body = completion({"message": {}, "logprobs": {"content": [token]}})
    assert body["choices"][0]["logprobs"] == {"content": [token], "refusal": None}


# What a provider says, and what a client of ours should hear of it.
SAID = {
    "text": Answer(text="hello there, you", usage=Usage(30, 20, cached=10)),
    "calls": Answer(
        text="wait",
        tool_calls=(ToolCall("look", '{"a": 1}'), ToolCall("hear", '{"b": [2]}')),
        usage=Usage(30, 20),
    ),
    "cut": Answer(text="hello", finish="length"),
    "thoughts": Answer(reasoning="hm hm", text="so", usage=Usage(30, 20)),
}


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with Lane() as lane:
        yield lane


@pytest.fixture(scope="module")
def fakes() -> Iterator[dict[str, FakeProvider]]:
    with FakeAnthropic() as anthropic, FakeGemini() as gemini:
        yield {"anthropic": anthropic, "gemini": gemini}


MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro"}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("provider", MODELS)
def test_a_translated_answer_says_what_litellm_s_own_says(
    lane: Lane, fakes: dict[str, FakeProvider], provider: str, said: str
) -> None:
    fake = fakes[provider]
    fake.reset_script()
    fake.always(SAID[said])
    target = target_of(provider, fake.base_url, MODELS[provider])
    _says_the_same(lane, target)


def test_the_answers_are_what_the_provider_said(lane: Lane, fakes: dict[str, FakeProvider]) -> None:
    for provider, fake in fakes.items():
        target = target_of(provider, fake.base_url, MODELS[provider])
        fake.reset_script()
        fake.always(SAID["calls"])
        for body in (lane.ask(target).body, aggregate(lane.stream(target)[1])):
            choice = body["choices"][0]
            assert choice["message"]["content"] == "wait", provider
            assert [
                (call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in choice["message"]["tool_calls"]
            ] == [("look", {"a": 1}), ("hear", {"b": [2]})]
            assert len({call["id"] for call in choice["message"]["tool_calls"]}) == 2
            assert choice["finish_reason"] == "tool_calls"
        fake.reset_script()
        fake.always(SAID["text"])
        _, events = lane.stream(target, stream_options={"include_usage": True})
        for body in (lane.ask(target).body, aggregate(events)):
            usage = usage_of(body)
            assert usage is not None
            assert (usage.prompt_tokens, usage.cached_tokens) == (30, 10), provider
            assert usage.completion_tokens == 20
            assert body["choices"][0]["finish_reason"] == "stop"


def test_anthropic_s_thoughts_are_given_back_with_their_signature(
    lane: Lane, fakes: dict[str, FakeProvider]
) -> None:
    fake = fakes["anthropic"]
    fake.reset_script()
    fake.always(SAID["thoughts"])
    target = target_of("anthropic", fake.base_url, MODELS["anthropic"])
    for body in (lane.ask(target).body, aggregate(lane.stream(target)[1])):
        message = body["choices"][0]["message"]
        assert message["reasoning_content"] == "hm hm"
        (thought,) = message["thinking_blocks"]
        assert thought["thinking"] == "hm hm"
        assert thought["signature"]


def test_a_usage_that_was_not_asked_for_is_not_told(
    lane: Lane, fakes: dict[str, FakeProvider]
) -> None:
    for provider, fake in fakes.items():
        fake.reset_script()
        stream, _ = lane.stream(target_of(provider, fake.base_url, MODELS[provider]))
        assert stream.dropped == ()


def test_a_provider_of_a_third_format_says_what_litellm_s_own_says(lane: Lane) -> None:
    with ollama() as base:
        target = target_of("ollama_chat", base, "llama3")
        _says_the_same(lane, target)
        body = lane.ask(target, tools=[TOOL]).body
        assert body["choices"][0]["message"]["content"] == "hello there"
        assert _usage(body) == (7, 2, 9)


def _says_the_same(lane: Lane, target: Target) -> None:
    ours = lane.ask(target).body
    theirs = lane.direct(target, messages=[{"role": "user", "content": "hello"}])
    assert _gist(ours) == _gist(theirs)
    _, events = lane.stream(target, stream_options={"include_usage": True})
    chunks = lane.direct(
        target,
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    assert _gist(aggregate(events)) == _gist(aggregate(chunks))
    assert events[-1]["choices"] == []
    assert _usage(events[-1]) == _usage(aggregate(chunks))


def _gist(body: Json) -> list[Any]:
    """The text, the calls and the end of each choice, and the usage."""
    said = [
        (
            choice["message"].get("content") or None,
            choice["message"].get("reasoning_content"),
            [
                (call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in choice["message"].get("tool_calls") or ()
            ],
            choice["finish_reason"],
        )
        for choice in body["choices"]
    ]
    return [said, _usage(body)]


def _usage(body: Json) -> tuple[int, ...]:
    usage = body["usage"]
    return tuple(usage[f"{kind}_tokens"] for kind in ("prompt", "completion", "total"))


@contextlib.contextmanager
def ollama() -> Iterator[str]:
    """The smallest Ollama: JSON at once, or a line for each word."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Ollama) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Ollama(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/api/chat"
        assert self.headers["authorization"] == f"Bearer {KEY}"
        words = ["hello ", "there"] if asked["stream"] else ["hello there"]
        lines = [self._line(word) for word in words]
        counts = {"prompt_eval_count": 7, "eval_count": 2, "done_reason": "stop", "done": True}
        lines[-1:] = (
            [lines[-1], self._line("", **counts)]
            if asked["stream"]
            else [self._line(words[0], **counts)]
        )
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("content-type", "application/x-ndjson")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _line(self, word: str, **more: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": word}
        head = {"model": "llama3", "created_at": "2026-01-01T00:00:00Z", "done": False}
        return {**head, "message": message, **more}

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""
