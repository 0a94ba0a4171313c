"""LiteLLM's Responses, as OpenAI would have written them."""

from __future__ import annotations

from typing import Any

from proxy.upstream.items import Events, response_of

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
    events = Events()
    delta = events.read({"type": "response.output_text.delta", "delta": "a", "item": None})
    assert delta == {
        "type": "response.output_text.delta",
        "delta": "a",
        "sequence_number": 0,
        "logprobs": [],
    }
    done = events.read({"type": "response.completed", "response": EMPTY})
    assert (done["response"]["model"], done["sequence_number"]) == ("claude", 1)
    failed = events.read({"type": "error", "message": "no", "code": None})
    assert failed == {
        "type": "error", "message": "no", "code": None, "param": None, "sequence_number": 2,
    }  # fmt: skip


def test_the_arguments_of_a_call_end_with_the_name_of_its_function() -> None:
    events = Events()
    for place, name in enumerate(("look", "touch")):
        item = {"type": "function_call", "name": name, "caller": None}
        added = {"type": "response.output_item.added", "output_index": place, "item": item}
        assert events.read(added)["item"] == {"type": "function_call", "name": name}
    ended = {"type": "response.function_call_arguments.done", "output_index": 1}
    assert events.read(ended)["name"] == "touch"
