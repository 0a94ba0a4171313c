"""Anthropic's surface through its official SDK, whoever answers: Anthropic itself by its own wire,
OpenAI by a chat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest

from tests.harness import Mobius, total
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    ToolCall,
    Usage,
)

pytestmark = pytest.mark.e2e

KEYS = {"web": "sk-web-of-the-messages", "small": "sk-small-of-the-messages"}
HELLO: Any = [{"role": "user", "content": "hello"}]
WORDS = "t0 t1 t2 t3 t4 "
PIXEL = "iVBORw0KGgo="
LOOK: Any = {
    "name": "look",
    "description": "looks",
    "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}},
}
ASKED: Any = {"max_tokens": 64, "messages": HELLO}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    claude: FakeAnthropic
    gpt: FakeOpenAI

    @property
    def client(self) -> anthropic.Anthropic:
        return self.mobius.anthropic(KEYS["web"])

    def sent(self, model: str) -> Any:
        """The last request to the provider of a model."""
        return (self.claude if model.startswith("claude") else self.gpt).journal.last


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with (
        FakeAnthropic() as claude,
        FakeOpenAI() as gpt,
        Mobius(_config(claude, gpt), secrets=tuple(KEYS.values())) as mobius,
    ):
        yield Place(mobius, claude, gpt)


def _config(claude: FakeAnthropic, gpt: FakeOpenAI) -> dict[str, Any]:
    def entry(name: str, model: str, base: str, **params: Any) -> dict[str, Any]:
        place = {"model": model, "api_base": base, "api_key": "sk-provider-1234"}
        return {"model_name": name, "litellm_params": {**place, **params}}

    # A limit of the one account is none of the other's.
    limited = {"api_key": "sk-provider-5678"}
    own = {"extra_headers": {"anthropic-beta": "of-the-file"}, "extra_body": {"speed": "fast"}}
    return {
        "model_list": [
            entry("claude", "anthropic/claude-sonnet-4-6", claude.base_url),
            entry("claude-v1", "anthropic/claude-sonnet-4-6", f"{claude.base_url}/v1", **own),
            entry("claude-by-litellm", "anthropic/claude-sonnet-4-6", claude.base_url),
            entry("gpt", "openai/gpt-4o", gpt.base_url),
            entry("claude-first", "anthropic/claude-sonnet-4-6", claude.base_url),
            entry("gpt-first", "openai/gpt-4o", gpt.base_url),
            entry("claude-429", "anthropic/claude-sonnet-4-6", claude.base_url, **limited),
            entry("gpt-429", "openai/gpt-4o", gpt.base_url, **limited),
            entry("mistral", "mistral/mistral-large-latest", gpt.base_url),
        ],
        "router_settings": {
            "num_retries": 0,
            "fallbacks": [{"claude-first": ["gpt"]}, {"gpt-first": ["claude"]}],
        },
        "mobius": {
            "lanes": {"claude-by-litellm": "unified"},
            "laps": 1,
            "keys": [
                {"name": "web", "key": KEYS["web"]},
                {"name": "small", "key": KEYS["small"], "limits": {"rpm": 1}, "models": ["gpt"]},
            ],
            "breaker": {"failures": 1000, "min_calls": 1000},
        },
    }


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.claude, running.gpt):
        fake.reset_script()
        fake.journal.clear()
    return running


@pytest.mark.parametrize("model", ["claude", "claude-by-litellm", "gpt", "mistral"])
def test_a_message_whole_and_streamed(place: Place, model: str) -> None:
    for fake in (place.claude, place.gpt):
        fake.always(Answer(usage=Usage(20, 5, cached=8)))
    found = place.client.messages.create(model=model, **ASKED)
    assert (found.type, found.role, found.stop_reason) == ("message", "assistant", "end_turn")
    assert [block.text for block in found.content if block.type == "text"] == [WORDS]
    # What is cached is no part of the input as Anthropic counts it.
    usage = found.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (12, 8, 5)
    with place.client.messages.stream(model=model, **ASKED) as stream:
        assert "".join(stream.text_stream) == WORDS
        last = stream.get_final_message()
    assert [b.to_dict()["text"] for b in last.content] == [WORDS]
    assert last.stop_reason == "end_turn"
    if model != "mistral":  # whose streams LiteLLM counts itself
        assert (last.usage.input_tokens, last.usage.output_tokens) == (12, 5)
    assert found.id.startswith("msg_")
    assert last.id.startswith("msg_")


@pytest.mark.parametrize("model", ["claude", "gpt"])
def test_the_events_of_a_stream_are_in_anthropic_s_order(place: Place, model: str) -> None:
    said = Answer(reasoning="hm", tokens=2, tool_calls=(ToolCall("look", '{"at": "x"}'),) * 2)
    for fake in (place.claude, place.gpt):
        fake.always(said)
    raw = place.mobius.http.post(
        "/messages",
        json={"model": model, "stream": True, **ASKED, "tools": [LOOK]},
        headers={"x-api-key": KEYS["web"]},
    ).text
    names = [line.removeprefix("event: ") for line in raw.splitlines() if line[:6] == "event:"]
    once = [name for at, name in enumerate(names) if names[at - 1 : at] != [name] != ["ping"]]
    block = [f"content_block_{what}" for what in ("start", "delta", "stop")]
    expected = ["message_start", *block * 4, "message_delta", "message_stop"]
    assert [name for name in once if name != "ping"] == expected
    assert "[DONE]" not in raw


def test_anthropic_gets_the_bytes_and_the_caller_its_answer(place: Place) -> None:
    body = {
        "max_tokens": 5,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "größer",
                      "cache_control": {"type": "ephemeral"}}]}],
        "system": [{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "ann"},
        "a_field_of_tomorrow": {"x": [1]},
    }  # fmt: skip
    answer = place.mobius.http.post(
        "/v1/messages",
        json={"model": "claude-v1", **body},
        headers={
            "authorization": f"Bearer {KEYS['web']}",
            "anthropic-version": "2024-01-01",
            "anthropic-beta": "one,two",
        },
    )
    assert answer.status_code == 200
    sent = place.sent("claude")
    assert sent.json == {**body, "model": "claude-sonnet-4-6", "speed": "fast"}
    assert sent.path == "/v1/messages"
    assert sent.headers["x-api-key"] == "sk-provider-1234"
    assert "authorization" not in sent.headers
    assert sent.headers["anthropic-version"] == "2024-01-01"
    assert sent.headers["anthropic-beta"] == "one,two,of-the-file"
    assert answer.headers["request-id"] == answer.headers["x-request-id"]
    place.claude.script(Answer(raw_body=b'{"content": [], "odd" :1.50}'))
    answer = place.mobius.http.post(
        "/messages", json={"model": "claude", **ASKED}, headers={"x-api-key": KEYS["web"]}
    )
    assert answer.content == b'{"content": [], "odd" :1.50}'
    assert place.sent("claude").headers["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("model", ["claude", "claude-by-litellm", "gpt", "mistral"])
def test_tools_in_a_loop_of_several_turns(place: Place, model: str) -> None:
    calls = (ToolCall("look", '{"at": "x"}', "call_a"), ToolCall("look", '{"at": "y"}', "call_b"))
    for fake in (place.claude, place.gpt):
        fake.script(Answer(tool_calls=calls, tokens=2), Answer(text="done"))
    messages = [*HELLO]
    with place.client.messages.stream(
        model=model, max_tokens=64, messages=messages, tools=[LOOK], tool_choice={"type": "any"}
    ) as stream:
        partial = [e.partial_json for e in stream if e.type == "input_json"]
        found = stream.get_final_message()
    assert found.stop_reason == "tool_use"
    assert "".join(partial) == '{"at": "x"}{"at": "y"}'
    uses = [block for block in found.content if block.type == "tool_use"]
    assert [(use.id, use.name, use.input) for use in uses] == [
        ("call_a", "look", {"at": "x"}),
        ("call_b", "look", {"at": "y"}),
    ]
    results = [
        {"type": "tool_result", "tool_use_id": use.id, "content": f"seen {use.id}"} for use in uses
    ]
    messages += [
        {"role": "assistant", "content": found.content},
        {"role": "user", "content": [*results, {"type": "text", "text": "and?"}]},
    ]
    last = place.client.messages.create(model=model, max_tokens=64, messages=messages, tools=[LOOK])
    assert last.to_dict()["content"][0]["text"] == "done"  # type: ignore[index]
    if not model.startswith("claude"):
        sent = place.sent(model).json
        assert [m["role"] for m in sent["messages"]] == ["user", "assistant", *["tool"] * 2, "user"]
        assert [m["content"] for m in sent["messages"][2:]] == [
            "seen call_a",
            "seen call_b",
            "and?",
        ]
        assert [call["id"] for call in sent["messages"][1]["tool_calls"]] == ["call_a", "call_b"]
        assert sent["tools"][0]["function"]["parameters"] == LOOK["input_schema"]


@pytest.mark.parametrize("model", ["claude", "claude-by-litellm", "gpt"])
def test_thoughts_are_blocks_of_their_own(place: Place, model: str) -> None:
    for fake in (place.claude, place.gpt):
        fake.always(Answer(reasoning="let me see", tokens=3))
    asked: Any = {**ASKED, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    asked["max_tokens"] = 2048
    found = place.client.messages.create(model=model, **asked)
    with place.client.messages.stream(model=model, **asked) as stream:
        last = stream.get_final_message()
    for message in (found, last):
        kinds = [block.type for block in message.content]
        assert kinds == ["thinking", "text"]
        thought: Any = message.content[0].to_dict()
        assert thought["thinking"].strip() == "let me see"
        assert bool(thought["signature"]) == (model != "gpt")


def test_images_documents_and_the_rest_of_a_request_for_openai(place: Place) -> None:
    def image(kind: str) -> Any:
        if kind == "url":
            return {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}
        source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
        return {"type": "image", "source": source}

    text = {"type": "text", "media_type": "text/plain", "data": "of a file"}
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    client: Any = place.client
    client.messages.create(
        model="gpt",
        max_tokens=64,
        system=[{"type": "text", "text": "be"}, {"type": "text", "text": "brief"}],
        messages=[
            {"role": "user", "content": [image("url"), image("data"), {"type": "text", "text": "?"},
              {"type": "document", "source": text, "title": "a.txt"},
              {"type": "document", "source": pdf, "title": "a.pdf"}]},
            {"role": "assistant", "content": [
              {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
              {"type": "tool_use", "id": "c1", "name": "look", "input": {"at": "x"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1",
              "is_error": True, "content": [{"type": "text", "text": "half"}, image("data")]}]},
        ],
        tools=[{**LOOK, "cache_control": {"type": "ephemeral"}}],
        tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        extra_body={"temperature": 0.5},
        metadata={"user_id": "ann"},
        thinking={"type": "disabled"},
    )  # fmt: skip
    shown = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    sent = dict(place.sent("gpt").json)
    assert sent.pop("messages") == [
        {"role": "system", "content": "be\n\nbrief"},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
            shown,
            {"type": "text", "text": "?"},
            {"type": "text", "text": "a.txt\n\nof a file"},
            {"type": "file", "file": {
                "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function",
            "function": {"name": "look", "arguments": '{"at":"x"}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "Error:\nhalf"},
        {"role": "user", "content": [{"type": "text", "text": "Shown by c1:"}, shown]},
    ]  # fmt: skip
    function = {"name": "look", "description": "looks", "parameters": LOOK["input_schema"]}
    assert sent == {
        "model": "gpt-4o",
        "max_completion_tokens": 64,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": False,
        "stop": ["END"],
        "temperature": 0.5,
        "user": "ann",
    }


def test_what_openai_has_no_word_for_is_named_or_refused(place: Place) -> None:
    raw = place.client.messages.with_raw_response.create(
        model="gpt", **ASKED, extra_body={"top_k": 5}
    )
    assert raw.headers["x-mobius-dropped"] == "top_k"
    assert "top_k" not in place.sent("gpt").json
    place.gpt.journal.clear()
    shell: Any = {"type": "bash_20250124", "name": "bash"}
    with pytest.raises(anthropic.BadRequestError) as caught:
        place.client.messages.create(model="gpt", **ASKED, tools=[shell])
    assert "bash_20250124" in str(caught.value)
    assert len(place.gpt.journal) == 0
    # Another target may have the word.
    raw = place.client.messages.with_raw_response.create(model="gpt-first", **ASKED, tools=[shell])
    assert raw.headers["x-mobius-target"].startswith("claude/")
    assert len(place.gpt.journal) == 0


@pytest.mark.parametrize("model", ["claude", "gpt"])
def test_a_name_of_a_tool_that_openai_would_refuse_comes_back_whole(
    place: Place, model: str
) -> None:
    name = "mcp__a_server_with_a_very_long_name__and_a_tool_with_another_very_long_name"
    tool: Any = {**LOOK, "name": name}
    cut = _cut(name) if model == "gpt" else name
    for fake in (place.claude, place.gpt):
        fake.always(Answer(tool_calls=(ToolCall(cut),)))
    found = place.client.messages.create(model=model, **ASKED, tools=[tool])
    assert [block.name for block in found.content if block.type == "tool_use"] == [name]


FAILURES = {
    400: anthropic.BadRequestError,
    429: anthropic.RateLimitError,
    500: anthropic.InternalServerError,
    529: anthropic.InternalServerError,
}


@pytest.mark.parametrize("model", ["claude", "gpt"])
@pytest.mark.parametrize("status", FAILURES)
def test_errors_are_anthropic_s(place: Place, model: str, status: int) -> None:
    for fake in (place.claude, place.gpt):
        fake.always(Fails(status))
    asked = f"{model}-429" if status == 429 else model
    with pytest.raises(FAILURES[status]) as caught:
        place.client.messages.create(model=asked, **ASKED)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["request_id"] == caught.value.request_id
    kinds = {400: "invalid_request_error", 429: "rate_limit_error"}
    assert body["error"]["type"] == kinds.get(status, "overloaded_error")
    assert body["error"]["message"]


def test_errors_of_our_own_are_anthropic_s(place: Place) -> None:
    with pytest.raises(anthropic.AuthenticationError) as unknown:
        place.mobius.anthropic("sk-nobody").messages.create(model="gpt", **ASKED)
    assert unknown.value.type == "authentication_error"
    small = place.mobius.anthropic(KEYS["small"])
    with pytest.raises(anthropic.PermissionDeniedError):
        small.messages.create(model="claude", **ASKED)
    with pytest.raises(anthropic.NotFoundError):
        place.client.messages.create(model="nothing", **ASKED)
    with pytest.raises(anthropic.BadRequestError):
        place.client.messages.create(model="gpt", max_tokens=1, messages=[])
    small.messages.create(model="gpt", **ASKED)
    with pytest.raises(anthropic.RateLimitError) as full:
        small.messages.create(model="gpt", **ASKED)
    assert int(full.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize("model", ["claude", "gpt", "mistral"])
@pytest.mark.parametrize("how", ["ends", "reset", "error_event"])
def test_a_stream_that_breaks_is_never_cut_silently(place: Place, model: str, how: Any) -> None:
    for fake in (place.claude, place.gpt):
        fake.script(Breaks(tokens=5, after_tokens=2, how=how))
    said = []
    with (
        pytest.raises(anthropic.APIStatusError) as caught,
        place.client.messages.stream(model=model, **ASKED) as stream,
    ):
        said += list(stream.text_stream)
    assert caught.value.body["type"] == "error"  # type: ignore[index]


@pytest.mark.parametrize(("model", "other"), [("claude-first", "gpt"), ("gpt-first", "claude")])
@pytest.mark.parametrize("stream", [False, True])
def test_another_provider_goes_on_with_all_that_was_said(
    place: Place, model: str, other: str, stream: bool
) -> None:
    first, second = (place.claude, place.gpt)[:: 1 if other == "gpt" else -1]
    first.always(Fails(500))
    second.always(Answer(text="here"))
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    use = {"type": "tool_use", "id": "call.1:0", "name": "look", "input": {"at": "x"}}
    result = {"type": "tool_result", "tool_use_id": "call.1:0", "content": "seen"}
    messages: Any = [
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": [thought, {"type": "text", "text": "two"}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "three"}]},
    ]
    asked: Any = {"model": model, "max_tokens": 64, "messages": messages, "tools": [LOOK]}
    if stream:
        with place.client.messages.stream(**asked) as opened:
            found: Any = opened.get_final_message()
    else:
        found = place.client.messages.create(**asked)
    assert found.content[0].text == "here"
    heard = second.journal.last.json["messages"]
    if other == "gpt":
        assert [m["content"] for m in heard] == ["one", "two", "seen", "three"]
        assert heard[1]["tool_calls"][0]["id"] == heard[2]["tool_call_id"] == "call.1:0"
    else:
        # Anthropic refuses a thought that nobody has signed, and ids in other characters.
        assert heard[1]["content"] == [{"type": "text", "text": "two"}, {**use, "id": "call_1_0"}]
        assert heard[2]["content"][0] == {**result, "tool_use_id": "call_1_0"}


def test_tokens_are_counted_by_anthropic_or_estimated(place: Place) -> None:
    text = "word " * 4000
    asked: Any = {"messages": [{"role": "user", "content": text}], "system": "be brief"}
    found = place.client.messages.count_tokens(model="claude", **asked)
    sent = place.sent("claude")
    assert found.input_tokens == len(sent.body) // 4
    assert sent.path == "/v1/messages/count_tokens"
    assert sent.json == {**asked, "model": "claude-sonnet-4-6"}
    found = place.client.messages.count_tokens(model="gpt", **asked)
    assert 3000 < found.input_tokens < 8000
    assert len(place.gpt.journal) == 0
    before = place.mobius.metrics()
    place.client.messages.count_tokens(model="gpt", **asked)
    after = place.mobius.metrics()
    assert total(after, "mobius_tokens_total") == total(before, "mobius_tokens_total")
    name = "mobius_request_seconds_count"
    assert total(after, name, surface="count_tokens") - total(before, name) < total(after, name)


def _cut(name: str) -> str:
    return f"{name[:55]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
