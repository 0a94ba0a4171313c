"""
The translated lane of chats against the unified one, on requests that nobody thought of: the pieces
of good and bad requests, put together at random.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.types import Json
from tests.upstream.test_lanes_agree import PIXEL
from tests.upstream.test_tongues_agree import (
    CALLED,
    EPHEMERAL,
    HIDDEN,
    RICH,
    THOUGHT,
    Both,
    asked,
    both,
    counted,
    image,
    target,
    tool,
)
from tests.upstream.test_unified import TOOL

__all__ = ["both"]  # a fixture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

# Whatever is put together of these is written as LiteLLM writes it, or by it.
_TEXTS: list[Any] = ["hi", "", "  ", "a \n", None, 5, [], {}]
_MARKS: list[Any] = [EPHEMERAL, {**EPHEMERAL, "ttl": "5m"}, None, "x", {}]
_PARTS: list[Any] = [
    *({"type": "text", "text": said} for said in _TEXTS),
    *({"type": "text", "text": "kept", "cache_control": mark} for mark in _MARKS),
    image(PIXEL),
    image({"url": PIXEL, "format": "image/webp"}),
    image({"url": "https://x.test/a.png"}),
    image("data:application/pdf;base64,AAAA"),
    image("data:image/png;base64,"),
    image("data:image/png;charset=x;base64,AAAA"),
    image("nothing"),
    THOUGHT,
    {"type": "text"},
    {"text": "no type"},
    "bare",
]
_CALLS: list[Any] = [
    CALLED,
    {**CALLED, "id": "c2"},
    {**CALLED, "id": "c 3"},
    {**CALLED, "id": ""},
    {**CALLED, "type": "custom"},
    {**CALLED, "function": {"name": "look", "arguments": "[]"}},
    {**CALLED, "function": {"name": "look", "arguments": '{"a": 1e400}'}},
    {**CALLED, "function": {"name": "look", "arguments": " "}},
    {**CALLED, "cache_control": EPHEMERAL},
]
_THOUGHTS: list[Any] = [THOUGHT, HIDDEN, {**THOUGHT, "signature": ""}, {"type": "thinking"}, "x"]


def _some(pool: list[Any], most: int = 3) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.sampled_from(pool), max_size=most)


def _maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_CONTENT = st.one_of(st.sampled_from(_TEXTS), _some(_PARTS))
_MESSAGE = st.builds(
    lambda role, said, more: {"role": role, "content": said, **more},
    st.sampled_from(["user", "user", "user", "system", "developer", "critic"]),
    _CONTENT,
    _maybe(name=st.just("ann"), cache_control=st.sampled_from(_MARKS)),
)
_ANSWER = st.builds(
    lambda said, more: {"role": "assistant", "content": said, **more},
    _CONTENT,
    _maybe(
        tool_calls=_some(_CALLS, 2),
        thinking_blocks=_some(_THOUGHTS, 2),
        cache_control=st.sampled_from(_MARKS),
        refusal=st.sampled_from([None, "no"]),
        reasoning_content=st.just("hm"),
        annotations=st.just([]),
    ),
)
_RESULT = st.builds(
    lambda id, said: {"role": "tool", "tool_call_id": id, "content": said},
    st.sampled_from(["c1", "c2", "c 3", "c9", "", None]),
    _CONTENT,
)
_EXCHANGE = st.builds(
    lambda calls, said: [
        {"role": "assistant", "content": said, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": c["id"], "content": "found"} for c in calls),
    ],
    _some(_CALLS, 2),
    st.sampled_from(_TEXTS),
)
_TURNS = st.lists(
    st.one_of(
        _MESSAGE.map(lambda message: [message]),
        _ANSWER.map(lambda message: [message]),
        _RESULT.map(lambda message: [message]),
        _EXCHANGE,
    ),
    min_size=1,
    max_size=4,
).map(lambda parts: [message for part in parts for message in part])
_TOOLS: list[Any] = [
    TOOL,
    tool("look", description="", parameters=None),
    tool("touch", parameters=RICH, strict=False),
    tool("touch", parameters={"properties": None, "required": None, "additionalProperties": {}}),
    tool("x" * 129),
    {**TOOL, "cache_control": None},
    {"type": "custom", "function": {"name": "look"}},
    {"type": "function", "name": "flat"},
]
_FIELDS = _maybe(
    max_tokens=st.sampled_from([1, 0, -1, 70_000, True, "5", 2.0]),
    max_completion_tokens=st.sampled_from([1, 70_000, None]),
    temperature=st.sampled_from([0, 1, 1.0, 0.5, 2, True, "1"]),
    top_p=st.sampled_from([0.5, 1, None]),
    top_k=st.sampled_from([1, 0, "1"]),
    stop=st.sampled_from(["a", "", " ", [], [""], ["a", "b"], [None]]),
    tools=_some(_TOOLS),
    tool_choice=st.sampled_from(
        [
            "auto",
            "none",
            "required",
            "any",
            {"type": "auto"},
            {"type": "function"},
            {"type": "function", "function": {"name": "look"}},
        ]
    ),
    parallel_tool_calls=st.sampled_from([True, False, None, "no"]),
    thinking=st.sampled_from(
        [
            {"type": "disabled"},
            {"type": "enabled", "budget_tokens": 1024},
            {"type": "enabled"},
            {"type": "adaptive"},
            {},
        ]
    ),
    response_format=st.sampled_from([{"type": "text"}, {"type": "json_object"}]),
    user=st.sampled_from(["u-1", "u@x.test", "0123456789", "", "a b", "user_1"]),
    n=st.sampled_from([1, 2]),
    seed=st.just(7),
    a_field_of_tomorrow=st.just(1),
)


def _same_or_by_litellm(
    both: Both, messages: list[Any], fields: Json, *, foreign: bool, model: str
) -> None:
    call = asked({"messages": messages, **fields})
    both.agree(target(both, model), call, counted(), foreign=foreign, own=None)


_HOW = {
    "messages": _TURNS,
    "fields": _FIELDS,
    "foreign": st.booleans(),
    "model": st.sampled_from(["claude-sonnet-4-5", "claude-sonnet-4-6", "claude-opus-5", "x"]),
}
_WHATEVER = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


@_WHATEVER
@given(**_HOW)
def test_whatever_is_asked_is_asked_as_litellm_asks_it(both: Both, **how: Any) -> None:
    _same_or_by_litellm(both, **how)


@pytest.mark.proof
@pytest.mark.timeout(3600)
@settings(_WHATEVER, max_examples=4000)
@given(**_HOW)
def test_whatever_is_asked_is_asked_as_litellm_asks_it_at_length(both: Both, **how: Any) -> None:
    _same_or_by_litellm(both, **how)
