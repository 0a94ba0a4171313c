"""The shapes of OpenAI's audio: speech as sound or in events, and what is heard in a recording."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.providers.dialect import Ask, counted, joined, pieces
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


def streams(body: Json) -> bool:
    """Whether a form asks for events of a model that has them: whisper has none."""
    return body.get("stream") == "true" and not str(body.get("model")).startswith("whisper")


def heard(ask: Ask, answer: Answer) -> Json | str:
    """What was heard, in the form that was asked for: a second for each token."""
    said = pieces(answer)
    text, form = joined(said, "text").strip(), ask.body.get("response_format", "json")
    match form:
        case "text":
            return text + "\n"
        case "srt":
            return f"1\n00:00:00,000 --> 00:00:{len(said):02d},500\n{text}\n\n"
        case "vtt":
            return f"WEBVTT\n\n00:00.000 --> 00:{len(said):02d}.500\n{text}\n\n"
        case "verbose_json":
            about = {"task": "transcribe", "language": "english", "duration": float(len(said))}
            return {**about, "text": text, "segments": [], **_taken(ask, answer)}
        case _:
            return {"text": text, **_taken(ask, answer)}


def heard_events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """What was heard, piece after piece."""
    said = pieces(answer)
    for piece in said:
        delta = {"type": "transcript.text.delta", "delta": piece.text}
        yield Event("content", delta, tokens=(piece.number,))
    text = joined(said, "text")
    end = {"type": "transcript.text.done", "text": text, **_taken(ask, answer)}
    yield Event("finish", end)


def _taken(ask: Ask, answer: Answer) -> Json:
    """The usage: of whisper in seconds, of any other model in tokens."""
    if answer.usage is MISSING:
        return {}
    if str(ask.model).startswith("whisper"):
        return {"usage": {"type": "duration", "seconds": len(pieces(answer))}}
    usage = counted(ask, answer)
    if usage is None:
        return {"usage": answer.usage}
    counts = {"input_tokens": usage.prompt, "output_tokens": usage.completion}
    details = {"input_token_details": {"text_tokens": 0, "audio_tokens": usage.prompt}}
    total = usage.prompt + usage.completion
    return {"usage": {"type": "tokens", **counts, **details, "total_tokens": total}}


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
