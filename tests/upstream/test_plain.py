"""What is told by its bytes is what its JSON says; what says more is not taken for plain."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.aggregate import has_content, text_bytes
from proxy.grammar.chat import endings_of
from proxy.replies import Chunk, Plain
from proxy.types import Json
from proxy.upstream.events import _Frames
from proxy.upstream.plain import MOST_LESSONS, PlainText


def event(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "choices": [choice], **more}


def spelt(*events: Json) -> bytes:
    return b"".join(b"data: " + orjson.dumps(each) + b"\n\n" for each in events)


def sorted_by(subject: PlainText, *events: Json) -> tuple[Plain | None, list[Json]]:
    """Return what is told of these events by their bytes, and the others."""
    raw = spelt(*events)
    found = subject.sort(raw)
    assert found is not None
    assert (found.raw, found.done) == (raw, False)
    return found.plain, [orjson.loads(frame.removeprefix(b"data: ")) for frame in found.odd]


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
    assert sorted_by(subject, event("hello"), event(" wor"), event("ld")) == ((3, 11), [])
    assert sorted_by(subject, event("größe"), event("!")) == ((2, 8), [])


def test_of_a_service_tier_one_event_tells() -> None:
    subject, said = PlainText(), [event(text, service_tier="flex") for text in ("a", "b")]
    assert sorted_by(subject, *said) == ((1, 1), said[:1])
    assert sorted_by(subject, *said) == ((2, 2), [])


def test_padding_of_any_length_is_passed_over() -> None:
    subject = PlainText()
    paddings = enumerate(["x7Kq", "x7KqQQ", "a"])
    said = [event("ab" * (n + 1), usage=None, obfuscation=each) for n, each in paddings]
    assert sorted_by(subject, *said) == ((3, 12), [])
    assert sorted_by(subject, said[1]) == ((1, 4), [])


def test_what_stands_between_pieces_of_text_is_to_be_read() -> None:
    subject = PlainText()
    for padded in ({}, {"obfuscation": "abc"}):
        said = [event("ab", **padded), event("c", **padded)]
        for more in SAID_MORE.values():
            mixed = [*said, more | padded, *said, more | padded]
            assert sorted_by(subject, *mixed) == ((4, 6), [more | padded] * 2)


@pytest.mark.parametrize("name", SAID_MORE)
def test_what_says_more_is_to_be_read(name: str) -> None:
    subject = PlainText()
    sorted_by(subject, event("hello"), event("x"))
    for padded in ({}, {"obfuscation": "abc"}):
        more = SAID_MORE[name] | padded
        assert sorted_by(subject, more) == (None, [more])
        sorted_by(subject, event("hello", **padded))


def test_a_stream_of_another_kind_is_not_looked_at_for_ever() -> None:
    subject = PlainText()
    unlike = [choice(logprobs={"content": [], "n": number}) for number in range(MOST_LESSONS)]
    assert sorted_by(subject, *unlike) == (None, unlike)
    assert sorted_by(subject, event("a"), event("b")) == (None, [event("a"), event("b")])


ODDLY_SPELT = [
    b": comment\n\n",
    b"data: 1\ndata: 2\n\n",
    b"event: x\ndata: 1\n\n",
    b"\n\n",
    b"data: \n\n",
]


@pytest.mark.parametrize("oddly", ODDLY_SPELT)
def test_what_is_spelt_in_another_way_is_not_sorted(oddly: bytes) -> None:
    subject, said = PlainText(), spelt(event("hello"))
    for raw in (oddly, said + oddly, oddly + said, said + oddly + said):
        assert subject.sort(raw) is None
    torn = said.replace(b"hello", b"hel\nlo")
    assert subject.sort(torn) is None
    assert subject.sort(said + torn) is None


def test_what_follows_the_end_is_nothing() -> None:
    said, done = spelt(event("hello")), b"data: [DONE]\n\n"
    found = PlainText().sort(said + done + said + b"\n\n")
    assert found == (said, (1, 5), [], True)
    assert PlainText().sort(done) == (b"", None, [], True)


TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=20),
    st.sampled_from(
        ['"', "\\", '","content":"x', "data: [DONE]", 'content":"', "\n\ndata: {}", "\r"]
    ),
)
PADDINGS = st.sampled_from([{}, {"obfuscation": "aB3"}, {"obfuscation": "x"}, {"obfuscation": ""}])
ANY = st.one_of(
    st.builds(event, TEXTS),
    st.builds(lambda text, padding: event(text, **padding), TEXTS, PADDINGS),
    st.builds(
        lambda text: choice(delta={"tool_calls": [{"index": 0, "function": {"arguments": text}}]}),
        TEXTS,
    ),
    st.sampled_from(list(SAID_MORE.values())),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY, max_size=12), st.data())
def test_however_it_is_cut_a_stream_tells_what_its_events_say(
    events: list[dict[str, Any]], data: st.DataObject
) -> None:
    said = spelt(*events)
    raw = said + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(raw)), max_size=5)))
    subject, chunks = _Frames(named=False), list[Chunk]()
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        if start < end and (chunk := subject.feed(raw[start:end])) is not None:
            chunks.append(chunk)
    assert subject.done
    assert b"".join(chunk.raw for chunk in chunks) == said
    assert [each for chunk in chunks for each in chunk.events] == events
    plain = [chunk.plain for chunk in chunks if chunk.plain is not None]
    told = [each for chunk in chunks for each in chunk.told]
    assert sum(each.number for each in plain) + len(told) == len(events)
    text = sum(each.text_bytes for each in plain) + sum(map(text_bytes, told))
    assert text == sum(map(text_bytes, events))
    # What is not told brings content and nothing else.
    for sort in (has_content, ends, reports):
        untold = sum(map(sort, events)) - sum(map(sort, told))
        assert untold == (sum(each.number for each in plain) if sort is has_content else 0)


def ends(each: Json) -> bool:
    return any(ended for _, ended in endings_of(each))


def reports(each: Json) -> bool:
    return bool(each.get("usage") or each.get("error"))


def test_an_event_that_is_hidden_leaves_the_rest_as_it_came() -> None:
    last = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1}}
    for said in ([event("a"), event("b")], [choice(finish_reason="stop")]):
        chunk = _Frames(named=False).feed(spelt(*said, last))
        assert chunk is not None
        shown = chunk.without([each for each in chunk.told if each.get("usage")])
        assert shown.raw == spelt(*said)
        assert list(shown.events) == [*said, last]
        assert shown.told == chunk.told
        assert shown.plain == chunk.plain


def test_a_body_that_is_not_utf_8_is_no_answer() -> None:
    chunk = _Frames(named=False).feed(spelt(event("hello")).replace(b"hello", b"\xff"))
    assert chunk is not None
    with pytest.raises(ValueError, match=r"."):
        _ = chunk.told
