"""Recordings through the official SDK: sent on as they came, to every target that is asked."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.audio_place import KEYS, UPLOAD_MB, WEB, Place, audio_place
from tests.harness import total, wait_until
from tests.providers import MISSING, Answer, Breaks, Fails, Usage

pytestmark = pytest.mark.e2e

SAID = "t0 t1 t2 t3 t4"
SMALL = b"ID3" + bytes(range(256)) * 4
LARGE = b"".join(number.to_bytes(4) for number in range(375_000))  # more than memory holds
PATH = "/v1/audio/transcriptions"


def wav(seconds: float) -> bytes:
    """Silence of so many seconds: 16 kHz, 16 bits."""
    data = bytes(int(seconds * 32_000))
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16_000, 32_000, 2, 16)
    size = struct.pack("<I", len(data))
    return b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVE" + fmt + b"data" + size + data


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


def files_of(place: Place) -> list[str]:
    """What the process has open that has no name any more."""
    folder = Path(f"/proc/{place.mobius.pid}/fd")
    found = []
    for each in folder.iterdir():
        try:
            found.append(os.readlink(each))
        except FileNotFoundError:
            continue
    return [name for name in found if name.endswith("(deleted)")]


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("model", ["m", "by-litellm", "azure", "groq"])
def test_a_recording_reaches_the_provider_as_it_was_sent(
    place: Place, model: str, data: bytes
) -> None:
    found = place.client.audio.transcriptions.create(
        model=model, file=("größe.mp3", data, "audio/mpeg"), language="en", prompt="ä; hm",
        temperature=0.5,
    )  # fmt: skip
    assert found.text == SAID
    sent = place.first.journal.last
    assert sent.form["file"] == [data]
    fields = {name: values[0].decode() for name, values in sent.form.items() if name != "file"}
    asked = {"model": "first", "language": "en", "prompt": "ä; hm", "temperature": "0.5"}
    assert fields.items() >= asked.items()
    assert sent.path.endswith("/audio/transcriptions")
    if model == "m":
        assert fields == asked
        assert 'filename="größe.mp3"'.encode() in sent.body
        assert b"Content-Type: audio/mpeg" in sent.body
        assert int(sent.headers["content-length"]) == len(sent.body)


def test_lists_of_a_form_and_what_nobody_knows_arrive_too(place: Place) -> None:
    place.client.audio.transcriptions.create(
        model="m", file=SMALL, response_format="verbose_json",
        timestamp_granularities=["word", "segment"], extra_body={"of_others": "7"},
    )  # fmt: skip
    form = place.first.journal.last.form
    assert form["timestamp_granularities[]"] == [b"word", b"segment"]
    assert form["of_others"] == [b"7"]


@pytest.mark.parametrize("model", ["m", "by-litellm"])
@pytest.mark.parametrize("form", ["text", "srt", "vtt", "verbose_json", "json"])
def test_an_answer_has_the_form_that_was_asked_for(place: Place, model: str, form: Any) -> None:
    answer = place.client.audio.transcriptions.with_raw_response.create(
        model=model, file=SMALL, response_format=form
    )
    raw, kind = answer.content.decode(), answer.headers["content-type"]
    if "json" in form:
        assert kind == "application/json"
        body = json.loads(raw)
        assert body["text"] == SAID
        assert body.get("duration") == (5.0 if form == "verbose_json" else None)
    else:
        assert kind == "text/plain; charset=utf-8"
        assert SAID in raw
        assert ("-->" in raw) == (form in ("srt", "vtt"))


@pytest.mark.parametrize("model", ["m", "by-litellm", "whisper-1"])
def test_what_is_heard_is_streamed_also_where_the_provider_answers_whole(
    place: Place, model: str
) -> None:
    stream = place.client.audio.transcriptions.create(model=model, file=SMALL, stream=True)
    events: list[Any] = list(stream)
    assert "".join(e.delta for e in events if e.type == "transcript.text.delta").strip() == SAID
    assert (events[-1].type, events[-1].text.strip()) == ("transcript.text.done", SAID)
    assert events[-1].usage is not None


def test_a_stream_that_breaks_is_never_cut_silently(place: Place) -> None:
    place.first.script(Breaks(2, how="ends"))
    stream = place.client.audio.transcriptions.create(model="m", file=SMALL, stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_translation_goes_the_same_way(place: Place) -> None:
    assert place.client.audio.translations.create(model="m", file=SMALL).text == SAID
    assert place.first.journal.last.path == "/v1/audio/translations"
    with pytest.raises(openai.BadRequestError):
        place.client.audio.translations.create(model="by-litellm", file=SMALL)


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_the_next_target_gets_the_same_bytes(place: Place, data: bytes) -> None:
    for step in (Fails(500), Breaks(0, how="eof")):
        place.first.script(step)
        answer = place.client.audio.transcriptions.with_raw_response.create(model="m", file=data)
        assert answer.headers["x-mobius-target"].startswith("spare/")
        first, second = place.first.journal.last, place.second.journal.last
        assert first.form["file"] == second.form["file"] == [data]
        assert second.form["model"] == [b"second"]
    assert files_of(place) == []


def test_the_model_may_come_after_the_file(place: Place) -> None:
    fields: Any = [("file", ("a.mp3", LARGE)), ("model", (None, "m")), ("num_retries", (None, "0"))]
    answer = place.mobius.http.post(PATH, files=fields, headers=WEB)
    assert answer.json()["text"] == SAID
    assert set(place.first.journal.last.form) == {"model", "file"}


def test_wishes_stand_in_a_form_too(place: Place) -> None:
    place.first.always(Fails(500))
    with pytest.raises(openai.APIStatusError):
        place.client.audio.transcriptions.create(
            model="m", file=SMALL, extra_body={"disable_fallbacks": True}
        )
    place.client.audio.transcriptions.create(
        model="by-litellm", file=SMALL, extra_body={"fallbacks": ["spare"]}
    )
    assert len(place.second.journal) == 1


def test_what_is_wrong_with_a_form_is_said(place: Place) -> None:
    wrong: list[tuple[Any, str]] = [
        ([("model", (None, "m"))], "file"),
        ([("model", (None, "m")), ("file", (None, "text"))], "file"),
        ([("file", ("a.mp3", SMALL))], "model"),
        ([("model", (None, "m")), ("file", ("a", b"1")), ("file", ("b", b"2"))], "file"),
        ([("model", (None, "m")), ("file", ("a", b"")), ("stream", (None, "maybe"))], "stream"),
        ([("model", (None, "m")), ("file", ("a", b"")), ("api_base", (None, "x"))], "api_base"),
    ]
    for fields, param in wrong:
        answer = place.mobius.http.post(PATH, files=fields, headers=WEB)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), fields
    cut = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n'
    bodies: dict[str, list[bytes]] = {
        "application/json": [b'{"model": "m"}'],
        "multipart/form-data": [cut],
        "multipart/form-data; boundary=b": [cut, b"", b"--b--\r\n", b"junk", cut + b"--b\r\n\r\n"],
    }
    for kind, raws in bodies.items():
        for raw in raws:
            headers = {**WEB, "content-type": kind}
            answer = place.mobius.http.post(PATH, content=raw, headers=headers)
            assert answer.status_code == 400, (kind, raw, answer.text)
    assert len(place.first.journal) == 0


def test_an_upload_over_the_limit_is_a_413_that_names_it(place: Place) -> None:
    data = bytes(UPLOAD_MB * 1024 * 1024)
    with pytest.raises(openai.APIStatusError) as caught:
        place.client.audio.transcriptions.create(model="m", file=data)
    assert caught.value.status_code == 413
    assert "upload_mb" in caught.value.message

    def unannounced() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield from (data[:65536] for _ in range(len(data) // 65536 + 1))

    headers = {**WEB, "content-type": "multipart/form-data; boundary=b"}
    answer = place.mobius.http.post(PATH, content=unannounced(), headers=headers)
    assert answer.status_code == 413
    assert (len(place.first.journal), files_of(place)) == (0, [])
    # A chat's body has its own limit, and a form within its limit may be larger than that.
    assert place.client.audio.transcriptions.create(model="m", file=LARGE).text == SAID


def test_an_upload_that_is_given_up_leaves_nothing_behind(place: Place) -> None:
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: {WEB['authorization']}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(LARGE)}\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", place.mobius.port)) as caller:
        caller.sendall(head.encode() + LARGE[:1_000_000])
        wait_until(lambda: files_of(place), 10, "an upload in a file")
    wait_until(lambda: not files_of(place), 10, "nothing left of it")
    assert len(place.first.journal) == 0


def test_a_recording_is_charged_by_its_seconds_or_by_tokens(place: Place) -> None:
    client = place.mobius.openai(KEYS["rich"])
    client.audio.transcriptions.create(model="whisper-1", file=SMALL)  # the usage says 5 s
    client.audio.transcriptions.create(model="whisper-1", file=SMALL, response_format="srt")
    place.first.always(Answer(usage=MISSING))
    client.audio.transcriptions.create(
        model="whisper-1", file=("a.wav", wav(2)), response_format="text"
    )
    place.first.always(Answer(usage=Usage(100, 20)))
    client.audio.transcriptions.create(model="gpt-4o-transcribe", file=SMALL)
    rows = {row["model"]: row for row in place.spent("rich")}
    assert rows["whisper-1"]["cost_usd"] == "0.001250"  # of 5, 5.5 and 2 s at $0.0001
    assert (rows["whisper-1"]["prompt_tokens"], rows["whisper-1"]["estimated"]) == (0, 1)
    by_tokens = rows["gpt-4o-transcribe"]
    assert (by_tokens["prompt_tokens"], by_tokens["audio_prompt_tokens"]) == (100, 100)
    assert by_tokens["cost_usd"] == "0.000450"


def test_a_recording_that_a_budget_does_not_reach_for_is_not_listened_to(place: Place) -> None:
    client = place.mobius.openai(KEYS["poor"])
    with pytest.raises(openai.RateLimitError) as caught:
        client.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav(11)))
    assert caught.value.code == "insufficient_quota"
    client.audio.transcriptions.create(model="whisper-1", file=("a.wav", wav(5)))
    assert len(place.first.journal) == 1


def test_a_recording_is_counted_as_what_it_is(place: Place) -> None:
    before = place.mobius.metrics()
    with io.BytesIO(SMALL) as file:
        place.client.audio.transcriptions.create(model="m", file=("a.mp3", file))
    after = place.mobius.metrics()
    name, surface = "mobius_request_seconds_count", "transcriptions"
    assert total(after, name, surface=surface) - total(before, name, surface=surface) == 1


def test_who_leaves_while_it_is_listened_to_ends_the_call(place: Place) -> None:
    place.first.script(Breaks(0, how="stall"))
    with pytest.raises(httpx.ReadTimeout):
        place.mobius.http.post(
            PATH, files={"file": LARGE, "model": (None, "m")}, headers=WEB, timeout=0.5
        )
    assert place.first.journal.wait_over()[-1].closed_by == "client"
    wait_until(lambda: not files_of(place), 10, "nothing left of it")
