"""
The parameters of a chat as Anthropic has them, where they are what most chats are made of.

Each is written as LiteLLM writes it; what a model may be asked stands in its `Habits`. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from proxy.facts import Habits
from proxy.types import Json
from proxy.upstream.fields import OURS
from proxy.upstream.tongues.claude_turns import turns_of
from proxy.upstream.tongues.unusual import Unusual

# What Anthropic's schema of a tool may hold, as LiteLLM has it; the rest is left out.
SCHEMA = frozenset({"type", "properties", "additionalProperties", "required", "$defs", "strict"})
OLD_SCHEMA = frozenset({"components", "definitions"})  # what LiteLLM writes anew
DEFAULT_TOKENS = 4096  # LiteLLM's, for a model that it does not know
# Whose models think, and have the parameters for it.
THINKS = frozenset({"supports_adaptive_thinking", "supports_reasoning"})
CHOICES: Mapping[object, str] = {"auto": "auto", "required": "any", "none": "none"}
NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
USER = re.compile(r"[a-zA-Z0-9_-]*[a-zA-Z][a-zA-Z0-9_-]*")  # no address and no telephone's number

_TOOL = frozenset({"type", "function", "cache_control"})
_FUNCTION = frozenset({"name", "description", "parameters", "strict"})

Write: TypeAlias = Callable[[Any, Habits], Json]


def message_of(body: Json, habits: Habits) -> dict[str, Any]:
    """Return the message that asks what a chat's body does, without its model. Raises Unusual."""
    said = {name: body[name] for name in body if body[name] is not None and name not in OURS}
    asked: dict[str, Any] = {"max_tokens": habits.max_output_tokens or DEFAULT_TOKENS}
    for name in said.keys() - _TOGETHER:
        if name not in PARAMETERS:
            raise Unusual(name)
        asked |= PARAMETERS[name](said[name], habits)
    asked |= _choice(said.get("tool_choice"), said.get("parallel_tool_calls"), habits)
    system, asked["messages"] = turns_of(body.get("messages"))
    if system:
        asked["system"] = system
    _check(asked, said)
    return asked


def _check(asked: Json, said: Json) -> None:
    """Raise Unusual where one part is written differently because of another."""
    calls = [block for turn in asked["messages"] for block in turn["content"] if _called(block)]
    if calls and "tools" not in asked:
        raise Unusual("calls of no tool")  # LiteLLM makes one up
    if "max_tokens" in said and "max_completion_tokens" in said:
        raise Unusual("two limits")
    thinking = asked.get("thinking", {}).get("type") == "enabled"
    if thinking and (calls or not said.keys() & {"max_tokens", "max_completion_tokens"}):
        raise Unusual("thinking")


def _called(block: Json) -> bool:
    return block["type"] in ("tool_use", "tool_result")


def _limit(value: Any, habits: Habits) -> Json:
    return {"max_tokens": _whole(value)}


def _older_limit(value: Any, habits: Habits) -> Json:
    # LiteLLM lowers this one, and not the newer, to what the model can write.
    return {"max_tokens": min(_whole(value), habits.max_output_tokens or _whole(value))}


def _sampling(name: str) -> Write:
    def write(value: Any, habits: Habits) -> Json:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unusual(name)
        alone = name == "temperature" and value == 1
        if not (alone or _surely("supports_sampling_params", habits)):
            raise Unusual(name)
        return {name: value}

    return write


def _stop(value: Any, habits: Habits) -> Json:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise Unusual("stop")
    return {"stop_sequences": words} if words else {}


def _user(value: Any, habits: Habits) -> Json:
    if not isinstance(value, str) or not USER.fullmatch(value):
        raise Unusual("user")
    return {"metadata": {"user_id": value}}


def _thinking(value: Any, habits: Habits) -> Json:
    has = habits.has
    if not has & THINKS:
        raise Unusual("thinking")
    adaptive = "supports_adaptive_thinking" in has and "supports_legacy_thinking" not in has
    match value:
        case {"type": "enabled", "budget_tokens": int(), **rest} if not adaptive and not rest:
            return {"thinking": value}
        case {"type": "disabled", **rest} if "thinking_always_on" not in has and not rest:
            return {"thinking": value}
        case _:
            raise Unusual("thinking")


def _format(value: Any, habits: Habits) -> Json:
    if value != {"type": "text"}:
        raise Unusual("response_format")
    return {}


def _tools(value: Any, habits: Habits) -> Json:
    if not isinstance(value, list) or not value:
        raise Unusual("tools")
    return {"tools": list(_written_tools(value))}


def _written_tools(tools: list[Any]) -> Iterator[Json]:
    for tool in tools:
        match tool:
            case {"type": "function", "function": {"name": str(name)} as function} if (
                NAME.fullmatch(name) and tool.keys() <= _TOOL and function.keys() <= _FUNCTION
            ):
                pass
            case _:
                raise Unusual("a tool")
        written = {"type": "custom", "name": name, "input_schema": _schema(function)}
        if (description := function.get("description")) is not None:
            written["description"] = description
        if (mark := tool.get("cache_control")) is not None:
            written["cache_control"] = mark
        yield written


def _schema(function: Json) -> Json:
    schema = function.get("parameters", {})
    if not isinstance(schema, dict) or schema.keys() & OLD_SCHEMA:
        raise Unusual("a schema")
    kept = {name: value for name, value in schema.items() if name in SCHEMA}
    return {"properties": {}, **kept, "type": "object"}


def _choice(choice: Any, parallel: Any, habits: Habits) -> Json:
    """Return which tool is to be called, and whether several at once."""
    told: dict[str, Any] = {}
    match choice:
        case None:
            pass
        case str() if choice in CHOICES:
            told = {"type": CHOICES[choice]}
        case {"type": "function", "function": {"name": str(name)}} if NAME.fullmatch(name):
            told = {"type": "tool", "name": name}
        case _:
            raise Unusual("tool_choice")
    forced = told.get("type") in ("any", "tool")
    if forced and not _surely("supports_forced_tool_use", habits):
        raise Unusual("tool_choice")
    if parallel is None:
        return {"tool_choice": told} if told else {}
    if not isinstance(parallel, bool):
        raise Unusual("parallel_tool_calls")
    if choice != "none":
        told = {"type": "auto", **told, "disable_parallel_tool_use": not parallel}
    return {"tool_choice": told}


def _surely(habit: str, habits: Habits) -> bool:
    """Say whether a model has a habit that all have of which nothing else is said."""
    return habits.max_output_tokens is not None and habit not in habits.lacks


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise Unusual("a number")
    return value


PARAMETERS: Mapping[str, Write] = {
    "max_completion_tokens": _limit,
    "max_tokens": _older_limit,
    "response_format": _format,
    "stop": _stop,
    "temperature": _sampling("temperature"),
    "thinking": _thinking,
    "tools": _tools,
    "top_k": _sampling("top_k"),
    "top_p": _sampling("top_p"),
    "user": _user,
}
_TOGETHER = frozenset({"tool_choice", "parallel_tool_calls"})
