"""Answers of a chat as Anthropic's: nothing is lost, and one block is open at a time."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from proxy.aggregate import aggregate
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.retry import Kind
from proxy.types import Json, Surface, Usage
from proxy.upstream.from_chat import Told, message_of, reason_of, said_of

NONE: Mapping[str, str] = {}
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
GRAMMAR = GRAMMARS[Surface.MESSAGES]
SEED = 20_261


def chunk(delta: Json, finish: str | None = None, **more: Any) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**HEAD, "choices": [choice], **more}


def call(index: int, arguments: str, *, id: str | None = None, name: str | None = None) -> Json:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    piece = {"index": index, "function": function, **({"id": id, "type": "function"} if id else {})}
    return chunk({"tool_calls": [piece]})


def told(chunks: Sequence[Json], names: Mapping[str, str] = NONE) -> list[Json]:
    stream = Told(names)
    events = [event for each in chunks for event in stream.feed(each)]
    return [*events, *stream.end()]


def check_order(events: Sequence[Json]) -> None:
    """Return when each block starts, is added to and stops before the next one starts."""
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2], kinds[-1]) == ("message_start", "message_delta", "message_stop")
    open_, number = False, 0
    for event in events[1:-2]:
        match event["type"]:
            case "content_block_start":
                assert not open_
                open_ = True
            case "content_block_delta":
                assert open_
            case "content_block_stop":
                assert open_
                open_ = False
            case kind:
                raise AssertionError(kind)
        assert event["index"] == number
        number += event["type"] == "content_block_stop"
    assert not open_


def test_a_text() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
    chunks = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "he"}),
        chunk({"content": "llo"}),
        chunk({}, "stop"),
        {**HEAD, "choices": [], "usage": usage},
    ]
    assert told(chunks) == [
        {"type": "message_start", "message": {"id": "msg_1", "type": "message",
            "role": "assistant", "model": "m", "content": [], "stop_reason": None,
            "stop_sequence": None, "usage": {"input_tokens": 0, "output_tokens": 0}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "he"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "llo"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"input_tokens": 9, "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0, "output_tokens": 2}},
        {"type": "message_stop"},
    ]  # fmt: skip


def test_a_piece_is_told_as_soon_as_it_is_there() -> None:
    stream = Told(NONE)
    assert [e["type"] for e in stream.feed(chunk({"content": "a"}))][1:] == [
        "content_block_start",
        "content_block_delta",
    ]
    assert [e["type"] for e in stream.feed(call(0, "", id="c", name="n"))] == [
        "content_block_stop",
        "content_block_start",
    ]
    assert [e["delta"]["partial_json"] for e in stream.feed(call(0, '{"a"'))] == ['{"a"']
    # The second call begins when the first is complete, without waiting for the end.
    assert [e["type"] for e in stream.feed(call(0, ":1}"))] == ["content_block_delta"]
    assert len(list(stream.feed(call(1, "{", id="d", name="n")))) == 3


def test_calls_that_are_woven_into_each_other_come_one_after_the_other() -> None:
    chunks = [
        call(0, "", id="a", name="one"),
        call(1, "", id="b", name="two"),
        call(0, '{"x":'),
        call(1, '{"y":'),
        chunk({"content": "between"}),
        call(1, "2}"),
        call(0, "1}"),
        chunk({}, "tool_calls"),
    ]
    events = told(chunks)
    check_order(events)
    content = GRAMMAR.whole(events)["content"]
    assert [b.get("input") or b["text"] for b in content] == [{"x": 1}, {"y": 2}, "between"]


def test_calls_that_all_have_the_number_0_are_told_apart_by_their_ids() -> None:
    chunks = [
        call(0, '{"x":1}', id="a", name="one"),
        call(0, '{"y":2}', id="b", name="two"),
        chunk({}, "stop"),
    ]
    whole = GRAMMAR.whole(told(chunks))
    assert [(b["id"], b["input"]) for b in whole["content"]] == [("a", {"x": 1}), ("b", {"y": 2})]
    assert whole["stop_reason"] == "tool_use"


def test_a_piece_of_a_call_that_has_ended_is_no_silent_loss() -> None:
    chunks = [
        call(0, '{"x":1}', id="a", name="one"),
        call(1, "{", id="b", name="two"),
        call(0, ' "late"'),
    ]
    with pytest.raises(UpstreamFailure) as caught:
        told(chunks)
    assert caught.value.kind is Kind.BROKEN


def test_any_answer_is_the_same_streamed_as_whole() -> None:
    chance = random.Random(SEED)  # noqa: S311  # no secret
    for _ in range(300):
        chunks, thoughts = _answer(chance)
        events = told(chunks)
        check_order(events)
        streamed = GRAMMAR.whole(events)
        body = {**aggregate(chunks), "id": "chatcmpl-1"}
        whole = message_of(body, NONE)
        assert streamed["stop_reason"] == whole["stop_reason"]
        assert streamed["usage"] == whole["usage"]
        for kind in ("text", "thinking"):
            pieces = [
                [b[kind] for b in m["content"] if b["type"] == kind] for m in (streamed, whole)
            ]
            assert "".join(pieces[0]) == "".join(pieces[1])
        uses = [[b for b in m["content"] if b["type"] == "tool_use"] for m in (streamed, whole)]
        assert sorted(uses[0], key=_id) == sorted(uses[1], key=_id)
        assert bool(thoughts) == any(b["type"] == "thinking" for b in streamed["content"])


def _id(block: Json) -> str:
    return str(block["id"])


def _answer(chance: random.Random) -> tuple[list[Json], str]:
    """An answer whose parts come in pieces, those of its calls in any order among each other."""
    thoughts = "hm so " * chance.randrange(2)
    chunks = [chunk({"reasoning_content": piece}) for piece in _cut(thoughts, chance)]
    chunks += [
        chunk({"content": piece}) for piece in _cut("some text " * chance.randrange(3), chance)
    ]
    calls = [
        [
            call(at, "", id=f"c{at}", name=f"tool{at}"),
            *(call(at, piece) for piece in _cut('{"a": [1, "x"], "b": {}}', chance)),
        ]
        for at in range(chance.randrange(4))
    ]
    weaving = chance.random() < 0.5
    while calls:
        at = chance.randrange(len(calls)) if weaving else 0
        chunks.append(calls[at].pop(0))
        calls = [rest for rest in calls if rest]
    usage = {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37,
             "prompt_tokens_details": {"cached_tokens": chance.randrange(30)}}  # fmt: skip
    finish = chunk({}, chance.choice(["stop", "length", "tool_calls"]))
    return [*chunks, finish, {**HEAD, "choices": [], "usage": usage}], thoughts


def _cut(text: str, chance: random.Random) -> list[str]:
    pieces = []
    while text:
        size = chance.randint(1, 5)
        pieces.append(text[:size])
        text = text[size:]
    return pieces


def test_thoughts_that_are_signed_or_hidden_are_blocks_of_their_own() -> None:
    chunks = [
        chunk(
            {"thinking_blocks": [{"type": "thinking", "thinking": "a"}], "reasoning_content": "a"}
        ),
        chunk({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "s1"}]}),
        chunk({"thinking_blocks": [{"type": "thinking", "thinking": "b", "signature": "s2"}]}),
        chunk({"thinking_blocks": [{"type": "redacted_thinking", "data": "d"}]}),
        chunk({"content": "c"}, "stop"),
    ]
    events = told(chunks)
    check_order(events)
    expected = [
        {"type": "thinking", "thinking": "a", "signature": "s1"},
        {"type": "thinking", "thinking": "b", "signature": "s2"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "c"},
    ]
    assert GRAMMAR.whole(events)["content"] == expected
    message = {"content": "c", "reasoning_content": "ab", "thinking_blocks": expected[:3]}
    body = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert message_of(body, NONE)["content"] == expected


def test_a_name_that_was_cut_is_whole_again() -> None:
    names = {"cut": "the whole name"}
    content = GRAMMAR.whole(told([call(0, "{}", id="a", name="cut")], names))["content"]
    assert content == [{"type": "tool_use", "id": "a", "name": "the whole name", "input": {}}]


@pytest.mark.parametrize(
    ("finish", "called", "refused", "reason"),
    [
        ("stop", False, False, "end_turn"),
        ("stop", True, False, "tool_use"),
        ("stop", False, True, "refusal"),
        ("tool_calls", True, False, "tool_use"),
        ("length", True, False, "max_tokens"),
        ("content_filter", False, False, "refusal"),
        ("a word of tomorrow", False, False, "end_turn"),
    ],
)
def test_why_an_answer_ended(finish: str, called: bool, refused: bool, reason: str) -> None:
    assert reason_of(finish, called=called, refused=refused) == reason


def test_input_that_is_no_json_is_another_s_turn_unless_it_was_cut() -> None:
    def body(finish: str) -> Json:
        use = {"id": "a", "function": {"name": "n", "arguments": '{"a": '}}
        message = {"content": None, "tool_calls": [use]}
        return {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": finish}]}

    with pytest.raises(UpstreamFailure) as caught:
        message_of(body("tool_calls"), NONE)
    assert caught.value.tokens_spent
    cut = message_of(body("length"), NONE)
    assert (cut["stop_reason"], cut["content"][0]["input"]) == ("max_tokens", {})


def test_an_answer_without_a_choice_is_none() -> None:
    with pytest.raises(UpstreamFailure):
        message_of({**HEAD, "choices": []}, NONE)


def test_tokens_come_back_as_they_were_counted() -> None:
    usage = Usage(100, 20, 30, 40, 10, 5)
    said = said_of(usage)
    assert (said["input_tokens"], said["cache_read_input_tokens"]) == (30, 30)
    assert GRAMMAR.usage({"usage": said}, None) == usage
    assert GRAMMAR.usage({"usage": said_of(None)}, None) is None
