"""A chat's answer told again as OpenAI's Responses: valid by OpenAI's schemas, and nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from proxy.grammar import GRAMMARS
from proxy.replay import body_of
from proxy.types import Json, Surface, Usage
from proxy.upstream.retell import Retelling, whole_of

# Of OpenAI's published description, what a chat's answer can become.
SCHEMAS = Path(__file__).parents[1] / "e2e" / "openai_responses_schemas.json"
COMPONENTS = {"components": json.loads(SCHEMAS.read_bytes())["components"]}
EVENTS: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
GRAMMAR = GRAMMARS[Surface.RESPONSES]

ASKED: Json = {
    "model": "m",
    "input": "hello",
    "temperature": 0.5,
    "tools": [
        {"type": "function", "name": "look", "parameters": {"type": "object"}},
        {"type": "custom", "name": "patch"},
    ],
}
USAGE = {"prompt_tokens": 30, "completion_tokens": 20, "total_tokens": 50}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "s1"}
HIDDEN = {"type": "redacted_thinking", "data": "x", "index": 1}


def delta(finish: str | None = None, **fields: Any) -> Json:
    return {
        "id": "chatcmpl-1",
        "model": "a-model",
        "choices": [{"index": 0, "delta": fields, "finish_reason": finish}],
    }


def call(index: int, **function: str) -> Json:
    named = {"id": f"call_{index}"} if "name" in function else {}
    return delta(tool_calls=[{"index": index, **named, "type": "function", "function": function}])


CHATS: dict[str, list[Json]] = {
    "text": [delta(role="assistant"), delta(content="so "), delta(content="it is"), delta("stop")],
    "nothing": [delta("stop")],
    "cut": [delta(content="so"), delta("length")],
    "filtered": [delta(content="so"), delta("content_filter")],
    "refused": [delta(refusal="I "), delta(refusal="will not"), delta("stop")],
    "text, then refused": [delta(content="well"), delta(refusal="no"), delta("stop")],
    "thoughts": [
        delta(reasoning_content="hm "),
        delta(reasoning_content="hm"),
        delta(content="so"),
        delta("stop"),
    ],
    "signed thoughts": [
        delta(reasoning_content="h", thinking_blocks=[{"thinking": "h", "index": 0}]),
        delta(reasoning_content="m", thinking_blocks=[{"thinking": "m", "index": 0}]),
        delta(thinking_blocks=[{"type": "thinking", "signature": "s1", "index": 0}]),
        delta(thinking_blocks=[HIDDEN]),
        delta(content="so"),
        delta("stop"),
    ],
    "calls": [
        delta(content="wait"),
        call(0, name="look", arguments=""),
        call(0, arguments='{"a"'),
        call(1, name="look", arguments='{"b": 2}'),
        call(0, arguments=": 1}"),
        delta("tool_calls"),
    ],
    "a call without arguments": [call(0, name="look"), delta("tool_calls")],
    "text after a call": [
        call(0, name="look", arguments="{}"),
        delta(content="then"),
        delta("stop"),
    ],
    "a custom tool": [
        call(0, name="patch", arguments='{"content": "*** Be'),
        call(0, arguments='gin\\n"}'),
        delta("tool_calls"),
    ],
    "links": [
        delta(content="see"),
        delta(annotations=[{"type": "url_citation", "url_citation": {"url": "https://x.test"}}]),
        delta("stop"),
    ],
}  # fmt: skip
chats = pytest.mark.parametrize("name", CHATS)


def check(name: str, body: Any) -> None:
    schema = {"$ref": f"#/components/schemas/{name}", **COMPONENTS}
    faults = list(Draft202012Validator(schema).iter_errors(body))
    assert not faults, [f"{fault.json_path}: {fault.message}" for fault in faults]


def numbered() -> Any:
    numbers = count()
    return lambda prefix: f"{prefix}{next(numbers)}"


def told(chat: Iterable[Json], asked: Json = ASKED) -> list[Json]:
    telling = Retelling(asked, numbered(), now_s=1_800_000_000.0)
    events = [event for each in chat for event in telling.tell(each)]
    events += telling.tell({"model": "a-model", "choices": [], "usage": USAGE})
    return [*events, *telling.end()]


@chats
def test_every_event_is_valid_and_numbered(name: str) -> None:
    events = told(CHATS[name])
    for number, event in enumerate(events):
        check("ResponseStreamEvent", event)
        EVENTS.validate_python(event)
        assert event["sequence_number"] == number
    Response.model_validate(events[-1]["response"])
    kinds = [event["type"] for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert [kind for kind in kinds if kind in ("response.completed", "response.incomplete")] == [
        kinds[-1]
    ]


@chats
def test_every_item_is_opened_told_and_closed(name: str) -> None:
    events = told(CHATS[name])
    output = events[-1]["response"]["output"]
    assert {e["output_index"] for e in events if "output_index" in e} == set(range(len(output)))
    for index, item in enumerate(output):
        own = [event for event in events if event.get("output_index") == index]
        assert own[0]["type"] == "response.output_item.added"
        assert own[-1]["type"] == "response.output_item.done"
        assert own[-1]["item"] == item
        pieces = "".join(event["delta"] for event in own if event["type"].endswith(".delta"))
        assert pieces == "".join(_texts(item))


@chats
def test_a_whole_answer_says_what_its_stream_says(name: str) -> None:
    chat = CHATS[name]
    if name == "text after a call":
        return  # of a whole chat nobody knows what came first
    body = {**body_of(chat), "usage": USAGE}
    whole = whole_of(body, ASKED, numbered(), now_s=1_800_000_000.0)
    check("Response", whole)
    last = told(chat)[-1]["response"]
    assert _unnamed(whole["output"]) == _unnamed(last["output"])
    assert {k: whole[k] for k in ("status", "usage", "incomplete_details")} == {
        k: last[k] for k in ("status", "usage", "incomplete_details")
    }


@chats
def test_the_grammar_reads_it(name: str) -> None:
    events = told(CHATS[name])
    assert GRAMMAR.whole(events) == events[-1]["response"]
    assert GRAMMAR.answers(events[-1]["response"])
    assert any(map(GRAMMAR.begins, events))
    assert not GRAMMAR.begins(events[0])
    assert not any(map(GRAMMAR.failure, events))
    ended = [end for event in events for _, end in GRAMMAR.endings(event)]
    assert (ended.count(True), ended[-1]) == (1, True)
    usage = None
    for event in events:
        usage = GRAMMAR.usage(event, usage)
    assert usage == Usage(30, 20)
    said = sum(map(GRAMMAR.text_bytes, events))
    assert said == GRAMMAR.said_bytes(events[-1]["response"])


def test_an_answer_says_what_was_asked() -> None:
    response = told(CHATS["text"], {**ASKED, "instructions": "be brief", "user": None})[-1][
        "response"
    ]
    assert (response["instructions"], response["temperature"]) == ("be brief", 0.5)
    assert [tool["type"] for tool in response["tools"]] == ["function", "custom"]
    assert (response["store"], response["previous_response_id"]) == (False, None)
    assert response["model"] == "a-model"


def test_signed_thoughts_go_back_and_forth() -> None:
    thoughts = told(CHATS["signed thoughts"])[-1]["response"]["output"][0]
    assert thoughts["summary"] == [{"type": "summary_text", "text": "hm"}]
    signed = json.loads(thoughts["encrypted_content"])
    assert signed == [SIGNED, {"type": "redacted_thinking", "data": "x"}]


def test_a_custom_tool_is_called_with_plain_text() -> None:
    (item,) = told(CHATS["a custom tool"])[-1]["response"]["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "*** Begin\n")


def test_calls_that_come_in_turns_stay_apart() -> None:
    output = told(CHATS["calls"])[-1]["response"]["output"]
    assert [item.get("arguments") for item in output] == [None, '{"a": 1}', '{"b": 2}']
    assert [item.get("call_id") for item in output] == [None, "call_0", "call_1"]


def test_every_kind_of_token_is_reported() -> None:
    usage = {
        **USAGE,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_creation_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    telling = Retelling(ASKED, numbered(), now_s=0.0)
    telling.tell({**delta("stop", content="a"), "usage": usage})
    (last,) = telling.end()[-1:]
    assert GRAMMAR.usage(last, None) == Usage(
        30, 20, cached_tokens=5, cache_write_tokens=4, reasoning_tokens=3
    )
    assert last["response"]["usage"]["input_tokens_details"]["cached_tokens"] == 5


@pytest.mark.parametrize(
    "said",
    [
        {"choices": None},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"tool_calls": [7, {"function": None}, {"index": "x"}]}}]},
        {"choices": [{"delta": {"thinking_blocks": [7], "annotations": [7, {}]}}]},
        {"choices": [{"delta": {"content": 7, "reasoning_content": {}}}]},
        {"choices": [{"index": 1, "delta": {"content": "of another"}}]},
    ],
)
def test_nothing_odd_in_a_chat_is_an_error(said: Json) -> None:
    events = told([said, delta(content="so"), delta("stop")])
    assert "so" in "".join(
        text for item in events[-1]["response"]["output"] for text in _texts(item)
    )


def _texts(item: Json) -> Iterable[str]:
    for name in ("arguments", "input"):
        if name in item:
            yield item[name]
    for part in (*item.get("summary", ()), *item.get("content", ())):
        yield part.get("text", part.get("refusal"))


def _unnamed(output: Iterable[Json]) -> list[Json]:
    return [{k: v for k, v in item.items() if k != "id"} for item in output]
