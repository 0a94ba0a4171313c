"""Reads of a stream of Anthropic's, as chunks of a chat's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.retry import Kind
from proxy.types import Json
from proxy.upstream.events import payloads_of
from proxy.upstream.tongues.claude_events import Telling
from proxy.upstream.tongues.claude_speech import Spoken

BEGINNING: Json = {"type": "message_start", "message": {"id": "msg_1", "model": "claude"}}
END: Json = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}


def text(said: str) -> Json:
    delta = {"type": "text_delta", "text": said}
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def spelt(event: Json, **how: Any) -> bytes:
    return json.dumps(event, **how).encode(errors="surrogatepass")


def spoken() -> Spoken:
    return Spoken(Telling("claude", created_s=1))


def contents(events: list[Json]) -> list[str]:
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    return [delta["content"] for delta in deltas if delta.get("content")]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=1), st.booleans())
def test_every_piece_of_text_is_told_as_it_was_said(said: list[str], ascii_only: bool) -> None:
    payloads = [spelt(text(piece), ensure_ascii=ascii_only) for piece in said]
    chunk, failure = spoken().chunk([spelt(BEGINNING), *payloads])
    assert failure is None
    assert chunk is not None
    assert contents(list(chunk.events)) == said


def test_text_is_passed_on_unread_once_the_stream_has_begun() -> None:
    chunk, _ = spoken().chunk(
        [spelt(BEGINNING), spelt(text("one")), spelt(text("größer"), ensure_ascii=False)]
    )
    assert chunk is not None
    assert chunk.plain == (1, len("größer".encode()))
    assert contents(list(chunk.told)) == ["one"]
    assert contents(list(chunk.events)) == ["one", "größer"]
    assert [event["choices"][0]["delta"].get("role") for event in chunk.events] == [
        "assistant",
        None,
    ]


def test_no_text_is_told_after_the_end() -> None:
    chunk, _ = spoken().chunk(
        [spelt(text("one")), spelt(text("two")), spelt(END), spelt(text("3"))]
    )
    assert chunk is not None
    assert contents(list(chunk.events)) == ["one", "two"]


@pytest.mark.parametrize("padding", [b"", b"     "])
def test_the_spaces_that_anthropic_pads_with_are_left_out(padding: bytes) -> None:
    subject = spoken()
    subject.chunk([spelt(text("one"))])
    payload = spelt(text("two"), separators=(",", ":"))
    chunk, _ = subject.chunk([payload[:-1] + padding + b"}"])
    assert chunk is not None
    assert chunk.plain == (1, 3)
    assert contents(list(chunk.events)) == ["two"]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\xff"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\\q"}}',
        b'{"type":"content_block_delta","index":0}',
        b'{"type":"content_block_start","index":0}',
        b'{"type":"message_delta"}',
        b"[]",
        b"{",
    ],
)
def test_what_stands_before_an_event_that_cannot_be_read_is_told(payload: bytes) -> None:
    subject = spoken()
    chunk, failure = subject.chunk([spelt(text("one")), payload, spelt(text("two"))])
    assert chunk is not None
    assert contents(list(chunk.events)) == ["one"]
    assert failure is not None
    assert failure.kind is Kind.TRANSIENT


@given(st.lists(st.integers(1, 400)), st.booleans())
def test_it_does_not_matter_where_the_bytes_are_split(cuts: list[int], comments: bool) -> None:
    events = [BEGINNING, text("größer"), {"type": "ping"}, text('"'), text("🙂"), END]
    frames = [b"event: x\ndata: " + spelt(event, ensure_ascii=False) + b"\n\n" for event in events]
    raw = (b": hello\n\n" * comments).join([b"", *frames])

    async def pieces() -> AsyncIterator[bytes]:
        at = 0
        for cut in cuts:
            yield raw[at : at + cut]
            at += cut
        yield raw[at:]

    async def hear() -> list[Json]:
        subject, told = spoken(), []
        async for payloads in payloads_of(pieces()):
            chunk, failure = subject.chunk(payloads)
            assert failure is None
            told += list(chunk.events) if chunk is not None else []
        return told

    assert contents(asyncio.run(hear())) == ["größer", '"', "🙂"]
