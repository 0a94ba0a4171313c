"""The protocol on a connection: uvicorn's, with an end to what it holds before it asks anybody."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from proxy.api.render import error_body
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

    def data_received(self, data: bytes) -> None:
        self._went_on = False
        super().data_received(data)
        self._held_bytes = 0 if self._went_on else self._held_bytes + len(data)
        if self._held_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._refuse()

    def on_headers_complete(self) -> None:
        self._went_on = True
        super().on_headers_complete()

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
