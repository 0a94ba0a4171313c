"""
What each read of a stream of Anthropic's brings, as a chunk of a chat's.

Most of it is text, piece after piece: its JSON is put into a chat's as it stands, unread.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import orjson

from proxy import sse
from proxy.errors import UpstreamFailure
from proxy.replies import Chunk, Plain
from proxy.retry import Kind
from proxy.types import Json
from proxy.upstream.events import is_text
from proxy.upstream.tongues.claude_events import Telling

# A piece of text and nothing else, as Anthropic spells it. JSON escapes a quote inside a text, and
# a text with an escape in it is read.
_TEXT = re.compile(
    rb'\{"type": ?"content_block_delta", ?"index": ?[0-9]+, ?'
    rb'"delta": ?\{"type": ?"text_delta", ?"text": ?("[^"\\\x00-\x1f]+")\} *\}'
)
_NOTHING = orjson.dumps("")
_END = b"\n\n"


class Spoken:
    """Turns the payloads of one stream, read after read, into chunks."""

    def __init__(self, telling: Telling) -> None:
        self._telling = telling
        self._around: tuple[bytes, bytes] | None = None  # what stands around each text

    @property
    def ended(self) -> bool:
        return self._telling.ended

    def chunk(self, payloads: Sequence[bytes]) -> tuple[Chunk | None, UpstreamFailure | None]:
        """Return what the payloads bring, and what is wrong with the one that follows them."""
        frames: list[bytes] = []
        odd: list[bytes] = []
        number = text_bytes = 0
        failure: UpstreamFailure | None = None
        for payload in payloads:
            if self.ended:
                break  # nothing that comes after the end belongs to it
            text = self._text(payload)
            if text is not None:
                frames.append(text[0])
                number += 1
                text_bytes += text[1]
                continue
            try:
                told = [sse.frame(orjson.dumps(each)) for each in self._read(payload)]
            except (AttributeError, LookupError, TypeError, ValueError) as exc:
                failure = UpstreamFailure(
                    "the provider sent an event that cannot be read", kind=Kind.TRANSIENT
                )
                failure.__cause__ = exc
                break
            frames += told
            odd += [frame.removesuffix(_END) for frame in told]
        plain = Plain(number, text_bytes) if number else None
        chunk = Chunk.of_frames(b"".join(frames), plain, odd) if frames else None
        return chunk, failure

    def _read(self, payload: bytes) -> list[Json]:
        return list(self._telling.feed(orjson.loads(payload)))

    def _text(self, payload: bytes) -> tuple[bytes, int] | None:
        """Return the frame of a piece of text, and its bytes; None where it is to be read."""
        found = _TEXT.fullmatch(payload)
        if found is None or self._telling.finished or not is_text(payload):
            return None
        if self._around is None:
            if not self._telling.begun:
                return None  # the first event says more
            frame = sse.frame(orjson.dumps(self._telling.say("")))
            before, _, after = frame.partition(b'"content":' + _NOTHING)
            self._around = before + b'"content":', after
        text = found[1]
        return self._around[0] + text + self._around[1], len(text) - 2
