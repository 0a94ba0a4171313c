"""
Server-sent events, read and written. Pure.

The reader follows the WHATWG HTML standard, section 9.2.6: lines end with CR, LF or CRLF, one
leading BOM is dropped, `data` lines of one event are joined, comments and unknown fields are
skipped, and an event that the end of the stream cuts short is not dispatched.
"""

from __future__ import annotations

from dataclasses import dataclass

DONE = b"[DONE]"
DONE_FRAME = b"data: [DONE]\n\n"
COMMENT_FRAME = b": keepalive\n\n"

_BOM = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """One event is larger than the reader is willing to hold."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One dispatched event: its name, or an empty one, and its payload without line ends."""

    name: bytes
    data: bytes


class Reader:
    """
    Turns bytes, split anywhere, into events.

    Holds at most one unfinished event; `feed` raises EventTooLarge when its data and its unfinished
    line outgrow `limit_bytes`, wherever the bytes are split. What the same piece completed is lost.
    """

    def __init__(self, limit_bytes: int = 16 * 1024 * 1024) -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()  # the unfinished line
        self._data: list[bytes] = []
        self._held_bytes = 0
        self._name = b""
        self._start = True
        self._after_cr = False

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Return the events that `piece` completes, in order."""
        if self._after_cr and piece:
            # The CR that ended the last piece has already ended its line.
            piece = piece.removeprefix(b"\n")
            self._after_cr = False
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        # `splitlines` on bytes splits at CR, LF and CRLF and at nothing else. Only the piece is
        # looked at: a line that comes byte by byte would otherwise cost the square of its length.
        lines = piece.splitlines(keepends=True)
        unfinished = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if lines and self._line:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        events = [event for line in lines if (event := self._take(line)) is not None]
        self._line += unfinished
        self._check(len(self._line))
        return events

    def _check(self, line_bytes: int) -> None:
        if self._held_bytes + line_bytes > self._limit_bytes:
            raise EventTooLarge(f"an event of the stream is over {self._limit_bytes} bytes")

    def _take(self, line: bytes) -> ServerEvent | None:
        line = line.rstrip(b"\r\n")
        self._check(len(line))
        if self._start:
            self._start = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._held_bytes += len(value) + 1  # an empty line is held as well
        elif field == b"event":
            self._name = value
        return None

    def _dispatch(self) -> ServerEvent | None:
        data, name = self._data, self._name
        self._data, self._name, self._held_bytes = [], b"", 0
        # A newline between the lines of a JSON value is white space, as good as any other.
        return ServerEvent(name, b" ".join(data)) if data else None


def frame(payload: bytes, name: bytes = b"") -> bytes:
    """Return one event that carries `payload`; neither it nor its name holds a line end."""
    if name:
        return b"event: " + name + b"\ndata: " + payload + b"\n\n"
    return b"data: " + payload + b"\n\n"
