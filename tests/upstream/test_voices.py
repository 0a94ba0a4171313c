"""Speech and recordings at providers of other formats, as LiteLLM asks them: once each."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.recording import Length
from proxy.replies import ChunkStream, Completion, Reply
from proxy.retry import Kind
from proxy.types import Call, Json, Surface, Target, Usage
from proxy.upload import Part, Spool, Upload
from proxy.upstream.lanes import Providers
from tests.upstream.test_unified import MB, target_of, watched

# LiteLLM's own, about its types.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

PCM = b"\1\2" * 50
SOUND = b"\xff\xfb" * 2000
GEMINI: Json = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {
                        "inlineData": {
                            "mimeType": "audio/pcm;rate=24000",
                            "data": base64.b64encode(PCM).decode(),
                        }
                    }
                ],
            },
            "finishReason": "STOP",
        }
    ],
    "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 40, "totalTokenCount": 43},
}
WORD: Json = {"word": "hello", "start": 0, "end": 1}
DEEPGRAM: Json = {
    "metadata": {"duration": 12.5, "channels": 1},
    "results": {"channels": [{"alternatives": [{"transcript": "hello", "words": [WORD]}]}]},
}
ANSWERS: dict[str, tuple[str, bytes]] = {
    "generateContent": ("application/json", json.dumps(GEMINI).encode()),
    "text-to-speech": ("audio/mpeg", SOUND),
    "listen": ("application/json", json.dumps(DEEPGRAM).encode()),
}


class _Others(BaseHTTPRequestHandler):
    """Gemini, ElevenLabs and Deepgram, as far as they speak and listen."""

    asked: list[tuple[str, bytes]]

    def do_POST(self) -> None:
        self.asked.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
        kind, body = next(said for word, said in ANSWERS.items() if word in self.path)
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing is printed."""


@dataclass
class Others:
    base: str
    runner: asyncio.Runner
    asked: list[tuple[str, bytes]]
    providers: Providers = field(default_factory=lambda: Providers(SystemClock()))

    def __post_init__(self) -> None:
        self._lanes = self.providers.lanes(lambda: MB)

    def target(self, provider: str, model: str, **facts: Any) -> Target:
        return target_of(provider, f"{self.base}/v1", model, **facts)

    def ask(self, target: Target, call: Call) -> Reply:
        self.asked.clear()
        return self.runner.run(self._lanes.call(target, call, foreign=False, waiting=watched()))

    def speak(self, target: Target, **body: Any) -> tuple[str, bytes, list[Json]]:
        """The type, the bytes and the events of what is said."""
        asked = {"model": "m", "input": "hello", "voice": "alloy", **body}
        reply = self.ask(target, Call("m", True, asked, Surface.SPEECH))
        assert isinstance(reply, ChunkStream)

        async def read() -> list[tuple[bytes, tuple[Json, ...]]]:
            return [(chunk.raw, chunk.events) async for chunk in reply]

        chunks = self.runner.run(read())
        events = [event for _, found in chunks for event in found]
        return reply.content_type, b"".join(raw for raw, _ in chunks), events

    def listen(self, target: Target, *, stream: bool = False, **body: Any) -> Completion:
        spool = Spool()
        spool.write(b"ID3 sound")
        upload = Upload((Part("file", "a.mp3", "audio/mpeg", spool),), Length(9.0, 9.0))
        asked = {"model": "m", **body}
        call = Call("m", stream, asked, Surface.TRANSCRIPTIONS, upload=upload)
        reply = self.ask(target, call)
        assert isinstance(reply, Completion)
        return reply


@pytest.fixture(scope="module")
def others() -> Iterator[Others]:
    asked: list[tuple[str, bytes]] = []
    handler = type("_Asked", (_Others,), {"asked": asked})
    with asyncio.Runner() as runner, ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        found = Others(f"http://127.0.0.1:{server.server_address[1]}", runner, asked)
        runner.run(found.providers.sdk.ready())
        yield found
        runner.run(found.providers.aclose())
        server.shutdown()
        thread.join()


def test_a_chat_that_speaks_is_asked_once_and_its_tokens_are_known(others: Others) -> None:
    target = others.target("gemini", "gemini-2.5-flash-preview-tts")
    kind, sound, events = others.speak(target, instructions="softly")
    assert (kind, sound[:4], sound[44:]) == ("audio/wav", b"RIFF", PCM)
    ((_, body),) = others.asked
    assert json.loads(body)["contents"][0]["parts"][0]["text"] == "softly\n\nhello"
    used = GRAMMARS[Surface.SPEECH].usage(events[-1], None)
    assert used == Usage(3, 40, audio_completion_tokens=40)

    kind, _, events = others.speak(target, stream_format="sse", response_format="pcm")
    assert kind == "text/event-stream"
    assert base64.b64decode(events[0]["audio"]) == PCM
    assert events[-1]["usage"]["output_tokens"] == 40
    with pytest.raises(UpstreamFailure) as caught:
        others.speak(target, response_format="mp3")
    assert caught.value.kind in {Kind.CALLER, Kind.DIALECT}
    assert others.asked == []


def test_a_voice_of_another_format_is_heard_as_it_is(others: Others) -> None:
    target = others.target("elevenlabs", "eleven_v3")
    kind, sound, _ = others.speak(target)
    assert (kind, sound) == ("audio/mpeg", SOUND)
    assert len(others.asked) == 1


def test_what_litellm_has_no_word_for_is_named_or_refused(others: Others) -> None:
    body: Json = {"model": "m", "input": "a", "voice": "alloy", "of_others": 1}
    call = Call("m", True, body, Surface.SPEECH)
    reply = others.ask(others.target("elevenlabs", "eleven_v3"), call)
    assert reply.dropped == ("of_others",)
    strict = replace(others.target("elevenlabs", "eleven_v3"), drop_params=False)
    with pytest.raises(UpstreamFailure) as caught:
        others.ask(strict, call)
    assert caught.value.kind is Kind.DIALECT


def test_a_mock_is_never_asked_for_real(others: Others) -> None:
    mock = others.target("elevenlabs", "eleven_v3", mock_response="hello")
    with pytest.raises(UpstreamFailure) as caught:
        others.speak(mock)
    assert caught.value.kind is Kind.DIALECT
    with pytest.raises(UpstreamFailure):
        others.listen(mock)
    assert others.asked == []


def test_a_recording_is_told_in_every_form_whatever_the_provider_knows(others: Others) -> None:
    target = others.target("deepgram", "nova-3")
    plain = others.listen(target)
    assert (json.loads(plain.raw), plain.body["duration"]) == ({"text": "hello"}, 12.5)
    assert others.asked[0][1] == b"ID3 sound"
    assert others.listen(target, response_format="text").raw == b"hello"
    whole = json.loads(others.listen(target, response_format="verbose_json").raw)
    assert (whole["duration"], whole["words"]) == (12.5, [WORD])
    streamed = others.listen(target, stream=True)
    assert streamed.streamed
    assert b'"delta":"hello"' in streamed.raw
    more: dict[str, Any] = {"timestamp_granularities[]": ["word"], "prompt": "p"}
    dropped = others.listen(target, **more)
    assert set(dropped.dropped) >= {"prompt"}
    with pytest.raises(UpstreamFailure) as caught:
        others.listen(target, response_format="srt")
    assert caught.value.kind is Kind.DIALECT
