"""
`python -m bench.provider PORT`: a provider that costs next to nothing.

It speaks OpenAI's wire format, and Anthropic's where it is asked for messages.

It answers with bytes made beforehand, a stream in a single write, and counts what it served:
whoever asked can see whether every request came through, and once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from bench.payload import (
    CLAUDE_EVENTS,
    CLAUDE_MESSAGE,
    EVENTS,
    LONG,
    LONG_PACE_S,
    LONG_WRITE_EVENTS,
    MESSAGE,
    PACE_S,
    STREAM,
    USERS,
    Kind,
)


@dataclass(frozen=True, slots=True)
class Paced:
    """A stream in many writes, `every_s` apart."""

    writes: Sequence[bytes]
    every_s: float


def _with_length(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _chunk(body: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(body), body)


_EVENTS_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)
_END = b"0\r\n\r\n"
ANSWERS = {
    Kind.UNARY: _with_length(MESSAGE),
    Kind.STREAM: _EVENTS_HEAD + _chunk(STREAM) + _END,
}
MESSAGES = b"post /v1/messages "
CLAUDES = {
    Kind.UNARY: _with_length(CLAUDE_MESSAGE),
    Kind.STREAM: _EVENTS_HEAD + _chunk(b"".join(CLAUDE_EVENTS)) + _END,
}


def _paced(events: Sequence[bytes], together: int, every_s: float) -> Paced:
    """Every event is an HTTP chunk of its own; so many of them travel together."""
    chunks = [_chunk(event) for event in events]
    chunks[0] = _EVENTS_HEAD + chunks[0]
    chunks[-1] += _END
    starts = range(0, len(chunks), together)
    return Paced([b"".join(chunks[start : start + together]) for start in starts], every_s)


PACED = {
    Kind.PACED: _paced(EVENTS, 1, PACE_S),
    Kind.LONG: _paced(LONG, LONG_WRITE_EVENTS, LONG_PACE_S),
}
CLAUDES_PACED = {Kind.PACED: _paced(CLAUDE_EVENTS, 1, PACE_S)}
_BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Provider(asyncio.Protocol):
    """One connection. `served` is shared by all of them."""

    def __init__(self, served: dict[Kind, int]) -> None:
        self._served = served
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's derives from nothing

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end].lower()
            body_end = end + 4 + _length(head)
            if len(self._held) < body_end:
                return
            body, self._held = self._held[end + 4 : body_end], self._held[body_end:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get "):
            self._transport.write(_with_length(json.dumps(self._served).encode()))
        elif not body:
            # Chunked requests are not read: no client that is measured sends them.
            self._transport.write(_BAD_REQUEST)
            self._transport.close()
        else:
            kind = _kind(body)
            self._served[kind] += 1
            is_claude = head.startswith(MESSAGES)
            if (paced := (CLAUDES_PACED if is_claude else PACED).get(kind)) is not None:
                self._pace(paced, 0, asyncio.get_running_loop().time())
            else:
                self._transport.write((CLAUDES if is_claude else ANSWERS)[kind])

    def _pace(self, paced: Paced, number: int, start_s: float) -> None:
        """Make write `number`, and the later ones when their time has come."""
        if self._transport.is_closing():
            return
        self._transport.write(paced.writes[number])
        if number + 1 < len(paced.writes):
            due_s = start_s + (number + 1) * paced.every_s
            asyncio.get_running_loop().call_at(due_s, self._pace, paced, number + 1, start_s)


def _kind(body: bytes) -> Kind:
    if b'"stream":true' not in body and b'"stream": true' not in body:
        return Kind.UNARY
    return next((kind for kind, user in USERS.items() if user.encode() in body), Kind.STREAM)


def _length(head: bytes) -> int:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0


async def serve(port: int) -> None:
    """Answer until the process is ended."""
    served = dict.fromkeys(Kind, 0)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Provider(served), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
