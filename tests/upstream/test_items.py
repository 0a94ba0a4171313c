"""LiteLLM's Responses, as OpenAI would have written them."""

from __future__ import annotations

from typing import Any

from proxy.upstream.items import response_event, response_of

EMPTY: dict[str, Any] = {"id": "r", "model": "anthropic/claude", "error": None, "reasoning": None}


def test_what_openai_always_has_is_there_and_nothing_else_that_is_empty() -> None:
    told = response_of({**EMPTY, "user": None, "store": None, "provider_specific_fields": {"a": 1}})
    assert told == {"id": "r", "model": "claude", "error": None, "reasoning": None}


def test_usage_says_what_was_counted() -> None:
    usage = {"input_tokens": 1, "input_tokens_details": {"audio_tokens": None}, "cost": 0.1}
    told = response_of({"usage": usage})
    assert told["usage"] == {"input_tokens": 1, "input_tokens_details": {}}


def test_an_item_has_all_the_fields_of_its_type() -> None:
    text = {"type": "output_text", "text": "a", "annotations": None}
    told = response_of(
        {"output": [{"type": "message", "phase": None, "content": [text]}, {"type": "reasoning"}]}
    )
    whole = {"type": "output_text", "text": "a", "annotations": [], "logprobs": []}
    assert told["output"] == [
        {"type": "message", "content": [whole]},
        {"type": "reasoning", "summary": []},
    ]


def test_the_callers_own_words_come_back_as_they_were() -> None:
    schema = {"type": "object", "properties": {"a": {"default": None}}}
    tool = {"type": "function", "name": "look", "parameters": schema, "description": None}
    form = {"format": {"type": "json_schema", "schema": schema}}
    choice = {"type": "function", "name": "look"}
    told = response_of({"tools": [tool, {"type": "other"}], "tool_choice": choice, "text": form})
    assert told["tools"] == [
        {"type": "function", "name": "look", "parameters": schema, "strict": None},
        {"type": "other"},
    ]
    assert (told["tool_choice"], told["text"]) == (choice, form)


def test_an_event_is_numbered_and_holds_what_belongs_to_it() -> None:
    delta = response_event({"type": "response.output_text.delta", "delta": "a", "item": None}, 3)
    assert delta == {
        "type": "response.output_text.delta",
        "delta": "a",
        "sequence_number": 3,
        "logprobs": [],
    }
    done = response_event({"type": "response.completed", "response": EMPTY}, 4)
    assert done["response"]["model"] == "claude"
    failed = response_event({"type": "error", "message": "no", "code": None}, 5)
    assert failed == {
        "type": "error", "message": "no", "code": None, "param": None, "sequence_number": 5,
    }  # fmt: skip
