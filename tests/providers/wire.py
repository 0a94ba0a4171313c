"""One accepted socket, and HTTP/1.1 requests read from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Gone(Exception):
    """The peer closed or reset the connection."""


def form_in(headers: Mapping[str, str], body: bytes) -> dict[str, list[bytes]]:
    """The fields of a multipart form, files among them; empty when it is none."""
    kind, _, boundary = headers.get("content-type", "").partition("boundary=")
    if not kind.startswith("multipart/form-data"):
        return {}
    found: dict[str, list[bytes]] = {}
    mark = b"\r\n--" + boundary.strip('"').encode()
    parts = (b"\r\n" + body).split(mark)
    assert parts[-1].strip() == b"--", "the form is cut short"
    for part in parts[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        assert name is not None, head
        found.setdefault(name[1].decode(), []).append(content)
    return found


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived; header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body when it is a JSON object, or the texts of a form, else an empty one."""
        if form := form_in(self.headers, self.body):
            return {name: values[0].decode(errors="replace") for name, values in form.items()}
        try:
            parsed = json.loads(self.body)
        except ValueError:
            return {}
        return parsed if isinstance(parsed, dict) else {}


class Peer:
    """The client's end of a connection: read continuously, so that its leaving is known at once."""

    def __init__(self, sock: socket.socket) -> None:
        self.gone = asyncio.Event()
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._watch = asyncio.create_task(self._read_on())

    async def _read_on(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._loop.sock_recv(self._sock, 256 * 1024):
                self._buffer += data
                self._arrived.set()
        self.gone.set()
        self._arrived.set()

    def send_now(self, data: memoryview) -> int:
        """How many of the bytes the kernel took at once; Gone when there is nobody to take them."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise Gone from exc

    async def writable(self) -> None:
        """The kernel takes bytes again."""
        ready: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_writer(self._sock, _set, ready)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._sock)

    async def stop_watching(self) -> None:
        """Nobody reads the socket any more; to be awaited before `close`."""
        self._watch.cancel()
        await asyncio.wait({self._watch})

    def close(self, how: Literal["eof", "reset"] = "eof") -> None:
        """The socket is closed, with FIN or with RST."""
        if how == "reset" and self._sock.fileno() >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._sock.close()

    async def read_request(self) -> Request:
        """The next request; Gone when there is none, ValueError when it is not HTTP."""
        while not self._buffer:
            await self._more()
        if not self._buffer[:1].isalpha():
            raise ValueError("not HTTP; TLS, perhaps")
        head = (await self._until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        words = head[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise ValueError(f"not a request line: {head[0][:80]!r}")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        target = urlsplit(words[1])
        return Request(
            method=words[0],
            path=target.path,
            query=dict(parse_qsl(target.query, keep_blank_values=True)),
            headers=headers,
            body=await self._read_body(headers),
        )

    async def _read_body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            return await self._exactly(int(headers.get("content-length", "0")))
        body = bytearray()
        while size := int((await self._until(b"\r\n")).split(b";")[0], 16):
            body += await self._exactly(size)
            await self._until(b"\r\n")
        while await self._until(b"\r\n") != b"\r\n":
            pass
        return bytes(body)

    async def _until(self, mark: bytes) -> bytes:
        searched = 0
        while (found := self._buffer.find(mark, max(0, searched - len(mark)))) < 0:
            searched = len(self._buffer)
            await self._more()
        return self._take(found + len(mark))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def _more(self) -> None:
        if self.gone.is_set():
            raise Gone
        self._arrived.clear()
        await self._arrived.wait()


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
