"""
Pieces of text told from all other events of a chat's stream by their bytes, without reading JSON.

The events of one stream that bring nothing but text differ in that text alone. So what stands
around it is learned from one that was read as JSON, and every event that has the same around its
own is as good as read: it has no end, no usage, no error, no call of a tool.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from proxy.replies import Plain
from proxy.types import Json

HEAD = b"data: "
MOST_LESSONS = 8  # without any use of what was learned; then a stream is not of this kind
_FIELD = b'"content":"'
_OBFUSCATION = b'"obfuscation":"'  # OpenAI's padding, of a length of its own in each event


class PlainText:
    """What the text of one stream stands in, once that is known. A frame has no empty line."""

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._padded = False
        self._lessons = 0

    def sort(self, frames: Sequence[bytes]) -> tuple[Plain | None, list[bytes]]:
        """Return what the frames bring as pieces of text, and those that are to be read as JSON."""
        odd: list[bytes] = []
        number = text_bytes = 0
        before, after = self._before, self._after
        for frame in frames:
            # In place: a call for every word of every stream would be most of what this costs.
            if self._padded:
                length = self._padded_length(frame)
            elif before and frame.startswith(before) and frame.endswith(after):
                text = frame[len(before) : -len(after)]
                length = 0 if b'"' in text or b"\\" in frame else len(text)
            else:
                length = 0
            if length:
                number += 1
                text_bytes += length
                self._lessons = 0
            else:
                odd.append(frame)
                self._learn(frame)
                before, after = self._before, self._after
        return (Plain(number, text_bytes) if number else None), odd

    def _padded_length(self, frame: bytes) -> int:
        """Return the bytes of the frame's text; 0 where it has none, or anything else beside it."""
        if not frame.startswith(self._before):
            return 0
        start = len(self._before)
        end = frame.find(b'"', start)
        if b"\\" in frame or not frame.startswith(self._after, end):
            return 0
        rest = frame[end + len(self._after) :]
        padding = rest.removesuffix(b'"}')
        return end - start if padding.isalnum() and len(padding) + 2 == len(rest) else 0

    def _learn(self, frame: bytes) -> None:
        if self._lessons >= MOST_LESSONS or not frame.startswith(HEAD) or b"\\" in frame:
            return
        if _FIELD not in frame:
            return  # an end or a usage: it teaches nothing, and is read once as it is
        text = _only_text(frame.removeprefix(HEAD))
        if text is None:
            return
        field = _FIELD + text
        if frame.count(field + b'"') != 1:
            return
        self._lessons += 1
        place = frame.index(field) + len(field)
        self._before, self._after = frame[: place - len(text)], frame[place:]
        head, padding, _ = self._after.partition(_OBFUSCATION)
        self._padded = bool(padding)
        if padding:
            self._after = head + padding


def _only_text(payload: bytes) -> bytes | None:
    """Return the text of an event that brings a piece of one choice's text and nothing else."""
    try:
        event: Json = orjson.loads(payload)
    except ValueError:
        return None
    match event:
        case {"choices": [{"index": 0, "delta": {"content": str(text)} as delta} as choice]}:
            beside = [value for name, value in event.items() if name != "choices"]
            beside += [value for name, value in choice.items() if name not in ("index", "delta")]
        case _:
            return None
    # An end, a usage, an error, logprobs: each of them would stand beside it.
    if not text or len(delta) > 1 or choice.get("finish_reason") or event.get("error"):
        return None
    if any(isinstance(value, dict | list) for value in beside):
        return None
    return text.encode(errors="surrogatepass")
