"""Speech on its way to the caller: bytes as they come, or in events where those were asked for."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable

from proxy.errors import UpstreamFailure
from proxy.grammar.sound import END, PIECE
from proxy.replies import EVENTS, JSON, Chunk, Source
from proxy.retry import Kind
from proxy.types import Call, Json
from proxy.upstream.events import chunks_of

UNNAMED = "application/octet-stream"  # RFC 9110, section 8.3: what nobody has said the type of
NO_SOUND = (JSON, "text/")


def wants_events(call: Call) -> bool:
    """Say whether the speech is to come in OpenAI's events."""
    return call.body.get("stream_format") == "sse"


def speech_of(
    call: Call,
    content_type: str,
    body: AsyncIterable[bytes],
    drain: Callable[[float], Awaitable[None]],
    usage: Json | None = None,
) -> tuple[Source, str]:
    """
    Return a provider's answer as chunks, and the type of their content.

    `usage` is what it took, where that is not said in the answer.

    Raises UpstreamFailure where it is no sound.
    """
    if content_type.startswith(EVENTS):
        return chunks_of(body, drain, named=True), EVENTS
    if content_type.startswith(NO_SOUND):
        raise UpstreamFailure("the answer is no sound", kind=Kind.TRANSIENT)
    if wants_events(call):
        return _in_events(body, usage), EVENTS
    return _as_it_comes(body, usage), content_type or UNNAMED


async def once(body: bytes) -> AsyncGenerator[bytes, None]:
    """Yield what is there already as what was read."""
    yield body


async def _as_it_comes(
    body: AsyncIterable[bytes], usage: Json | None
) -> AsyncGenerator[Chunk, None]:
    async for piece in body:
        if piece:
            yield Chunk(piece, events=PIECE)
    # A body that was cut has raised by now.
    yield Chunk(b"", events=({**END, "usage": usage},))


async def _in_events(body: AsyncIterable[bytes], usage: Json | None) -> AsyncGenerator[Chunk, None]:
    async for piece in body:
        if piece:
            audio = base64.b64encode(piece).decode()
            yield Chunk.of_events([{"type": "speech.audio.delta", "audio": audio}])
    yield Chunk.of_events([{"type": "speech.audio.done", **({"usage": usage} if usage else {})}])
