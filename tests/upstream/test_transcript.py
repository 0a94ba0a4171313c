from __future__ import annotations

import orjson
import pytest

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Call, Json, Surface
from proxy.upstream.transcript import transcript_from, transcript_of

SRT = "1\n00:00:00,000 --> 00:00:02,500\nhello\n\n2\n00:59:58,000 --> 01:00:01,250\nyou\n\n"
TEXT = "text/plain; charset=utf-8"


def call(form: str | None = None, *, stream: bool = False) -> Call:
    body: Json = {"model": "m", **({"response_format": form} if form else {})}
    return Call("m", stream, body, Surface.TRANSCRIPTIONS)


def of(raw: str, kind: str, form: str | None = None) -> Json:
    reply = transcript_of(call(form), raw.encode(), kind, secrets=())
    assert (reply.raw, reply.content_type) == (raw.encode(), kind or "application/json")
    return reply.body


def test_a_text_is_told_as_it_came_and_read_for_what_it_is() -> None:
    assert of("hello\n", TEXT, "text") == {"text": "hello\n"}
    assert of("", TEXT, "text") == {"text": ""}
    assert of(SRT, TEXT, "srt") == {"text": SRT, "duration": 3601.25}
    vtt = "WEBVTT\n\n00:01.000 --> 00:07.040\nhello\n"
    assert of(vtt, "text/vtt", "vtt") == {"text": vtt, "duration": 7.04}
    assert of('"hello"', "application/json", "text") == {"text": "hello"}
    assert of('{"text":"hello"}', "") == {"text": "hello"}


@pytest.mark.parametrize("raw", ["", "hello", "[]", "{}", '{"text":7}', '{"error":{"code":"x"}}'])
def test_what_is_no_transcript_is_a_failure(raw: str) -> None:
    with pytest.raises(UpstreamFailure) as caught:
        of(raw, "application/json")
    assert caught.value.kind is Kind.TRANSIENT


def test_what_litellm_made_of_it_has_the_form_that_was_asked_for() -> None:
    body: Json = {"text": "hello", "duration": 2.5, "language": "english"}
    assert orjson.loads(transcript_from(call(), body).raw) == {"text": "hello"}
    assert orjson.loads(transcript_from(call("verbose_json"), body).raw) == body
    reply = transcript_from(call("text"), body)
    assert (reply.raw, reply.content_type, reply.body) == (b"hello", TEXT, body)
    assert transcript_from(call("srt"), {"text": SRT}).body["duration"] == 3601.25
    for wrong, kind in (({}, Kind.TRANSIENT), (body, Kind.DIALECT)):
        with pytest.raises(UpstreamFailure) as caught:
            transcript_from(call("srt"), wrong)
        assert caught.value.kind is kind


def test_a_stream_is_told_events_whatever_the_provider_wrote() -> None:
    reply = transcript_of(call("text", stream=True), b"hello", TEXT, secrets=())
    assert reply.streamed
    assert reply.raw.count(b"event: transcript.text.d") == 2
    assert reply.body == {"text": "hello"}
