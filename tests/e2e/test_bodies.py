"""What a provider's bytes look like: any spelling of an answer is the answer, no size is too big.

The same stream is cut at every byte, so that no split of a character, a line or an event is luck.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.e2e.provider_configs import FIRST, SAID, Lab, answers, lab, suspects, ways
from tests.providers import (
    MISSING,
    Answer,
    Endless,
    Fails,
    NoDone,
    SseStyle,
    ToolCall,
)
from tests.providers.steps import Step

pytestmark = pytest.mark.e2e

MB = 1024 * 1024
ANSWER_MB = 2
MAY_GROW_BYTES = 100 * MB
TEXT = "Grüße 👋🏽, 世界! ½ \u2028 line \u2029 and \x85 \r\n 'quoted' \"too\" \\n 👨‍👩‍👧 done"


@pytest.fixture(scope="module")
def rings() -> Iterator[Lab]:
    with lab(dict.fromkeys(FIRST.values(), 130), limits={"answer_mb": ANSWER_MB}) as running:
        yield running


# Spellings of the same answer.

STYLES = {
    "plain": SseStyle(),
    "crlf": SseStyle(newline="\r\n"),
    "cr": SseStyle(newline="\r"),
    "comments": SseStyle(comments=True),
    "bom": SseStyle(bom=True),
    "many lines": SseStyle(multiline=True),
    "no space": SseStyle(space=False),
    "unknown fields": SseStyle(extras=True),
    "everything": SseStyle(
        newline="\r\n", comments=True, bom=True, multiline=True, space=False, extras=True
    ),
}


@suspects
@pytest.mark.parametrize("cut", [None, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("style", STYLES)
def test_every_spelling_of_a_stream_says_the_same(
    rings: Lab, suspect: str, style: str, cut: int | None
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(Answer(text=TEXT, sse_style=STYLES[style], write_split=cut))
    answer = ring.ask(stream=True, stream_options={"include_usage": True})
    assert ring.asked == [0]
    assert (answer.text, answer.finish) == (TEXT, "stop")
    assert answer.usage.completion_tokens == len(TEXT.split())


@suspects
@pytest.mark.parametrize("style", ["plain", "everything"])
def test_a_compressed_stream_says_the_same(rings: Lab, suspect: str, style: str) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(Answer(text=TEXT, gzip=True, write_split=3, sse_style=STYLES[style]))
    assert ring.ask(stream=True).text == TEXT
    assert ring.asked == [0]


@suspects
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_a_whole_answer_says_the_same_however_it_travels(
    rings: Lab, suspect: str, framing: Any, gzip: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(Answer(text=TEXT, gzip=gzip, framing=framing, write_split=11))
    assert ring.ask().text == TEXT
    assert ring.asked == [0]


OPENAI_STREAM = (
    'data: {"choices":[{"index":0,"delta":{"content":"ü€"}}]}\r\n\r\n'
    'data: {"choices":[{"index":0,"delta":{"content":"👋ß"},"finish_reason":"stop"}]}\n\n'
    "data: [DONE]\n\n"
).encode()
ANTHROPIC_STREAM = (
    'event: message_start\ndata: {"type":"message_start","message":{"id":"m","type":"message",'
    '"role":"assistant","model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}\n\n'
    'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":'
    '{"type":"text","text":""}}\n\n'
    'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
    '{"type":"text_delta","text":"ü€👋ß"}}\r\n\r\n'
    'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
    '"usage":{"output_tokens":4}}\n\n'
    'event: message_stop\ndata: {"type":"message_stop"}\n\n'
).encode()
# Anthropic's stream is long: of its frame only some bytes, of its text every one.
_FRAME = range(1, len(ANTHROPIC_STREAM), 23)
_WORDS = range(at := ANTHROPIC_STREAM.index("ü".encode()) - 2, at + 24)
CUTS = {
    "openai": (OPENAI_STREAM, range(1, len(OPENAI_STREAM))),
    "anthropic": (ANTHROPIC_STREAM, sorted({*_FRAME, *_WORDS})),
}


@suspects
def test_a_stream_may_be_cut_at_every_byte(rings: Lab, suspect: str) -> None:
    ring = rings.take(FIRST[suspect])
    body, cuts = CUTS[suspect]
    ring.places[0].script(*(answers(body, write_split=(cut,)) for cut in cuts))
    told = {(answer.text, answer.finish) for answer in (ring.ask(stream=True) for _ in cuts)}
    assert told == {("ü€👋ß", "stop")}
    assert ring.asked == [0] * len(cuts)


@suspects
@pytest.mark.parametrize(
    "trailing", [b'data: {"choices":\n\n', b"garbage", b"data: [DONE]\n\n", b": bye\n\n\xff"]
)
def test_what_follows_the_end_of_a_stream_is_not_read(
    rings: Lab, suspect: str, trailing: bytes
) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(Answer(trailing=trailing))
    answer = ring.ask(stream=True)
    assert (answer.text, answer.finish) == (SAID, "stop")
    assert ring.ask(stream=True).text == SAID  # and it is not taken for the next answer either
    assert ring.asked == [0, 0]


@suspects
@pytest.mark.parametrize("then", ["close", "open"])
def test_a_finished_stream_needs_no_done(rings: Lab, suspect: str, then: Any) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(NoDone(then=then))
    answer = ring.ask(stream=True)
    assert (answer.text, answer.finish) == (SAID, "stop")
    assert ring.asked == [0]


@ways
@suspects
def test_an_answer_without_text_is_an_answer(rings: Lab, suspect: str, stream: bool) -> None:
    ring = rings.take(FIRST[suspect])
    ring.places[0].script(
        Answer(tool_calls=(ToolCall("f", '{"a": "ü"}'),)), Answer(text="", finish="length")
    )
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert ring.ask(stream=stream, tools=tools).finish == "tool_calls"
    assert ring.asked == [0]


# Compressed bodies in several members, and what stands behind them.

WHOLE = {
    "openai": (
        '{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        '"message":{"role":"assistant","content":"ü€👋ß"},"finish_reason":"stop"}]}'
    ).encode(),
    "anthropic": (
        '{"id":"m","type":"message","role":"assistant","model":"m","content":[{"type":"text",'
        '"text":"ü€👋ß"}],"stop_reason":"end_turn","stop_sequence":null,'
        '"usage":{"input_tokens":1,"output_tokens":4}}'
    ).encode(),
}
PACKED = {"content-encoding": "gzip"}


def _body(suspect: str, *, stream: bool) -> bytes:
    return CUTS[suspect][0] if stream else WHOLE[suspect]


def _packed(body: bytes, members: int) -> bytes:
    """The body in so many members, cut where a character of many bytes may stand."""
    size = -(-len(body) // members)
    return b"".join(gzip.compress(body[at : at + size]) for at in range(0, len(body), size))


MEMBERS: dict[str, Callable[[bytes], bytes]] = {
    "two": lambda body: _packed(body, 2),
    "one a byte": lambda body: _packed(body, len(body)),
    "empty ones between": lambda body: gzip.compress(b"").join(
        gzip.compress(piece) for piece in (b"", body[:50], body[50:], b"")
    ),
    "padding behind": lambda body: _packed(body, 2) + b"\0" * 512,
    "padding between": lambda body: gzip.compress(body[:50]) + b"\0" * 3 + gzip.compress(body[50:]),
}


@ways
@suspects
@pytest.mark.parametrize("cut", [None, 1, 7], ids=["whole", "bytes", "sevens"])
@pytest.mark.parametrize("members", MEMBERS)
def test_a_body_in_several_compressed_members_is_one_body(
    rings: Lab, suspect: str, members: str, cut: int | None, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    packed = MEMBERS[members](_body(suspect, stream=stream))
    ring.places[0].script(answers(packed, headers=PACKED, write_split=cut))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0]
    assert (answer.text, answer.finish) == ("ü€👋ß", "stop")


NO_MEMBERS = {
    "text": b"<html>Bad Gateway</html>",
    "half a header": gzip.compress(b"more")[:5],
    "half a member": gzip.compress(b"more")[:-4],
    "a wrong checksum": gzip.compress(b"more")[:-8] + b"\xff" * 8,
}


@suspects
@pytest.mark.parametrize("cut", [None, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("behind", NO_MEMBERS)
def test_a_whole_answer_with_something_broken_behind_it_is_not_delivered(
    rings: Lab, suspect: str, behind: str, cut: int | None
) -> None:
    ring = rings.take(FIRST[suspect])
    packed = gzip.compress(WHOLE[suspect]) + NO_MEMBERS[behind]
    ring.places[0].always(answers(packed, headers=PACKED, write_split=cut))
    assert ring.ask().text == SAID
    assert ring.asked == [0, 0, 1]


@suspects
@pytest.mark.parametrize("cut", [None, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("behind", NO_MEMBERS)
def test_a_finished_stream_with_something_broken_behind_it_is_whole(
    rings: Lab, suspect: str, behind: str, cut: int | None
) -> None:
    ring = rings.take(FIRST[suspect])
    packed = gzip.compress(CUTS[suspect][0]) + NO_MEMBERS[behind]
    ring.places[0].script(answers(packed, headers=PACKED, write_split=cut))
    answer = ring.ask(stream=True)
    assert (answer.text, answer.finish) == ("ü€👋ß", "stop")
    assert ring.ask(stream=True).text == SAID  # and nothing of it is left for the next answer
    assert ring.asked == [0, 0]


@suspects
@pytest.mark.parametrize("cut", [None, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("behind", NO_MEMBERS)
def test_a_stream_whose_next_member_is_broken_is_cut_there(
    rings: Lab, suspect: str, behind: str, cut: int | None
) -> None:
    ring = rings.take(FIRST[suspect])
    said = CUTS[suspect][0].partition(b"\r\n\r\n")[0]
    packed = gzip.compress(said + b"\r\n\r\n") + NO_MEMBERS[behind]
    ring.places[0].script(answers(packed, headers=PACKED, write_split=cut))
    with pytest.raises(openai.APIError) as caught:
        ring.ask(stream=True)
    assert caught.value.code == "upstream_error"
    assert ring.asked == [0]


# Usage is the provider's word about itself; a wrong one is no reason to withhold the answer.

USAGES: dict[str, Any] = {
    "missing": MISSING,
    "null": None,
    "string": "many",
    "list": [1, 2],
    "negative": {"prompt_tokens": -5, "completion_tokens": -5, "total_tokens": -10},
    "huge": {"prompt_tokens": 10**30, "completion_tokens": 10**30, "total_tokens": 10**31},
    "strings": {"prompt_tokens": "7", "completion_tokens": "x", "total_tokens": None},
    "nulls": {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None},
    "details": {
        "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2,
        "prompt_tokens_details": "none", "completion_tokens_details": [None],
    },
}  # fmt: skip
_IN_ANTHROPICS_WORDS = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


@ways
@suspects
@pytest.mark.parametrize("usage", USAGES)
def test_an_answer_is_delivered_whatever_its_usage(
    rings: Lab, suspect: str, usage: str, stream: bool
) -> None:
    ring = rings.take(FIRST[suspect])
    said = USAGES[usage]
    if suspect == "anthropic" and isinstance(said, dict):
        said = {_IN_ANTHROPICS_WORDS.get(name, name): value for name, value in said.items()}
    ring.places[0].script(Answer(usage=said))
    answer = ring.ask(stream=stream)
    assert ring.asked == [0]
    assert (answer.text, answer.finish) == (SAID, "stop")


# Bodies without an end.

HUGE = 100 * MB
BOUNDED: dict[str, tuple[Step, bool]] = {
    "endless body": (Endless(limit_bytes=HUGE), False),
    "gzip bomb": (Endless(limit_bytes=HUGE, gzip=True), False),
    "whole body": (answers(b" " * (8 * MB)), False),
    "endless line": (Endless(limit_bytes=HUGE, of="line"), True),
    "gzip bomb of a line": (Endless(limit_bytes=HUGE, of="line", gzip=True), True),
    "no events": (answers(b": nothing\n\n" * (8 * MB // 11)), True),
    "refusal": (Fails(500, b"x" * (8 * MB)), False),
    "packed refusal": (Fails(500, b"x" * HUGE, gzip=True), True),
}


@suspects
@pytest.mark.parametrize("body", BOUNDED)
def test_memory_stays_bounded_whatever_is_sent(rings: Lab, suspect: str, body: str) -> None:
    ring = rings.take(FIRST[suspect])
    step, stream = BOUNDED[body]
    ring.places[0].always(step)
    before = rings.memory_bytes()
    answer = ring.ask(stream=stream)
    assert ring.asked == [0, 0, 1]
    assert (answer.text, answer.target) == (SAID, 1)
    assert rings.peak_bytes() - before < MAY_GROW_BYTES


def test_a_stream_of_nothing_is_not_held_for_ever(rings: Lab) -> None:
    ring = rings.take(FIRST["openai"])
    ring.places[0].always(answers(b'data: {"choices":[]}\n\n' * (4 * MB // 22)))
    assert ring.ask(stream=True).target == 1
    assert ring.asked == [0, 0, 1]


@pytest.mark.parametrize("size", [0.9, 1.1])
def test_the_limit_of_a_whole_answer_is_where_it_is_said_to_be(rings: Lab, size: float) -> None:
    ring = rings.take(FIRST["openai"])
    text = "a" * int(size * ANSWER_MB * MB)
    ring.places[0].always(Answer(text=text))
    answer = ring.ask()
    assert answer.target == (0 if size < 1 else 1)
    assert answer.text == (text if size < 1 else SAID)
