"""What a broken stream may be finished with: decisions on values, without a stream."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.facts import ModelFacts
from proxy.replies import Chunk
from proxy.seam import READ_BYTES, Diverged, Said, Seam, may_go_on, text_of, ways
from proxy.types import Call, Json, Surface, Usage
from tests.fakes import ask, delta, finish, role, target, usage

CLAUDE = target("claude", provider="anthropic", facts=ModelFacts(prefills=True))
GPT = target("gpt")


def asked(**body: Any) -> Call:
    return ask(stream=True, body=body)


def texts(events: list[Json]) -> str:
    return "".join(text_of(event) or "" for event in events)


# Whether


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"n": None, "logprobs": False, "reasoning_effort": "none", "modalities": ["text"]},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_a_stream_of_one_text_may_go_on(body: dict[str, Any]) -> None:
    assert may_go_on(asked(**body))


@pytest.mark.parametrize(
    "body",
    [
        {"n": 2},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"reasoning_effort": "low"},
        {"reasoning": {"effort": "low"}},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "alloy"}},
    ],
)
def test_what_is_asked_for_more_than_a_text_does_not_go_on(body: dict[str, Any]) -> None:
    assert not may_go_on(asked(**body))


def test_only_streams_of_chats_go_on() -> None:
    assert not may_go_on(ask())
    assert not may_go_on(ask(stream=True, surface=Surface.COMPLETIONS))
    assert not may_go_on(ask(stream=True, surface=Surface.MESSAGES))


def choice(delta: Json | None = None, **more: Any) -> Json:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": None, **more}]}


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (role(), ""),
        (delta("word"), "word"),
        (finish(), ""),
        (usage(), ""),
        (choice({"content": None, "refusal": None, "tool_calls": []}), ""),
        (choice({"content": "x"}, logprobs=None), "x"),
        ({"choices": [{"finish_reason": None, "content_filter_offsets": {}}]}, ""),  # Azure's
        (choice({"content": "x"}, logprobs={"content": None}), "x"),
        (choice({"content": "x"}, content_filter_results={"hate": {}}), "x"),
    ],
)
def test_the_text_of_an_event_is_what_a_client_reads(event: Json, text: str) -> None:
    assert text_of(event) == text


@pytest.mark.parametrize(
    "event",
    [
        choice({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}),
        choice({"function_call": {"name": "f"}}),
        choice({"reasoning_content": "hm"}),
        choice({"reasoning": "hm"}),
        choice({"refusal": "no"}),
        choice({"audio": {"id": "a"}}),
        choice({"content": "x", "annotations": [{"type": "url_citation"}]}),
        choice({"content": [{"type": "text", "text": "x"}]}),
        choice({"content": "x"}, logprobs={"content": [{"token": "x"}]}),
        delta("x", index=1),
        {"choices": [delta("x")["choices"][0], delta("y", index=1)["choices"][0]]},
        {"choices": ["x"]},
    ],
)
def test_an_event_that_brings_more_than_text_has_none(event: Json) -> None:
    assert text_of(event) is None


# What was said


def said(*events: Json) -> Said:
    found = Said()
    for event in events:
        found.add(Chunk.of_events([event]))
    return found


def test_what_was_said_is_its_text_and_the_head_of_its_first_event() -> None:
    first = {"id": "one", "created": 7, "model": "a", **role()}
    told = said(first, {"id": "two", **delta("Hel")}, delta("lo")).read()
    assert (told.text, told.ended, told.head) == ("Hello", False, {"id": "one", "created": 7})


def test_what_was_said_may_be_read_again_after_more_was_said() -> None:
    found = said(delta("Hel"))
    assert found.read().text == "Hel"
    found.add(Chunk.of_events([delta("lo")]))
    assert found.read().text == "Hello"


def test_more_than_a_text_is_none_however_much_text_follows() -> None:
    assert said(delta("a"), choice({"refusal": "no"}), delta("b")).read().text is None


def test_a_finish_is_remembered() -> None:
    assert said(delta("a"), finish()).read().ended


def test_a_long_stream_is_not_kept_as_it_came() -> None:
    found, piece = Said(), delta("x" * 100)
    for _ in range(3 * READ_BYTES // 100):
        found.add(Chunk.of_events([piece]))
    assert found._kept_bytes <= READ_BYTES
    assert found.read().text == "x" * (3 * READ_BYTES // 100) * 100


# How it is asked for


def test_a_model_that_takes_a_beginning_is_given_it_and_after_that_asked_afresh() -> None:
    call = asked(temperature=0.5)
    prefill, afresh = ways(call, "Hello wor", CLAUDE)
    assert prefill.call.body["messages"] == [
        *call.body["messages"],
        {"role": "assistant", "content": "Hello wor"},
    ]
    assert (prefill.call.body["temperature"], prefill.due) == (0.5, "")
    assert afresh == (call, "Hello wor")


def test_white_space_at_the_end_is_due_for_no_claude_takes_it() -> None:
    prefill, _ = ways(asked(), "Hello \n", CLAUDE)
    assert prefill.call.body["messages"][-1]["content"] == "Hello"
    assert prefill.due == " \n"


def test_white_space_alone_is_asked_for_afresh() -> None:
    assert [way.due for way in ways(asked(), " \n", CLAUDE)] == [" \n"]


def test_a_model_that_is_not_known_to_take_a_beginning_is_asked_afresh() -> None:
    call = asked()
    assert list(ways(call, "Hello", GPT)) == [(call, "Hello")]


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"response_format": {"type": "json_object"}},
        {"stop": ["END"]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"messages": []},
    ],
)
def test_where_a_beginning_would_change_the_answer_it_is_asked_for_afresh(
    body: dict[str, Any],
) -> None:
    call = asked(**body)
    assert list(ways(call, "Hello", CLAUDE)) == [(call, "Hello")]


def test_what_the_file_fills_in_counts_as_asked_for() -> None:
    stops = target("claude", facts=ModelFacts(prefills=True), defaults={"stop": "END"})
    assert len(list(ways(asked(), "Hello", stops))) == 1


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("limit", "left"), [(100, 95), (5, 1), (2, 1)])
def test_what_was_said_is_taken_off_the_limit(name: str, limit: int, left: int) -> None:
    prefill, afresh = ways(asked(**{name: limit}), "x" * 20, CLAUDE)
    assert (prefill.call.body[name], afresh.call.body[name]) == (left, limit)


def test_so_it_is_off_the_limit_of_the_file() -> None:
    short = target("claude", facts=ModelFacts(prefills=True), defaults={"max_tokens": 50})
    prefill, afresh = ways(asked(), "x" * 20, short)
    assert prefill.call.body["max_tokens"] == 45
    assert "max_tokens" not in afresh.call.body


def test_a_body_that_was_measured_is_as_much_longer() -> None:
    prefill, _ = ways(ask(stream=True, size_bytes=100), "né", CLAUDE)
    assert prefill.call.size_bytes == 103
    assert next(ways(ask(stream=True), "né", CLAUDE)).call.size_bytes == 0


# What is new of an answer


def test_what_was_sent_is_not_sent_again() -> None:
    seam = Seam("Hello wor", {})
    assert seam.take([role(), delta("Hel"), delta("lo ")]) == []
    assert not seam.joined
    assert texts(seam.take([delta("world"), delta("!")])) == "ld!"
    assert seam.joined


@pytest.mark.parametrize(
    ("due", "pieces"),
    [
        ("abc", ["xbc"]),
        ("abc", ["abx"]),
        ("abc", ["a", "b", "x"]),
        ("abc", ["ab", "xd"]),
        ("né", ["ne"]),
        ("日本", ["日", "木"]),
    ],
)
def test_another_text_is_told_at_its_first_difference(due: str, pieces: list[str]) -> None:
    seam = Seam(due, {})
    assert seam.take([delta(piece) for piece in pieces[:-1]]) == []
    with pytest.raises(Diverged):
        seam.take([delta(pieces[-1])])


def test_an_end_before_all_was_said_again_is_another_text() -> None:
    with pytest.raises(Diverged):
        Seam("abc", {}).take([delta("ab"), finish()])


def test_an_end_right_there_is_the_end() -> None:
    (end,) = Seam("abc", {}).take([delta("abc"), finish()])
    assert end == finish()


def test_more_than_a_text_is_no_continuation() -> None:
    seam = Seam("", {})
    assert texts(seam.take([delta("a")])) == "a"
    with pytest.raises(Diverged):
        seam.take([choice({"tool_calls": [{"index": 0, "function": {"name": "f"}}]})])


def test_what_goes_on_has_the_first_head_its_own_model_and_no_role() -> None:
    (event,) = Seam("", {"id": "one", "created": 7}).take(
        [{"id": "two", "created": 8, "model": "b", **choice({"role": "assistant", "content": "x"})}]
    )
    assert event == {"id": "one", "created": 7, "model": "b", **choice({"content": "x"})}


def test_the_usage_is_the_sum_of_all_that_was_used() -> None:
    reported = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3, "x": 1}}
    (event,) = Seam("", {}, Usage(5, 2)).take([reported])
    assert event["usage"] == {
        "prompt_tokens": 12,
        "completion_tokens": 5,
        "total_tokens": 17,
        "x": 1,
    }


def test_an_event_that_says_nothing_is_left_out() -> None:
    assert Seam("", {}).take([role(), {"choices": []}, choice({"content": ""})]) == []


def test_a_usage_that_comes_first_is_not_yet_the_seam() -> None:
    seam = Seam("abc", {})
    assert len(seam.take([usage()])) == 1
    assert not seam.joined
    seam.take([delta("abcd")])
    assert seam.joined
