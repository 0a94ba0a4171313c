"""The events of a message as those of a chat."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.aggregate import aggregate
from proxy.types import Json
from proxy.upstream.tongues.claude_events import Telling

USAGE = {"input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 1}
BEGINNING: Json = {
    "type": "message_start",
    "message": {"id": "msg_1", "model": "claude", "usage": USAGE},
}
STOP: Json = {"type": "message_stop"}


def opened(block: Json, index: int = 0) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(**fields: Any) -> Json:
    return {"type": "content_block_delta", "index": 0, "delta": fields}


def closed() -> Json:
    return {"type": "content_block_stop", "index": 0}


def ended(reason: str | None, **usage: int) -> Json:
    more = {"usage": usage} if usage else {}
    return {"type": "message_delta", "delta": {"stop_reason": reason}, **more}


def told(*events: Json) -> list[Json]:
    telling = Telling("asked", created_s=1)
    return [each for event in events for each in telling.feed(event)]


def finishes(events: list[Json]) -> list[str]:
    choices = [choice for event in events for choice in event.get("choices", ())]
    return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]


def test_a_message_is_the_chat_that_it_amounts_to() -> None:
    events = told(
        BEGINNING,
        opened({"type": "thinking", "thinking": "", "signature": ""}),
        delta(type="thinking_delta", thinking="well"),
        delta(type="signature_delta", signature="s"),
        closed(),
        opened({"type": "text", "text": ""}),
        {"type": "ping"},
        delta(type="text_delta", text="so"),
        closed(),
        opened({"type": "tool_use", "id": "t1", "name": "look", "input": {}}),
        delta(type="input_json_delta", partial_json='{"a": 1}'),
        closed(),
        opened({"type": "tool_use", "id": "t2", "name": "touch", "input": {}}),
        closed(),
        ended("tool_use", output_tokens=9),
        STOP,
    )
    body = aggregate([event for event in events if event["choices"]])
    message = body["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("so", "well")
    assert [(c["id"], c["function"]) for c in message["tool_calls"]] == [
        ("t1", {"name": "look", "arguments": '{"a": 1}'}),
        ("t2", {"name": "touch", "arguments": ""}),
    ]
    assert finishes(events) == ["tool_calls"]
    assert {event["id"] for event in events} == {"msg_1"}
    assert {event["model"] for event in events} == {"claude"}


def test_what_was_counted_first_stands_until_it_is_counted_again() -> None:
    usage = told(BEGINNING, ended("end_turn", output_tokens=9))[-1]["usage"]
    assert usage["prompt_tokens"] == 7
    assert usage["prompt_tokens_details"]["cached_tokens"] == 4
    assert (usage["completion_tokens"], usage["total_tokens"]) == (9, 16)


def test_every_thought_has_a_number_of_its_own() -> None:
    events = told(
        opened({"type": "redacted_thinking", "data": "x"}),
        delta(type="thinking_delta", thinking="a"),
        delta(type="signature_delta", signature="s"),
        delta(type="thinking_delta", thinking="b"),
    )
    blocks = [e["choices"][0]["delta"]["thinking_blocks"][0] for e in events]
    assert [block["index"] for block in blocks] == [0, 1, 1, 2]


def test_without_a_reason_to_stop_nothing_has_ended() -> None:
    assert finishes(told(BEGINNING, delta(type="text_delta", text="a"), closed())) == []
    assert finishes(told(BEGINNING, ended(None))) == []
    assert finishes(told(BEGINNING, delta(type="text_delta", text="a"), STOP)) == []


def test_a_message_that_stops_without_a_reason_has_ended_all_the_same() -> None:
    assert finishes(told(BEGINNING, ended(None), STOP)) == ["stop"]
    assert finishes(told(BEGINNING, ended("max_tokens"), STOP)) == ["length"]


def test_nothing_is_said_after_the_end() -> None:
    events = told(BEGINNING, ended("end_turn"), delta(type="text_delta", text="a"), STOP)
    assert finishes(events) == ["stop"]
    assert not any(choice["delta"] for event in events for choice in event["choices"])


@pytest.mark.parametrize(
    ("pieces", "arguments"), [([], ""), ([""], "{}"), (["", ""], "{}"), (["{", "}"], "{}")]
)
def test_a_call_without_arguments_has_an_empty_object_of_them(
    pieces: list[str], arguments: str
) -> None:
    events = told(
        opened({"type": "tool_use", "id": "t1", "name": "look", "input": {}}),
        *(delta(type="input_json_delta", partial_json=piece) for piece in pieces),
        closed(),
    )
    calls = [call for e in events for call in e["choices"][0]["delta"]["tool_calls"]]
    assert "".join(call["function"]["arguments"] for call in calls) == arguments


def test_a_piece_of_json_that_is_no_call_s_is_not_told() -> None:
    piece = delta(type="input_json_delta", partial_json="{}")
    assert told(opened({"type": "web_search_tool_result", "content": []}), piece, closed()) == []


@pytest.mark.parametrize(
    "error", [{"type": "overloaded_error", "message": "Overloaded"}, "a text", None]
)
def test_an_error_is_an_error_whatever_it_says(error: object) -> None:
    [event] = told({"type": "error", "error": error})
    assert event["error"]
