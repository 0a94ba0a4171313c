"""
The protocol on a connection: uvicorn's, with an end to what it holds before it asks anybody, the
head of an answer in one piece with what follows, and word of a client that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Self, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from proxy.api.apart import Apart
from proxy.api.conversation import DEPARTURE
from proxy.api.outbound import WHOLE
from proxy.api.render import error_body
from proxy.cli.cycle import Corked, Cycle
from proxy.errors import HeadersTooLarge

# Beyond any `limits.header_kb` that makes sense; it judges the heads that arrive whole.
MOST_HEAD_BYTES = 128 * 1024
_HEAD = b"content-type: application/json\r\nconnection: close\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """
    Closes a connection once it has sent too much that leads to nothing.

    The parser keeps a head until it is whole, and the application, which knows the limits, is not
    asked before. The same is true of trailers. Counted is what came since a head was whole, a piece
    of a body came, or a request ended; not the bytes next to those, which may be of either.
    """

    _held_bytes = 0
    _went_on = False
    _leaving: Callable[[], object] | None = None
    _apart: Collection[int] = ()

    @classmethod
    def apart(cls, ports: Collection[int]) -> type[Self]:
        """Return one for which `/metrics` is all there is at these ports."""
        return type(cls.__name__, (cls,), {"_apart": ports})

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        corked = Corked(cast(asyncio.Transport, transport), self.loop)
        super().connection_made(cast(asyncio.Transport, corked))
        if self.server is not None and self.server[1] in self._apart:
            self.app = cast(ASGI3Application, Apart(self.config.loaded_app))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._leaving is not None:
            self._leaving()
        if self.scope is not None:  # of the last request, which would hold this in a circle
            self.scope.pop("extensions", None)

    def _on_departure(self, work: Callable[[], object]) -> Callable[[], None]:
        """
        Have `work` done when the client leaves, and return what makes that be forgotten.

        Of the request being served, there is one. The former may still be settling, and forgets
        only what was its own.
        """
        self._leaving = work

        def forget() -> None:
            if self._leaving is work:
                self._leaving = None

        # The end of a large body stops the reading, and nobody who wanted more begins it again.
        self.flow.resume_reading()
        if self.parser is None:
            work()
        return forget

    def data_received(self, data: bytes) -> None:
        self._went_on = False
        super().data_received(data)
        self._held_bytes = 0 if self._went_on else self._held_bytes + len(data)
        if self._held_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        self._went_on = True
        self.scope["extensions"] = {DEPARTURE: {"watch": self._on_departure}, WHOLE: {}}
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.__class__ = Cycle  # uvicorn does not ask of which class it is to be
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._went_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._went_on = True
        super().on_message_complete()

    def _refuse(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            error = HeadersTooLarge(f"the head is over {MOST_HEAD_BYTES} bytes")
            body = error_body(error)
            length = b"content-length: %d\r\n\r\n" % len(body)
            self.transport.write(STATUS_LINE[error.status] + _HEAD + length + body)
        self.transport.close()
