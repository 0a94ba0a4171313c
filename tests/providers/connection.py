"""One connection to a fake provider, from accept to close."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

from tests.providers.journal import Entry, Journal
from tests.providers.transcript import Part, Transcript
from tests.providers.wire import Gone, Peer, Request

_LAST_CHUNK = b"0\r\n\r\n"
_NOT_HTTP = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Reply: TypeAlias = Callable[[Request, int], tuple[Entry, Transcript]]
CloseKind: TypeAlias = Literal["eof", "reset"]


class Connection:
    """Requests answered one after another, each journaled, until one side hangs up."""

    def __init__(self, peer: Peer, journal: Journal, reply: Reply) -> None:
        self.close_kind: CloseKind = "eof"
        self._peer = peer
        self._journal = journal
        self._reply = reply
        self._current: int | None = None

    async def serve(self) -> None:
        """The connection is closed, and its last exchange says by whom."""
        number = self._journal.note_connection(1)
        try:
            while (request := await self._next()) and await self._answer(request, number):
                pass
        except Gone:
            self._note_closed("client")
        finally:
            try:
                await self._peer.stop_watching()
            finally:
                self._close()

    async def _next(self) -> Request | None:
        """The next request; None when something that is no HTTP was answered in plaintext."""
        try:
            return await self._peer.read_request()
        except ValueError:
            self._peer.send_now(memoryview(_NOT_HTTP))
            return None

    def _close(self) -> None:
        with self._journal.locked():
            self._peer.close(self.close_kind)
            self._note_closed("server")
            self._journal.note_connection(-1)

    def abandon(self) -> None:
        """The socket is closed, also when `serve` never came to begin."""
        self._peer.close(self.close_kind)

    def _note_closed(self, by: Literal["client", "server"]) -> None:
        if self._current is not None:
            self._journal.note_closed(self._current, by)
            self._current = None

    async def _answer(self, request: Request, connection: int) -> bool:
        """The request is answered; whether the connection is kept."""
        entry, transcript = self._reply(request, connection)
        self._current = entry.number
        self._journal.enter(entry)
        await self._unless_gone(_Player(self._peer, self._journal, entry.number), transcript)
        if transcript.ending == "reset":
            self.close_kind = "reset"
        if transcript.ending != "whole" or transcript.close or _wants_close(request):
            return False
        self._current = None
        return True

    async def _unless_gone(self, player: _Player, transcript: Transcript) -> None:
        """The transcript is played to its end; Gone as soon as the client leaves."""
        playing = asyncio.create_task(player.play(transcript))
        leaving = asyncio.create_task(self._peer.gone.wait())
        try:
            await asyncio.wait({playing, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not playing.done():
                raise Gone
            playing.result()
        finally:
            playing.cancel()
            leaving.cancel()
            await asyncio.wait({playing, leaving})


class _Player:
    """Writes one transcript, noting every byte and token as it goes."""

    def __init__(self, peer: Peer, journal: Journal, number: int) -> None:
        self._peer = peer
        self._journal = journal
        self._number = number

    async def play(self, transcript: Transcript) -> None:
        """All is written, and the moment to close or to go on has come."""
        if transcript.gate is not None:
            await transcript.gate.wait()
        await asyncio.sleep(transcript.delay_s)
        if transcript.status is not None:
            await self._write_reply(transcript, transcript.status)
        if transcript.ending == "open":
            await asyncio.Event().wait()
        if transcript.ending == "stall":
            await _stay(transcript.stall_s)

    async def _write_reply(self, transcript: Transcript, status: int) -> None:
        self._journal.note_status(self._number, status)
        await self._write(transcript.head())
        ends_with_chunk = transcript.framing == "chunked" and transcript.ending == "whole"
        finishes = transcript.ending in ("whole", "open") and not ends_with_chunk
        for part, last in _with_last(transcript.parts):
            if part.gate is not None:
                await part.gate.wait()
            await asyncio.sleep(part.wait_s)
            framed = transcript.frame(part.data)
            await self._write(framed, tokens=part.tokens, finishes=last and finishes)
        if ends_with_chunk:
            await self._write(_LAST_CHUNK, finishes=True)

    async def _write(
        self, data: bytes, *, tokens: tuple[int, ...] = (), finishes: bool = False
    ) -> None:
        left = memoryview(data)
        while True:
            with self._journal.locked():
                now_s = time.monotonic()
                taken = self._peer.send_now(left)
                done = taken == len(left)
                self._journal.note_sent(self._number, taken, tokens if done else (), now_s)
                if done and finishes:
                    self._journal.note_finished(self._number)
            if done:
                return
            left = left[taken:]
            await self._peer.writable()


def _with_last(parts: Iterable[Part]) -> Iterator[tuple[Part, bool]]:
    held: Part | None = None
    for part in parts:
        if held is not None:
            yield held, False
        held = part
    yield held or Part(b""), True


async def _stay(for_s: float | None) -> None:
    if for_s is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(for_s)


def _wants_close(request: Request) -> bool:
    return "close" in request.headers.get("connection", "").lower()
