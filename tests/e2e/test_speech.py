"""Speech through the official SDK: sound as it comes, under the same ring, keys, and budgets."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.audio_place import KEYS, WEB, Place, audio_place
from tests.harness import total
from tests.providers import MISSING, Answer, Breaks, Fails, Gate, Usage
from tests.providers.openai_audio import TOKEN_BYTES, sound

pytestmark = pytest.mark.e2e

ASKED: dict[str, Any] = {"voice": "coral", "input": "Hello out there."}


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with audio_place() as place:
        yield place


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.first, running.second):
        fake.reset_script()
        fake.journal.clear()
    return running


@pytest.mark.parametrize("model", ["m", "by-litellm", "azure", "groq"])
def test_speech_is_the_provider_s_bytes_under_their_own_type(place: Place, model: str) -> None:
    answer = place.client.audio.speech.create(
        model=model, **ASKED, response_format="opus", speed=1.5, instructions="softly"
    )
    assert answer.read() == sound()
    assert answer.response.headers["content-type"] == "audio/ogg"
    sent = place.first.journal.last
    more = {"response_format": "opus", "speed": 1.5, "instructions": "softly"}
    assert sent.json == {**ASKED, **more, "model": "first"}
    assert sent.path.endswith("/audio/speech")
    assert answer.response.headers["x-mobius-target"].startswith(f"{model}/")


@pytest.mark.parametrize("model", ["m", "by-litellm"])
def test_sound_is_sent_while_more_of_it_is_still_to_come(place: Place, model: str) -> None:
    gate = Gate()
    place.first.script(Answer(tokens=4, gate=gate, gate_after_tokens=2))
    speech = place.client.audio.speech.with_streaming_response
    with speech.create(model=model, **ASKED) as answer:
        pieces = answer.iter_bytes(TOKEN_BYTES)
        assert next(pieces) + next(pieces) == sound(2)
        assert not place.first.journal.last.finished
        gate.open()
        assert b"".join(pieces) == sound(4)[2 * TOKEN_BYTES :]


@pytest.mark.parametrize("model", ["m", "by-litellm", "groq"])
def test_events_of_speech_are_there_for_who_asks_for_them(place: Place, model: str) -> None:
    speech = place.client.audio.speech.with_streaming_response
    with speech.create(model=model, **ASKED, stream_format="sse") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line[6:]) for line in lines]
    heard = b"".join(base64.b64decode(each.get("audio", "")) for each in events)
    assert heard == sound()
    assert events[-1]["type"] == "speech.audio.done"


def test_a_provider_that_fails_before_its_first_sound_is_not_heard(place: Place) -> None:
    no_sound = Answer(raw_body=b'{"oops": 1}', content_type="application/json")
    for step in (Fails(500), Breaks(0, how="eof"), Breaks(0, how="ends"), no_sound):
        place.first.script(step)
        answer = place.client.audio.speech.create(model="m", **ASKED)
        assert answer.read() == sound()
        assert answer.response.headers["x-mobius-target"].startswith("spare/")


def test_a_refusal_of_the_provider_s_is_an_error_in_openai_s_form(place: Place) -> None:
    place.first.script(Fails(400))
    with pytest.raises(openai.BadRequestError) as caught:
        place.client.audio.speech.create(model="m", **ASKED)
    assert caught.value.response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("model", ["m", "by-litellm"])
@pytest.mark.parametrize("how", ["eof", "reset", "stall"])
def test_sound_that_breaks_never_looks_complete(place: Place, model: str, how: Any) -> None:
    place.first.script(Breaks(2, how=how))
    answer = place.mobius.http.send(
        place.mobius.http.build_request(
            "POST", "/v1/audio/speech", json={"model": model, **ASKED}, headers=WEB
        ),
        stream=True,
    )
    heard = bytearray()
    with contextlib.closing(answer), pytest.raises(httpx.RemoteProtocolError):
        _listen(answer, heard)
    assert bytes(heard) == sound(2)


def test_events_of_speech_that_break_end_with_an_error(place: Place) -> None:
    place.first.script(Breaks(2, how="ends"))
    asked = {"model": "m", **ASKED, "stream_format": "sse"}
    answer = place.mobius.http.post("/v1/audio/speech", json=asked, headers=WEB)
    last = [line for line in answer.text.splitlines() if line.startswith("data: ")][-1]
    assert "error" in json.loads(last[6:])


def test_who_stops_listening_ends_the_call(place: Place) -> None:
    gate = Gate()
    place.first.script(Answer(tokens=4, gate=gate, gate_after_tokens=2))
    speech = place.client.audio.speech.with_streaming_response
    with speech.create(model="m", **ASKED) as answer:
        next(answer.iter_bytes(TOKEN_BYTES))
    assert place.first.journal.wait_over()[-1].closed_by == "client"


def test_a_text_is_charged_by_its_characters_or_by_tokens(place: Place) -> None:
    place.first.always(Answer(usage=MISSING))
    client = place.mobius.openai(KEYS["rich"])
    client.audio.speech.create(model="tts-1", voice="coral", input="ä" * 1000)
    client.audio.speech.create(model="gpt-4o-mini-tts", voice="coral", input="a" * 1000)
    place.first.always(Answer(usage=Usage(100, 2000)))
    streaming = client.audio.speech.with_streaming_response
    asked: Any = {"voice": "coral", "input": "a", "stream_format": "sse"}
    with streaming.create(model="gpt-4o-mini-tts", **asked) as answer:
        answer.read()
    rows = {row["model"]: row for row in place.spent("rich")}
    assert rows["tts-1"]["cost_usd"] == "0.015000"  # LiteLLM's price: $15 a million
    by_tokens = rows["gpt-4o-mini-tts"]
    assert by_tokens["estimated"] == 1
    assert by_tokens["completion_tokens"] == 1400 + 2000
    assert by_tokens["audio_completion_tokens"] == 1400 + 2000


def test_a_text_that_a_budget_does_not_reach_for_is_not_read(place: Place) -> None:
    client = place.mobius.openai(KEYS["poor"])
    client.audio.speech.create(model="tts-1", voice="coral", input="a" * 60)
    with pytest.raises(openai.RateLimitError) as caught:
        client.audio.speech.create(model="tts-1", voice="coral", input="a" * 60)
    assert caught.value.code == "insufficient_quota"
    with pytest.raises(openai.PermissionDeniedError):
        client.audio.speech.create(model="m", voice="coral", input="a")  # of an unknown price
    assert len(place.first.journal) == 1


def test_speech_is_counted_as_what_it_is(place: Place) -> None:
    before = place.mobius.metrics()
    place.client.audio.speech.create(model="m", **ASKED)
    after = place.mobius.metrics()
    name = "mobius_request_seconds_count"
    assert total(after, name, surface="speech") - total(before, name, surface="speech") == 1
    name = "mobius_time_to_first_token_seconds_count"
    assert total(after, name, model="m") - total(before, name, model="m") == 1


def _listen(answer: httpx.Response, heard: bytearray) -> None:
    for piece in answer.iter_bytes():
        heard += piece
