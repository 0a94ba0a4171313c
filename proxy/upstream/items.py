"""
LiteLLM's Responses as OpenAI's JSON.

What is empty stays away, but for the fields that OpenAI always has; an item has all of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from proxy.types import Json

# That OpenAI has in every response, if only as null.
ALWAYS = frozenset(
    {
        *("error", "incomplete_details", "instructions", "metadata", "temperature", "top_p"),
        *("previous_response_id", "max_output_tokens", "reasoning", "truncation"),
    }
)
OWN = frozenset({"provider_specific_fields", "cost"})  # LiteLLM's, at any level
AS_SAID = frozenset({"metadata", "parameters", "schema"})  # the caller's words, nulls and all
# By the type of an item or of a part of one: the fields that it always has.
FIELDS: Mapping[object, Json] = {
    "message": {"content": []},
    "output_text": {"annotations": [], "logprobs": []},
    "reasoning": {"summary": []},
}


def response_of(body: Json) -> dict[str, Any]:
    """Return a response with the model's name as the provider has it."""
    kept = {name: None for name, value in body.items() if value is None and name in ALWAYS}
    told = {**_told(body), **kept}
    for tool in told.get("tools", ()):
        if tool.get("type") == "function":
            tool |= {"parameters": tool.get("parameters"), "strict": tool.get("strict")}
    if isinstance(model := told.get("model"), str):
        told["model"] = model.partition("/")[2] or model
    return told


class Events:
    """The events of one stream, one after the other, with the fields that each of them has."""

    def __init__(self) -> None:
        self._numbers = count()
        self._names: dict[object, object] = {}  # of functions, by the place of their call

    def read(self, event: Json) -> dict[str, Any]:
        """Return the next event."""
        told = {**_told(event), "sequence_number": next(self._numbers)}
        if isinstance(response := event.get("response"), Mapping):
            told["response"] = response_of(response)
        match told.get("type"):
            case "response.output_text.delta" | "response.output_text.done":
                told.setdefault("logprobs", [])
            case "response.output_item.added":
                self._names[told.get("output_index")] = told.get("item", {}).get("name")
            case "response.function_call_arguments.done":
                told.setdefault("name", self._names.get(told.get("output_index")))
            case "error":
                told = {"code": None, "param": None, **told}
            case _:
                pass
        return told


def _told(value: Any) -> Any:
    """Return JSON without the fields that are null or LiteLLM's own."""
    if isinstance(value, Mapping):
        told = {
            name: each if name in AS_SAID else _told(each)
            for name, each in value.items()
            if each is not None and name not in OWN
        }
        return {**FIELDS.get(told.get("type"), {}), **told}
    return [_told(item) for item in value] if isinstance(value, list) else value
