from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from proxy.aggregate import aggregate, has_content, text_bytes
from proxy.types import Json

Body: TypeAlias = dict[str, Any]

TOP = {"id": "chatcmpl-1", "created": 1_700_000_000, "model": "gpt-4o", "service_tier": "default"}
USAGE = {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}


def chunk(*choices: Body, **more: Any) -> Body:
    top = {**TOP, "object": "chat.completion.chunk", "system_fingerprint": "fp_1"}
    return {**top, "choices": list(choices), **more}


def choice(
    delta: Body, *, index: int = 0, finish: str | None = None, logprobs: Body | None = None
) -> Body:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}


def said(*deltas: Body, finish: str | None = "stop") -> list[Body]:
    """A stream of one choice: its role, these deltas, its end."""
    opening = {"role": "assistant", "content": "", "refusal": None}
    end = [chunk(choice({}, finish=finish))] if finish else []
    return [*(chunk(choice(delta)) for delta in (opening, *deltas)), *end]


def message_of(chunks: Iterable[Json]) -> Any:
    return aggregate(chunks)["choices"][0]["message"]


def call(index: int, arguments: str = "", **opening: str) -> Body:
    """A piece of a tool call; its first has an id and a name."""
    if not opening:
        return {"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}
    function = {"name": opening["name"], "arguments": arguments}
    first = {"index": index, "id": opening["id"], "type": "function", "function": function}
    return {"tool_calls": [first]}


def token(text: str) -> Body:
    return {"token": text, "logprob": -0.5, "bytes": list(text.encode()), "top_logprobs": []}


def by_the_sdk(chunks: Iterable[Body]) -> Body:
    """What the official SDK makes of a stream."""
    state = ChatCompletionStreamState()
    for event in copy.deepcopy(list(chunks)):
        if event["object"] == "chat.completion.chunk":  # its reader skips Azure's other events
            state.handle_chunk(ChatCompletionChunk.construct(None, **event))
    return state.current_completion_snapshot.to_dict()


def bare(value: Any) -> Any:
    """`value` without nulls and the index of tool calls, which the SDK keeps."""
    if isinstance(value, list):
        return [bare(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    place = {"index"} if "function" in value else set()
    return {
        key: bare(entry) for key, entry in value.items() if key not in place and entry is not None
    }


CITATION = {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 3}
NOT_OF_A_MODEL = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
REALISTIC = {
    "text": said({"content": "Grüße "}, {"content": "世界"}, {"content": " 👋"}),
    "no text": said(),
    "cut": said({"content": "Once upon"}, finish="length"),
    "filtered": said({"content": "Once"}, finish="content_filter"),
    "without an end": said({"content": "Once"}, finish=None),
    "refusal": said({"refusal": "I can't "}, {"refusal": "help."}),
    "reasoning": said(
        {"reasoning_content": "Hm"}, {"reasoning_content": ", yes"}, {"content": "42"}
    ),
    "a tool": said(call(0, id="call_a", name="weather"), call(0, '{"city"'), call(0, ':"Bern"}')),
    "parallel tools, interleaved": said(
        call(0, id="call_a", name="weather"),
        call(1, id="call_b", name="time"),
        call(0, '{"city"'),
        call(1, '{"zone":'),
        {"tool_calls": [*call(1, '"CET"}')["tool_calls"], *call(0, ':"Bern"}')["tool_calls"]]},
        finish="tool_calls",
    ),
    "a name in pieces": said(
        call(0, id="call_a", name="get_"), {"tool_calls": [{"index": 0, "function": {"name": "x"}}]}
    ),
    "text, then a tool": said({"content": "Let me see"}, call(0, "{}", id="call_a", name="look")),
    "a function call of old": said(
        {"function_call": {"name": "look", "arguments": ""}},
        {"function_call": {"arguments": "{"}},
        {"function_call": {"arguments": "}"}},
        finish="function_call",
    ),
    "audio": said(
        {"audio": {"id": "audio_1", "transcript": "Hel"}},
        {"audio": {"data": "AAAA", "transcript": "lo"}},
        {"audio": {"data": "BBBB"}},
        {"audio": {"expires_at": 1_700_003_600}},
    ),
    "annotations": said(
        {"content": "See here"},
        {"annotations": [{"type": "url_citation", "url_citation": CITATION}]},
    ),
    "two choices, interleaved": [
        chunk(choice({"role": "assistant", "content": ""}, index=0)),
        chunk(choice({"role": "assistant", "content": ""}, index=1)),
        chunk(choice({"content": "b"}, index=1), choice({"content": "a"}, index=0)),
        chunk(choice({"content": "bb"}, index=1)),
        chunk(choice({}, index=1, finish="stop")),
        chunk(choice({"content": "aa"}, index=0)),
        chunk(choice({}, index=0, finish="length")),
    ],
    "logprobs": [
        *said(finish=None),
        chunk(choice({"content": "a"}, logprobs={"content": [token("a")], "refusal": None})),
        chunk(choice({"content": "bc"}, logprobs={"content": [token("b"), token("c")]})),
        chunk(choice({"refusal": "d"}, logprobs={"content": None, "refusal": [token("d")]})),
        chunk(choice({}, finish="stop")),
    ],
    "usage": [*said({"content": "Hi"}), chunk(usage=USAGE)],
    "Azure": [
        NOT_OF_A_MODEL | {"prompt_filter_results": [{"prompt_index": 0}]},
        *said({"content": "Hi"}),
    ],
}


@pytest.mark.parametrize("name", REALISTIC)
def test_a_stream_amounts_to_what_the_official_sdk_makes_of_it(name: str) -> None:
    body = dict(aggregate(REALISTIC[name]))
    body.pop("prompt_filter_results", None)  # of Azure: its whole answers have them as well
    assert bare(body) == bare(by_the_sdk(REALISTIC[name]))


@pytest.mark.parametrize("name", [name for name in REALISTIC if name != "without an end"])
def test_what_comes_out_is_a_completion_by_its_schema(name: str) -> None:
    body = aggregate(REALISTIC[name])
    ChatCompletion.model_validate(body, strict=True)
    assert body["object"] == "chat.completion"
    for one in body["choices"]:
        assert {"index", "message", "logprobs", "finish_reason"} <= one.keys()
        assert {"role", "content", "refusal"} <= one["message"].keys()


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
CALLS = st.lists(st.tuples(st.text("abc_", min_size=1, max_size=8), TEXT), max_size=3)
MESSAGES: st.SearchStrategy[Body] = st.fixed_dictionaries(
    {
        "content": st.none() | TEXT,
        "refusal": st.none() | TEXT,
        "reasoning_content": st.none() | TEXT,
        "calls": CALLS,
        "logprobs": st.booleans(),
        "finish": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    }
)


def whole(index: int, message: Body) -> Body:
    """The choice that `pieces` cuts up."""
    said: Body = {"role": "assistant", "content": message["content"], "refusal": message["refusal"]}
    if message["reasoning_content"] is not None:
        said["reasoning_content"] = message["reasoning_content"]
    calls = [
        {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, (name, arguments) in enumerate(message["calls"])
    ]
    said |= {"tool_calls": calls} if calls else {}
    logprobs = None
    if message["logprobs"] and message["content"]:
        logprobs = {"content": [token(letter) for letter in message["content"]], "refusal": None}
    finish = message["finish"]
    return {"index": index, "message": said, "logprobs": logprobs, "finish_reason": finish}


def fragments(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def strands(draw: st.DrawFn, index: int, message: Body) -> Iterator[list[Body]]:
    """Choice by choice and field by field: pieces that keep their order among themselves."""
    for key in ("content", "refusal", "reasoning_content"):
        if (text := message[key]) is not None:
            tokens = key == "content" and message["logprobs"]
            yield [
                choice(
                    {key: piece},
                    index=index,
                    logprobs={"content": [token(c) for c in piece]} if tokens and piece else None,
                )
                for piece in fragments(draw, text)
            ]
    for number, (_, arguments) in enumerate(message["calls"]):
        pieces = fragments(draw, arguments)
        yield [choice(call(number, piece), index=index) for piece in pieces]


@st.composite
def streams(draw: st.DrawFn) -> tuple[Body, list[Body]]:
    """A completion, and a stream that amounts to it."""
    messages = draw(st.lists(MESSAGES, min_size=1, max_size=3))
    numbered = list(enumerate(messages))
    flow = [choice({"role": "assistant"}, index=index) for index, _ in numbered]
    for index, message in numbered:
        flow += [
            choice(call(number, id=f"call_{number}", name=name), index=index)
            for number, (name, _) in enumerate(message["calls"])
        ]
    waiting = [strand for one in numbered for strand in strands(draw, *one)]
    while waiting:
        strand = draw(st.sampled_from(waiting))
        flow.append(strand.pop(0))
        waiting = [strand for strand in waiting if strand]
    ends = draw(st.permutations(numbered))
    flow += [choice({}, index=index, finish=message["finish"]) for index, message in ends]
    body = {
        **TOP,
        "object": "chat.completion",
        "system_fingerprint": "fp_1",
        "choices": [whole(*one) for one in numbered],
        "usage": USAGE,
    }
    return body, [*grouped(draw, flow), chunk(usage=USAGE)]


def grouped(draw: st.DrawFn, flow: Sequence[Body]) -> Iterator[Body]:
    """`flow` in chunks of one or more choices, as some servers send them."""
    group: list[Body] = []
    for piece in flow:
        if draw(st.booleans()) and group:
            yield chunk(*group, usage=None)
            group = []
        group.append(piece)
    yield chunk(*group, usage=None)


@given(streams())
@settings(deadline=None)
def test_any_message_comes_back_however_it_is_cut(case: tuple[Body, list[Body]]) -> None:
    body, chunks = case
    before = copy.deepcopy(chunks)
    assert aggregate(chunks) == body
    assert chunks == before


@given(streams())
@settings(deadline=None)
def test_the_official_sdk_makes_the_same_of_it(case: tuple[Body, list[Body]]) -> None:
    body, chunks = case
    # One by one: the SDK takes a choice's place in the first chunk for its index.
    singly = [{**event, "choices": [one]} for event in chunks for one in event["choices"]]
    assert bare(aggregate(singly)) == bare(by_the_sdk(singly))
    assert aggregate(singly)["choices"] == body["choices"]


@given(streams())
@settings(deadline=None)
def test_the_bytes_of_the_chunks_are_the_bytes_of_the_message(
    case: tuple[Body, list[Body]],
) -> None:
    body, chunks = case
    texts = []
    for one in body["choices"]:
        message = one["message"]
        texts += [message["content"], message["refusal"], message.get("reasoning_content")]
        texts += [tool["function"]["arguments"] for tool in message.get("tool_calls", ())]
    assert sum(map(text_bytes, chunks)) == sum(len(text.encode()) for text in texts if text)


class Unsplit(str):
    """A piece of text that refuses to be copied into anything but the whole."""

    __slots__ = ()

    def __add__(self, other: str) -> str:
        raise AssertionError("pieces are joined, not added one to another")

    __radd__ = __add__


def test_ten_thousand_pieces_are_joined_once() -> None:
    pieces = [Unsplit(f"{number} ") for number in range(10_000)]
    arguments = said(call(0, id="a", name="f"), *(call(0, piece) for piece in pieces))
    message = message_of([*said(*({"content": piece} for piece in pieces)), *arguments])
    assert message["content"] == "".join(pieces)
    assert message["tool_calls"][0]["function"]["arguments"] == message["content"]


def test_a_repeated_role_id_or_name_stays_single() -> None:
    first, second = call(0, "{", id="call_a", name="look"), call(0, "}", id="call_a", name="look")
    chunks = said({"role": "assistant"} | first, {"role": "assistant"} | second)
    assert message_of(chunks)["role"] == "assistant"
    assert message_of(chunks)["tool_calls"] == [
        {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    ]


def test_a_later_chunk_takes_nothing_away() -> None:
    later = chunk(system_fingerprint=None, usage=None, id="other", model="", service_tier="flex")
    body = aggregate([*said(), chunk(usage=USAGE), later])
    assert {key: body[key] for key in TOP} == TOP
    assert (body["usage"], body["system_fingerprint"]) == (USAGE, "fp_1")


def test_the_last_usage_counts() -> None:
    assert aggregate([chunk(usage={"prompt_tokens": 1}), chunk(usage=USAGE)])["usage"] == USAGE
    assert "usage" not in aggregate([chunk(usage=None)])


def test_padding_is_not_part_of_the_answer_and_other_fields_are() -> None:
    body = aggregate([chunk(obfuscation="x7Kq", citations=["a"]), chunk(citations=["a", "b"])])
    assert "obfuscation" not in body
    assert body["citations"] == ["a", "b"]
    filtered = choice({}) | {"content_filter_results": {"hate": {"filtered": False}}}
    (one,) = aggregate([*said({"content": "Hi"}), chunk(filtered)])["choices"]
    assert one["content_filter_results"] == {"hate": {"filtered": False}}
    assert one["message"]["content"] == "Hi"


def test_tool_calls_without_an_index_or_from_a_later_one_find_their_place() -> None:
    first, second = (call(0, "{", id=f"call_{n}", name=n)["tool_calls"][0] for n in "ab")
    rest = call(0, "}")["tool_calls"][0]
    for each in (first, second, rest):
        del each["index"]
    tools = message_of(said(*({"tool_calls": [each]} for each in (first, rest, second, rest))))
    assert [tool["function"]["arguments"] for tool in tools["tool_calls"]] == ["{}", "{}"]
    assert [tool["id"] for tool in tools["tool_calls"]] == ["call_a", "call_b"]
    late = said(call(3, id="d", name="d"), call(1, id="b", name="b"), call(3, "{}"))
    assert [tool["id"] for tool in message_of(late)["tool_calls"]] == ["b", "d"]


def test_a_tool_call_has_a_type_and_arguments_even_if_it_was_sent_none() -> None:
    bare_call = {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "now"}}]}
    assert message_of(said(bare_call))["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "now", "arguments": ""}}
    ]


def test_a_custom_tool_call_has_no_arguments_but_an_input() -> None:
    opening = {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SEL"}}
    rest = {"custom": {"input": "ECT"}}
    pieces = [{"tool_calls": [piece | {"index": 0}]} for piece in (opening, rest)]
    assert message_of(said(*pieces))["tool_calls"] == [
        {"id": "a", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
    ]


def test_choices_are_in_the_order_of_their_index() -> None:
    pieces = [chunk(choice({"content": text}, index=int(text))) for text in "2021"]
    choices = aggregate(pieces)["choices"]
    assert [(one["index"], one["message"]["content"]) for one in choices] == [
        (0, "0"),
        (1, "1"),
        (2, "22"),
    ]


def test_fields_that_stay_empty_are_left_out_of_the_message() -> None:
    message = message_of(said({"tool_calls": [], "reasoning_content": None, "audio": None}))
    assert message == {"role": "assistant", "content": "", "refusal": None}


def test_a_thought_goes_on_until_it_is_signed() -> None:
    def thought(text: str, signature: str = "") -> Body:
        block = {"type": "thinking", "thinking": text, "signature": signature}
        return {"thinking_blocks": [block]}

    hidden = {"type": "redacted_thinking", "data": "x"}
    pieces = [thought("a"), thought("b"), thought("", "s1"), {"thinking_blocks": [hidden]}]
    more = [{"thinking_blocks": [hidden]}, thought("c", "s2"), thought("d"), thought("e")]
    message = message_of(said(*pieces, *more))
    assert message["thinking_blocks"] == [
        {"type": "thinking", "thinking": "ab", "signature": "s1"},
        hidden,
        hidden,
        {"type": "thinking", "thinking": "c", "signature": "s2"},
        {"type": "thinking", "thinking": "de", "signature": ""},
    ]


@pytest.mark.parametrize(
    "delta",
    [{"content": ["part"]}, {"content": {}}, {"content": 5}, {"role": []}, {"tool_calls": "x"}],
)
def test_pieces_of_different_kinds_are_refused_rather_than_lost(delta: Body) -> None:
    with pytest.raises(ValueError, match="different kinds"):
        aggregate(said({"content": "Hi"}, call(0, id="a", name="f"), delta))


def test_what_is_not_a_chunk_adds_nothing_and_does_no_harm() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"a": deep}
    junk: list[Body] = [
        {},
        {"choices": None},
        {"choices": [None, {}, {"delta": None}, {"delta": []}]},
    ]
    odd = [*junk, chunk(choice({"x": deep})), chunk(choice({"x": deep}))]
    assert message_of([*said({"content": "Hi"}), *odd])["content"] == "Hi"
    assert aggregate([])["choices"] == []
    assert not any(map(has_content, junk))
    assert sum(map(text_bytes, odd)) == 0


CONTENT = [
    {"content": "H"},
    {"content": [{"type": "text", "text": "H"}]},
    {"refusal": "N"},
    {"reasoning_content": "H"},
    {"reasoning": "H"},
    {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]},
    call(0, id="a", name="f"),
    call(0, "{"),
    {"tool_calls": [{"index": 0, "id": "call_a"}]},
    {"tool_calls": [{"index": 0, "custom": {"input": "x"}}]},
    {"function_call": {"name": "f", "arguments": ""}},
    {"audio": {"data": "AAAA"}},
    {"audio": {"transcript": "H"}},
]
NO_CONTENT: list[Body] = [
    {},
    {"role": "assistant", "content": "", "refusal": None},
    {"content": None, "tool_calls": [], "function_call": None, "audio": None},
    {"tool_calls": [{"index": 0, "type": "function", "function": {"arguments": ""}}]},
    {"audio": {"id": "audio_1", "expires_at": 5}},
]


@pytest.mark.parametrize("delta", CONTENT)
def test_the_least_of_an_answer_is_content(delta: Body) -> None:
    assert has_content(chunk(choice({}), choice(delta, index=1)))


@pytest.mark.parametrize("delta", NO_CONTENT)
def test_what_only_announces_an_answer_is_not_content(delta: Body) -> None:
    assert not has_content(chunk(choice(delta), usage=USAGE))
    assert has_content(chunk(choice(delta, finish="stop")))


@pytest.mark.parametrize(
    ("delta", "size"),
    [
        *zip(CONTENT, (1, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0, 0, 1), strict=True),
        *((delta, 0) for delta in NO_CONTENT),
        ({"content": "ü", "refusal": "世", "reasoning_content": "👋", "reasoning": "👋"}, 9),
        ({"content": "\ud800"}, 3),
        ({"function_call": {"arguments": "{}"}} | call(0, "{ }"), 5),
        ({"content": [{"thinking": [{"type": "text", "text": "Hm"}]}, {"text": "Hi"}, "x"]}, 4),
    ],
)
def test_bytes_of_text_are_counted_once_and_nothing_else(delta: Body, size: int) -> None:
    assert text_bytes(chunk(choice({}), choice(delta, index=1), usage=USAGE)) == size
    assert text_bytes(chunk({"index": 0, "text": "é", "finish_reason": None})) == 2
