"""
The answer of a model request on its way out: one start, whole frames, nothing after the end.

Two may write: whoever reads the reply, and the pulse that keeps a silent stream alive. They take
turns, and each writes whole events only, so that neither can break the other's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from starlette.types import Message, Send

from proxy import sse
from proxy.api.conversation import ClientLeft
from proxy.api.form import AsItCame, Form
from proxy.api.headers import RawHeaders, error_headers, reply_headers, safe, tally_headers
from proxy.api.render import EVENTS, JSON, error_of
from proxy.clock import Clock
from proxy.errors import ProxyError, status_of
from proxy.log import Log
from proxy.replies import EVENTS as EVENT_STREAM
from proxy.replies import ChunkStream, Completion
from proxy.types import Tally
from proxy.waiting import counted

JSON_TYPE = JSON[1]
OVERHEAD = b"x-mobius-overhead-ms"
# The server's extension of the ASGI scope: a message of this type is a whole answer, with `status`,
# `headers` and `body`. Each message costs more than to render what is in it.
WHOLE = "mobius.whole"
# With it comes another: ASGI's own start of an answer, of one whose length nobody knows yet.
START = "mobius.start"


class Outbound:
    """One answer. `finished` is true once its last byte has been handed over."""

    def __init__(
        self,
        send: Send,
        tally: Tally,
        *,
        clock: Clock,
        log: Log,
        form: Form | None = None,
        in_one: bool = False,
    ) -> None:
        """`in_one`: the server takes a whole answer in one message, and knows our START."""
        self.started = False
        self.finished = False
        self._form = form or AsItCame(tally)
        self._streaming = False
        self._asgi_send = send
        self._in_one = in_one
        self._tally = tally
        self._clock = clock
        self._log = log
        self._turn = asyncio.Lock()
        self._last_s = clock.now()

    @property
    def pulses(self) -> bool:
        """Say whether comments may be sent before the answer is there."""
        return self._form.pulses

    async def whole(
        self, status: int, body: bytes, headers: RawHeaders, *, content_type: bytes = JSON_TYPE
    ) -> None:
        """Send a whole answer."""
        if self.started:
            raise RuntimeError("a stream has been announced")
        async with self._turn:
            await self._all(status, body, [(b"content-type", content_type)], headers)

    async def completion(self, reply: Completion) -> None:
        headers = reply_headers(reply, self._tally)
        if reply.streamed:
            await self._events(self._form.at_once(reply.raw), headers)
        else:
            raw, kind = self._form.whole(reply)
            await self.whole(200, raw, headers, content_type=kind.encode("latin-1", "replace"))

    async def _events(self, raw: bytes, headers: RawHeaders) -> None:
        """Send all the events of a stream, the last one included."""
        async with self._turn:
            if self.started:
                await self._last(raw)
            else:
                await self._all(200, raw, EVENTS, headers)

    async def _all(self, status: int, body: bytes, kind: RawHeaders, headers: RawHeaders) -> None:
        headers = [*kind, (b"content-length", b"%d" % len(body)), *headers]
        if self._in_one:
            headers += tally_headers(self._tally, self._clock.now())
            await self._send({"type": WHOLE, "status": status, "headers": headers, "body": body})
            self.started = self.finished = True
        else:
            await self._start(status, headers)
            await self._last(body)

    async def _last(self, raw: bytes) -> None:
        await self._send({"type": "http.response.body", "body": raw, "more_body": False})
        self.finished = True

    async def stream(self, reply: ChunkStream) -> None:
        """
        Send a stream to its end, and close it whatever happens.

        One that breaks ends with an error event and without its form's end: the 200 is out
        already, and a stream must not look complete when it is not. Bytes that are no events have
        no place for an error: their body is left without its end, and the connection is closed.
        """
        try:
            headers = reply_headers(reply, self._tally)
            await self._patiently(self._open(headers, content_type=reply.content_type))
            async for chunk in reply:
                if raw := self._form.events(chunk):
                    await self._patiently(self._frames(raw))
            await self._patiently(self._frames(self._form.end(), more=False))
        except ClientLeft:
            raise
        except Exception as exc:
            await self._patiently(self.fail(error_of(exc, self._log)))
        finally:
            await reply.aclose()

    async def fail(self, error: ProxyError) -> None:
        """Send an error in the form that is still possible; none is once the answer is finished."""
        with suppress(ClientLeft):
            if self._streaming:
                await self._frames(self._form.broken(error), more=False)
            elif not self.started:
                status = status_of(error, self._tally.surface)
                await self.whole(status, self._form.failed(error), error_headers(error))

    async def pulse(self, every_s: float) -> None:
        """Send a comment whenever the stream has been silent for `every_s`. Never returns."""
        while True:
            wait_s = self._last_s + every_s - self._clock.now()
            if wait_s > 0:
                await self._clock.sleep(wait_s)
            elif self._turn.locked():
                # A frame is waiting for the client to read: that is no silence.
                self._last_s = self._clock.now()
            else:
                await self._open([], asking=True)
                await self._frames(sse.COMMENT_FRAME)

    def _patiently(self, sending: Awaitable[None]) -> Awaitable[None]:
        """
        Wait until it is sent; what that takes is the reader's time.

        Only for who reads the reply: while a pulse is sent, it is the provider who is waited for.
        """
        return counted(sending, self._clock.now, self._add_wait)

    def _add_wait(self, seconds: float) -> None:
        self._tally.waits_s += seconds

    async def _open(
        self, headers: RawHeaders, *, content_type: str = EVENT_STREAM, asking: bool = False
    ) -> None:
        async with self._turn:
            if not self.started:
                self._streaming = content_type == EVENT_STREAM
                kind = EVENTS if self._streaming else [(b"content-type", safe(content_type))]
                await self._start(200, [*kind, *headers], asking=asking)

    async def _frames(self, raw: bytes, *, more: bool = True) -> None:
        async with self._turn:
            if not self.finished:
                await self._send({"type": "http.response.body", "body": raw, "more_body": more})
                self.finished = not more
                self._last_s = self._clock.now()

    async def _start(self, status: int, headers: RawHeaders, *, asking: bool = False) -> None:
        known = tally_headers(self._tally, self._clock.now())
        # While a target is being asked, nobody can tell yet how much of the time was ours.
        headers += [pair for pair in known if not (asking and pair[0] == OVERHEAD)]
        kind = START if self._in_one else "http.response.start"
        await self._send({"type": kind, "status": status, "headers": headers})
        self.started = True

    async def _send(self, message: Message) -> None:
        try:
            await self._asgi_send(message)
        except OSError as exc:
            raise ClientLeft from exc
