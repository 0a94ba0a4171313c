"""
Pieces of text told from all other events of a chat's stream by their bytes, without reading JSON.

The events of one stream that bring nothing but text differ in that text alone. So what stands
around it is learned from one that was read as JSON, and every event that has the same around its
own is as good as read: it has no end, no usage, no error, no call of a tool.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import orjson

from proxy.replies import Plain
from proxy.types import Json

HEAD = b"data: "
END = b"\n\n"
MOST_LESSONS = 8  # in vain, one after the other; then a stream is not of this kind
_DONE = b"data: [DONE]"
_FIELD = b'"content":"'
_EMPTY = b'"content":""'
_OBFUSCATION = b'"obfuscation":"'
_PADDING_END = b'"}\n\n'

# As many frames as have the same around their texts as the first: what is before it, and after.
_BARE = re.compile(
    rb'(data: (?>[^\n]*?"content":"))[^"\\\n]+("[^\n]*+\n\n)'
    rb"(?:\1[^\"\\\n]+\2)*+"
)
# The same with OpenAI's padding behind, of a length of its own in each frame.
_PADDED = re.compile(
    rb'(data: (?>[^\n]*?"content":"))[^"\\\n]+("[^\n]*"obfuscation":")[A-Za-z0-9]+"}\n\n'
    rb'(?:\1[^"\\\n]+\2[A-Za-z0-9]+"}\n\n)*+'
)
_PADDING = re.compile(rb'"obfuscation":"([A-Za-z0-9]+)"}\n\n')


class Sorted(NamedTuple):
    """What whole frames bring; `raw` is themselves, up to the end where that is announced."""

    raw: bytes
    plain: Plain | None
    odd: list[bytes]  # to be read as JSON, without the empty lines
    done: bool


class PlainText:
    """What the text of one stream stands in, once that is known."""

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._run = _BARE
        self._lessons = 0

    def sort(self, raw: bytes) -> Sorted | None:
        """
        Return what frames bring that are each one line of data; None where some are not.

        `raw` ends with one. However many of them are text in a row, they are one step.
        """
        odd: list[bytes] = []
        number = text_bytes = place = 0
        done = False
        while place < len(raw) and not done:
            text = self._text(raw, place)
            if text is not None:
                (more, more_bytes), place = text
                number += more
                text_bytes += more_bytes
                continue
            end = raw.index(END, place)
            frame = raw[place:end]
            if not frame.startswith(HEAD) or frame == HEAD or b"\n" in frame:
                return None
            if frame == _DONE:
                raw, done = raw[:place], True
            elif not self._learn(frame):
                odd.append(frame)
                place = end + len(END)
        return Sorted(raw, Plain(number, text_bytes) if number else None, odd, done)

    def _text(self, raw: bytes, place: int) -> tuple[Plain, int] | None:
        """Return what is text from `place` on, and where that ends; None where there is none."""
        before, after = self._before, self._after
        if not before or not raw.startswith(before, place):
            return None
        run = self._run.match(raw, place)
        if run is None or run[1] != before or run[2] != after:
            return None
        self._lessons = 0
        end = run.end()
        number = raw.count(before, place, end)
        text_bytes = end - place - number * (len(before) + len(after))
        if self._run is _PADDED:
            paddings = _PADDING.findall(raw, place, end)
            text_bytes -= number * len(_PADDING_END) + sum(map(len, paddings))
        return Plain(number, text_bytes), end

    def _learn(self, frame: bytes) -> bool:
        """Take what stands around the text of `frame`; say whether it is as good as read."""
        if self._lessons >= MOST_LESSONS or b"\\" in frame or frame.count(_FIELD) != 1:
            return False
        if _EMPTY in frame:
            return False  # as most first events have it
        whole = frame + END
        run = (_PADDED if _OBFUSCATION in frame else _BARE).match(whole)
        if run is None:
            return False  # a role, an end or a usage: it teaches nothing
        self._lessons += 1
        event = _only_text(frame.removeprefix(HEAD), whole[run.end(1) : run.start(2)])
        if event is None:
            return False
        self._before, self._after, self._run = run[1], run[2], run.re
        # It decides about the price of the answer, and may stand in these events alone.
        return not event.get("service_tier")


def _only_text(payload: bytes, text: bytes) -> Json | None:
    """Return an event that brings that piece of one choice's text and nothing else."""
    try:
        event: Json = orjson.loads(payload)
    except ValueError:
        return None
    match event:
        case {"choices": [{"index": 0, "delta": {"content": str(said)} as delta} as choice]}:
            pass
        case _:
            return None
    if len(delta) > 1 or said.encode(errors="surrogatepass") != text:
        return None
    # An end, a usage, an error, logprobs: each of them would stand beside it.
    if choice.get("finish_reason") or event.get("error"):
        return None
    for fields, own in ((event, "choices"), (choice, "delta")):
        for name, value in fields.items():
            if name != own and isinstance(value, dict | list):
                return None
    return event
