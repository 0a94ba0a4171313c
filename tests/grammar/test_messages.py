"""How Anthropic's messages are read."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.grammar import GRAMMARS
from proxy.types import Json, Surface, Usage

GRAMMAR = GRAMMARS[Surface.MESSAGES]
BLOCKS: list[Json] = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "redacted_thinking", "data": "d"},
    {"type": "text", "text": "größer", "citations": [{"type": "char_location", "cited_text": "g"}]},
    {"type": "tool_use", "id": "a", "name": "n", "input": {"x": [1, {}]}},
    {"type": "server_tool_use", "id": "b", "name": "web_search", "input": {}},
    {"type": "web_search_tool_result", "tool_use_id": "b", "content": [{"url": "u"}]},
    {"type": "text", "text": ""},
]
MESSAGE: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": BLOCKS,
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "cache_read_input_tokens": 2, "output_tokens": 9},
}


def test_a_message_is_the_same_after_it_was_a_stream() -> None:
    events = GRAMMAR.events(MESSAGE, usage=True)
    assert GRAMMAR.whole(events) == MESSAGE
    assert events[0]["message"]["content"] == []
    assert events[-1] == {"type": "message_stop"}
    assert GRAMMAR.reasons(events) == GRAMMAR.reasons([MESSAGE]) == ["tool_calls"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", ["stop"]),
        ("stop_sequence", ["stop"]),
        ("max_tokens", ["length"]),
        ("refusal", ["content_filter"]),
        ("pause_turn", ["pause_turn"]),
        (None, []),
    ],
)
def test_why_a_message_ended_is_told_as_of_a_chat(reason: str | None, expected: list[str]) -> None:
    assert GRAMMAR.reasons([{**MESSAGE, "stop_reason": reason}]) == expected


def test_a_stream_without_its_last_event_has_not_ended() -> None:
    assert GRAMMAR.reasons(GRAMMAR.events(MESSAGE, usage=True)[:-1]) == []


@pytest.mark.parametrize(
    "events",
    [
        [],
        [{"type": "content_block_start", "index": 0, "content_block": {}}],
        [{"type": "message_start", "message": {}},
         {"type": "content_block_delta", "index": 0, "delta": {}}],
        [{"type": "message_start", "message": {}},
         {"type": "content_block_start", "index": 1, "content_block": {}}],
    ],
)  # fmt: skip
def test_events_that_do_not_fit_are_no_message(events: list[Json]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        GRAMMAR.whole(events)


@pytest.mark.parametrize(
    ("event", "begins", "endings"),
    [
        ({"type": "ping"}, False, []),
        ({"type": "message_start", "message": {}}, False, [(0, False)]),
        ({"type": "content_block_start", "content_block": {"type": "text"}}, False, []),
        ({"type": "content_block_start", "content_block": {"type": "thinking"}}, False, []),
        ({"type": "content_block_start", "content_block": {"type": "tool_use"}}, True, []),
        ({"type": "content_block_delta", "delta": {}}, True, []),
        ({"type": "content_block_stop"}, False, []),
        ({"type": "message_delta", "delta": {"stop_reason": None}}, False, [(0, False)]),
        ({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, True, [(0, True)]),
        ({"type": "message_stop"}, True, [(0, True)]),
        ({"type": "an event of tomorrow"}, False, []),
    ],
)
def test_where_content_begins_and_ends(event: Json, begins: bool, endings: Any) -> None:
    assert GRAMMAR.begins(event) is begins
    assert list(GRAMMAR.endings(event)) == endings


def test_tokens_of_a_stream_add_up_over_its_two_reports() -> None:
    start = {"type": "message_start", "message": {"usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 6,
        "cache_creation": {"ephemeral_1h_input_tokens": 3}, "output_tokens": 1}}}  # fmt: skip
    before = GRAMMAR.usage(start, None)
    assert before == Usage(20, 1, 6, 4, 3)
    end = {"type": "message_delta", "usage": {
        "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 30}}}  # fmt: skip
    assert GRAMMAR.usage(end, before) == Usage(20, 50, 6, 4, 3, 30)
    shrunk = {"type": "message_delta", "usage": {"input_tokens": 0, "output_tokens": 50}}
    assert GRAMMAR.usage(shrunk, before) == Usage(20, 50, 6, 4, 3)
    for absurd in (None, {}, {"output_tokens": -1}, {"output_tokens": "9"}, 7):
        assert GRAMMAR.usage({"type": "message_delta", "usage": absurd}, before) is before


def test_what_is_said_is_measured_the_same_whole_and_streamed() -> None:
    texts = {**MESSAGE, "content": BLOCKS[:4]}
    events = GRAMMAR.events(texts, usage=True)
    assert sum(map(GRAMMAR.text_bytes, events)) == GRAMMAR.said_bytes(texts)
    assert GRAMMAR.said_bytes(texts) == len("hm") + len("größer".encode()) + len(b'{"x":[1,{}]}')


def test_errors_and_answers_are_told_apart() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    assert GRAMMAR.failure(error) is error
    assert GRAMMAR.failure(MESSAGE) is None
    assert GRAMMAR.answers(MESSAGE)
    assert not any(map(GRAMMAR.answers, (error, [], None, {"content": "a"})))


def test_a_count_is_an_answer_that_costs_nothing() -> None:
    counted = GRAMMARS[Surface.COUNT_TOKENS]
    assert counted.answers({"input_tokens": 5})
    assert not counted.answers({"input_tokens": "5"})
    assert counted.usage({"input_tokens": 5}, None) == Usage()
