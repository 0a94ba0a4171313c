from __future__ import annotations

from typing import Any

from proxy import sse
from proxy.grammar.text import Text
from proxy.types import Usage

TEXT = Text()


def event(text: str, finish: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": finish, **more}
    return {"id": "cmpl-1", "model": "m", "choices": [choice]}


def test_a_word_or_an_end_begins_an_answer_and_an_empty_piece_does_not() -> None:
    assert TEXT.begins(event("a"))
    assert TEXT.begins(event("", "stop"))
    assert not TEXT.begins(event(""))
    assert not TEXT.begins({"choices": []})


def test_each_choice_has_an_end_of_its_own() -> None:
    body = {"choices": [*event("", "stop")["choices"], *event("b", index=1)["choices"]]}
    assert list(TEXT.endings(body)) == [(0, True), (1, False)]


def test_a_whole_stream_is_the_answer_that_it_amounts_to() -> None:
    logprobs = [
        {"tokens": [t], "token_logprobs": [-1], "top_logprobs": [{}], "text_offset": [at]}
        for at, t in enumerate("ab")
    ]
    events = [
        event("a", logprobs=logprobs[0]),
        event("x", "length", index=1),
        event("b", "stop", logprobs=logprobs[1]),
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 3}},
    ]
    whole = TEXT.whole(events)
    assert [(c["index"], c["text"], c["finish_reason"]) for c in whole["choices"]] == [
        (0, "ab", "stop"),
        (1, "x", "length"),
    ]
    assert whole["choices"][0]["logprobs"] == {
        "tokens": ["a", "b"], "token_logprobs": [-1, -1], "top_logprobs": [{}, {}],
        "text_offset": [0, 1],
    }  # fmt: skip
    assert whole["choices"][1]["logprobs"] is None
    assert TEXT.usage(whole, None) == Usage(prompt_tokens=1, completion_tokens=3)
    assert TEXT.said_bytes(whole) == 3


def test_what_was_kept_is_told_as_a_stream_and_read_back_the_same() -> None:
    body = {**event("größer", "stop"), "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    assert TEXT.whole(TEXT.events(body, usage=True))["choices"] == body["choices"]
    told = TEXT.events(body, usage=True)
    assert TEXT.only_usage(told[-1])
    assert not any(TEXT.reports(each) for each in TEXT.events(body, usage=False))
    assert TEXT.reasons(told) == ["stop"]
    assert TEXT.done == sse.DONE_FRAME


def test_an_answer_has_a_text_in_every_choice() -> None:
    assert TEXT.answers(event(""))
    others: list[Any] = [
        None,
        {},
        {"choices": []},
        {"choices": [{"message": {}}]},
        {"choices": [None]},
    ]
    for other in others:
        assert not TEXT.answers(other)
