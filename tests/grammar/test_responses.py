from __future__ import annotations

from typing import Any

import pytest

from proxy.grammar.responses import OPENINGS, Responses
from proxy.types import Json, Usage

RESPONSES = Responses()
WHOLE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "größe"}]},
        {"type": "message", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "function_call", "arguments": "{}", "name": "look"},
    ],
    "usage": {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 18,
    },
}
COUNTED = Usage(prompt_tokens=10, completion_tokens=8, cached_tokens=4, reasoning_tokens=3)


@pytest.mark.parametrize("kind", sorted(OPENINGS))
def test_an_empty_place_begins_no_answer(kind: str) -> None:
    assert not RESPONSES.begins({"type": kind, "response": {}})


@pytest.mark.parametrize(
    "kind",
    [
        "response.output_text.delta",
        "response.function_call_arguments.delta",
        "response.refusal.delta",
        "response.reasoning_summary_text.delta",
        "response.completed",
    ],
)
def test_the_least_piece_of_an_answer_begins_it(kind: str) -> None:
    assert RESPONSES.begins({"type": kind, "delta": "a"})


@pytest.mark.parametrize("kind", ["completed", "incomplete"])
def test_a_response_in_full_or_up_to_its_limit_is_an_end(kind: str) -> None:
    end = {"type": f"response.{kind}", "response": WHOLE}
    assert list(RESPONSES.endings(end)) == [(0, True)]
    assert RESPONSES.whole([{"type": "response.created", "response": {}}, end]) == WHOLE
    assert RESPONSES.usage(end, None) == RESPONSES.usage(WHOLE, None) == COUNTED
    assert RESPONSES.reports(end)


@pytest.mark.parametrize("kind", ["output_text.done", "output_item.done", "in_progress", "failed"])
def test_nothing_else_is_an_end(kind: str) -> None:
    event = {"type": f"response.{kind}", "response": {**WHOLE, "status": "in_progress"}}
    assert list(RESPONSES.endings(event)) == [(0, False)]
    with pytest.raises(ValueError, match="no end"):
        RESPONSES.whole([event])


def test_every_way_to_report_an_error_is_a_failure() -> None:
    error = {"code": "server_error", "message": "no"}
    for event in (
        {"type": "response.failed", "response": {"status": "failed", "error": error}},
        {"type": "error", "sequence_number": 3, "error": error},
        {**WHOLE, "status": "failed", "error": error},
        {"error": error},
    ):
        assert (RESPONSES.failure(event) or {})["error"] == error
    flat = RESPONSES.failure({"type": "error", **error, "param": None, "sequence_number": 3})
    assert flat is not None
    assert (flat["error"]["code"], flat["error"]["message"]) == ("server_error", "no")
    assert RESPONSES.failure({"type": "response.failed", "response": {}}) is not None
    for sound in (WHOLE, {**WHOLE, "error": None}, {"type": "response.created", "response": WHOLE}):
        assert RESPONSES.failure(sound) is None


def test_what_was_said_is_counted_alike_whole_and_in_pieces() -> None:
    assert RESPONSES.said_bytes(WHOLE) == len("hm" + "größe" + "no" + "{}") + 2
    assert RESPONSES.text_bytes({"type": "response.output_text.delta", "delta": "größe"}) == 7
    assert RESPONSES.text_bytes({"type": "response.audio.delta", "delta": "AAAA"}) == 0
    assert RESPONSES.text_bytes({"type": "response.output_text.done", "text": "größe"}) == 0


def test_a_whole_response_is_told_as_a_stream_and_read_back_the_same() -> None:
    for body in (WHOLE, {**WHOLE, "status": "incomplete"}):
        events = RESPONSES.events(body, usage=True)
        assert RESPONSES.whole(events) == body
        assert [each["sequence_number"] for each in events] == list(range(len(events)))
        assert events[-1]["type"] == f"response.{body['status']}"
    assert RESPONSES.done == b""


def test_only_a_list_of_items_is_an_answer() -> None:
    assert RESPONSES.answers({"output": []})
    others: list[Any] = [None, [], {}, {"output": None}, {"choices": []}]
    for other in others:
        assert not RESPONSES.answers(other)


def test_why_it_ended_is_read_of_the_last() -> None:
    plain = {"status": "completed", "output": []}
    assert RESPONSES.reasons([WHOLE]) == ["tool_calls"]
    assert RESPONSES.reasons([plain]) == ["stop"]
    begun = {"type": "response.created", "response": {"status": "in_progress"}}
    cut: Json = {"status": "incomplete"}
    filtered = {**cut, "incomplete_details": {"reason": "content_filter"}}
    for response, expected in ((plain, "stop"), (cut, "length"), (filtered, "content_filter")):
        end = {"type": f"response.{response['status']}", "response": response}
        assert RESPONSES.reasons([begun, end]) == [expected]
        assert RESPONSES.reasons([begun, end, {"type": "keepalive"}]) == [expected]
    assert RESPONSES.reasons([{"status": "queued", "output": []}]) == [None]
    assert RESPONSES.reasons([begun]) == [None]
