"""What is told by its bytes is what its JSON says; what says more is not taken for plain."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.aggregate import text_bytes
from proxy.replies import Chunk
from proxy.types import Json
from proxy.upstream.events import _Frames
from proxy.upstream.plain import PlainText


def event(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}


def spelt(*events: Json) -> list[bytes]:
    return [b"data: " + orjson.dumps(each) for each in events]


def choice(**fields: Any) -> dict[str, Any]:
    return event("x") | {"choices": [{**event("x")["choices"][0], **fields}]}


SAID_MORE: dict[str, dict[str, Any]] = {
    "an end": choice(finish_reason="stop"),
    "a role": choice(delta={"role": "assistant", "content": "x"}),
    "an end of text only": choice(delta={}),
    "no text": event(""),
    "null": choice(delta={"content": None}),
    "a tool": choice(delta={"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]}),
    "a refusal": choice(delta={"content": "x", "refusal": "no"}),
    "another choice": choice(index=1),
    "two choices": event("x") | {"choices": [event("x")["choices"][0]] * 2},
    "logprobs": choice(logprobs={"content": []}),
    "a usage": event("x", usage={"prompt_tokens": 1}),
    "an error": event("x", error={"message": "no"}),
    "a quote": event('"'),
    "an escape": event("a\\b\n"),
    "parts": choice(delta={"content": [{"text": "x"}]}),
}


def test_after_one_that_was_read_the_others_are_told_by_their_bytes() -> None:
    subject = PlainText()
    plain, odd = subject.sort(spelt(event("hello"), event(" wor"), event("ld")))
    assert plain is not None
    assert (plain.number, plain.text_bytes, odd) == (2, 6, spelt(event("hello")))
    plain, odd = subject.sort(spelt(event("größe"), event("!")))
    assert plain is not None
    assert (plain.number, plain.text_bytes, odd) == (2, 8, [])


def test_padding_of_any_length_is_passed_over() -> None:
    subject = PlainText()
    subject.sort(spelt(event("a", usage=None, obfuscation="x7Kq")))
    plain, odd = subject.sort(spelt(event("bc", usage=None, obfuscation="x7KqQQ")))
    assert plain is not None
    assert (plain.text_bytes, odd) == (2, [])


@pytest.mark.parametrize("name", SAID_MORE)
def test_what_says_more_is_to_be_read(name: str) -> None:
    subject = PlainText()
    subject.sort(spelt(event("hello"), event("x")))
    for padded in ({}, {"obfuscation": "abc"}):
        frames = spelt(SAID_MORE[name] | padded)
        assert subject.sort(frames) == (None, frames)
        subject.sort(spelt(event("hello", **padded)))


TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
ANY = st.one_of(TEXTS.map(event), st.sampled_from(list(SAID_MORE.values())))


@settings(max_examples=300, deadline=None)
@given(st.lists(ANY, max_size=12), st.data())
def test_however_it_is_cut_a_stream_tells_what_its_events_say(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    raw = b"".join(frame + b"\n\n" for frame in spelt(*events)) + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=5)))
    subject, chunks = _Frames(named=False), list[Chunk]()
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        if start < end:
            chunks += subject.feed(raw[start:end])
    assert subject.done
    assert b"".join(chunk.raw for chunk in chunks) == raw.removesuffix(b"data: [DONE]\n\n")
    assert [each for chunk in chunks for each in chunk.events] == events
    plain = [chunk.plain for chunk in chunks if chunk.plain is not None]
    told = [each for chunk in chunks for each in chunk.told]
    assert sum(each.number for each in plain) + len(told) == len(events)
    said = sum(each.text_bytes for each in plain) + sum(map(text_bytes, told))
    assert said == sum(map(text_bytes, events))


def test_an_event_that_is_hidden_leaves_the_rest_as_it_came() -> None:
    last = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1}}
    frames = spelt(event("a"), event("b"), last)
    (chunk,) = _Frames(named=False).feed(b"".join(frame + b"\n\n" for frame in frames))
    shown = chunk.without([each for each in chunk.told if each.get("usage")])
    assert shown.raw == b"".join(frame + b"\n\n" for frame in frames[:2])
    assert list(shown.events) == [event("a"), event("b"), last]
    assert shown.plain == chunk.plain
