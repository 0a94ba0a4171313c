"""The shapes of OpenAI's speech: sound, or events that hold it."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.providers.dialect import Ask, counted, pieces
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json

SOUND_TYPES = {"mp3": "audio/mpeg", "opus": "audio/ogg", "wav": "audio/wav", "pcm": "audio/pcm"}
TOKEN_BYTES = 1000


def sound_type(body: Json) -> str | None:
    """The content type of the speech that a body asks for; None where it asks for events."""
    if body.get("stream_format") == "sse":
        return None
    return SOUND_TYPES[body.get("response_format", "mp3")]


def sound(count: int = 5) -> bytes:
    """What an answer of so many tokens sounds like: every token differs from the others."""
    return b"".join(_token(number) for number in range(count))


def speech(ask: Ask, answer: Answer) -> Iterator[Event]:
    """A piece of sound for each token."""
    bare = sound_type(ask.body) is not None
    for piece in pieces(answer):
        data = _token(piece.number)
        audio = base64.b64encode(data).decode()
        said = data if bare else {"type": "speech.audio.delta", "audio": audio}
        yield Event("content", said, tokens=(piece.number,))
    yield Event("finish", b"" if bare else {"type": "speech.audio.done", **_usage(ask, answer)})


def unasked(ask: Ask, answer: Answer) -> Json:
    """Speech is always a stream: nothing is whole."""
    raise AssertionError("speech is always a stream")


def _token(number: int) -> bytes:
    return bytes([number % 256]) * TOKEN_BYTES


def _usage(ask: Ask, answer: Answer) -> Json:
    if answer.usage is MISSING:
        return {}
    if (usage := counted(ask, answer)) is None:
        return {"usage": answer.usage}
    total = usage.prompt + usage.completion
    counts = {"input_tokens": usage.prompt, "output_tokens": usage.completion}
    return {"usage": {**counts, "total_tokens": total}}
