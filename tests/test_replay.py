"""A stream and a whole answer are the same answer: each is made from the other."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.replay import body_of, events_of, finish_reasons
from proxy.types import Json
from tests.fakes import delta, finish, role, usage

TEXT = st.none() | st.text(min_size=1, max_size=10)
CALL = st.fixed_dictionaries(
    {
        "id": st.text("abc", min_size=1, max_size=6),
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": st.text("fg", min_size=1), "arguments": st.text(max_size=12)}
        ),
    }
)
TOKEN = st.fixed_dictionaries({"token": st.text(max_size=3), "logprob": st.floats(-9, 0)})
LOGPROBS = st.none() | st.fixed_dictionaries(
    {"content": st.lists(TOKEN, min_size=1, max_size=3), "refusal": st.none()}
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": TEXT, "refusal": TEXT},
    optional={
        "tool_calls": st.lists(CALL, min_size=1, max_size=3),
        "reasoning_content": st.text(min_size=1, max_size=8),
    },
)


@st.composite
def bodies(draw: st.DrawFn) -> Json:
    choices = [
        {
            "index": index,
            "message": draw(MESSAGE),
            "logprobs": draw(LOGPROBS),
            "finish_reason": draw(st.sampled_from(["stop", "tool_calls"])),
        }
        for index in range(draw(st.integers(1, 3)))
    ]
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "gpt",
        "choices": choices,
    }
    if draw(st.booleans()):
        body["usage"] = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    return body


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies())
def test_a_stream_made_from_a_whole_answer_amounts_to_it(body: Json) -> None:
    events = events_of(body, usage=True)
    assert all(event["object"] == "chat.completion.chunk" for event in events)
    made = body_of(orjson.loads(orjson.dumps(events)))
    assert orjson.dumps(made, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        body, option=orjson.OPT_SORT_KEYS
    )


def test_the_usage_is_for_who_asks_for_it() -> None:
    body = body_of([role(), delta("hi"), finish(), usage()])
    assert "usage" in body
    assert all(event["choices"] for event in events_of(body, usage=False))
    assert events_of(body, usage=True)[-1]["choices"] == []


def test_every_choice_says_why_it_ended() -> None:
    assert finish_reasons([role(), delta("a"), finish()]) == ["stop"]
    assert finish_reasons([role(), delta("a")]) == [None]
    two = [{"choices": [{"index": 1, "delta": {"content": "x"}}]}, role(), finish()]
    assert sorted(map(str, finish_reasons(two))) == ["None", "stop"]
