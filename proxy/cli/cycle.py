"""
One request on a connection and its answer: uvicorn's, with less work for an answer that is whole,
and for the head of one that comes in pieces.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from proxy.api.outbound import START, WHOLE

_HEADS = b"HTTP/1.1 "  # what the head of an answer begins with
_CLOSE = (b"connection", b"close")
_IN_CHUNKS = (b"transfer-encoding", b"chunked")  # RFC 9112, section 7.1
_IN_HEADERS = bytes({*range(256)} - {*range(0x20), 0x7F})  # a header has no other bytes


class Cycle(RequestResponseCycle):
    """Takes the messages of ASGI, and of our own a whole answer, and the head of one in pieces."""

    transport: Corked  # type: ignore[assignment]  # which is used as one

    def send(self, message: Message) -> Awaitable[None]:  # type: ignore[override]  # not `async`
        kind = message["type"]
        if kind == WHOLE:
            return self._send_whole(message)
        return self._send_start(message) if kind == START else super().send(message)  # type: ignore[arg-type]

    async def _send_start(self, message: Message) -> None:
        if await self._may_begin():
            self._begin(self._head(message["status"], [*message["headers"], _IN_CHUNKS]))
            self.chunked_encoding = True

    async def _send_whole(self, message: Message) -> None:
        if not await self._may_begin():
            return
        self._begin(self._head(message["status"], message["headers"]), message["body"])
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    async def _may_begin(self) -> bool:
        """Say whether an answer may begin: not where nobody is there to hear it."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return False
        if self.response_started:
            raise RuntimeError("there is an answer already")
        return True

    def _begin(self, head: bytes, whole: bytes | None = None) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        if whole is None:
            self.transport.write(head)
        else:
            self.transport.write_whole(head + whole)

    def _head(self, status: int, given: list[tuple[bytes, bytes]]) -> bytes:
        headers = [*self.default_headers, *given]
        if _CLOSE in headers:
            self.keep_alive = False
        elif not self.keep_alive:
            headers.append(_CLOSE)
        lines = b"".join([b"%b: %b\r\n" % pair for pair in headers])
        if lines.translate(None, _IN_HEADERS) != b"\r\n" * len(headers):
            raise RuntimeError("a header of the answer has a line of its own in it")
        return b"%b%b\r\n" % (STATUS_LINE[status], lines)


class Corked:
    """
    A transport that sends the head of an answer together with what is written next.

    To send costs more than to render either. What is not followed by anything in the same turn of
    the loop goes out at its end.
    """

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(_HEADS):
            self._head = data
            self._loop.call_soon(self._flush)
        else:
            self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        """Send an answer that nothing follows."""
        self._flush()
        self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():  # else there is nobody to hear it
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
