"""Anthropic's form: its envelope around errors, and a stream that ends with its last event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from proxy import sse
from proxy.api.render import error_message
from proxy.clock import Clock
from proxy.errors import ProxyError, UpstreamFailure, status_of
from proxy.replies import Chunk, Completion
from proxy.types import Tally

# Anthropic's API reference, "Errors": the type by the status, of which SDKs make exceptions.
TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# What a provider may say of itself in the middle of a stream. Of its key it would be ours.
OF_PROVIDERS = frozenset({"api_error", "overloaded_error", "rate_limit_error", "timeout_error"})
# What went wrong with a thread, which Anthropic keeps: its SDK then says all of it again.
THREADS = frozenset(
    {
        *("thread_already_continued", "thread_continue_in_flight", "thread_fingerprint_mismatch"),
        *("thread_not_found", "thread_unsupported_request"),
    }
)
STOP_NAME = b"event: message_stop\n"  # stands in no JSON, where a line end is written \n
STOP_FRAME = sse.frame(b'{"type":"message_stop"}', b"message_stop")


class AsAnthropic:
    """The form of one answer, whose bytes are Anthropic's or look like it already."""

    pulses = True

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._stopped = False

    def whole(self, reply: Completion) -> tuple[bytes, str]:
        return reply.raw, reply.content_type

    def events(self, chunk: Chunk) -> bytes:
        self._stopped = self._stopped or STOP_NAME in chunk.raw
        return chunk.raw

    def end(self) -> bytes:
        # An answer that said why it ended is complete, though its provider was cut short after.
        return b"" if self._stopped else STOP_FRAME

    def at_once(self, raw: bytes) -> bytes:
        return raw

    def broken(self, error: ProxyError) -> bytes:
        return sse.frame(self.failed(error), b"error")

    def failed(self, error: ProxyError) -> bytes:
        status = status_of(error, self._tally.surface)
        return error_told(error, status, self._tally.request_id)


def as_anthropic(tally: Tally, clock: Clock) -> AsAnthropic:
    return AsAnthropic(tally)


def error_told(error: ProxyError, status: int, request_id: str) -> bytes:
    """Return Anthropic's envelope around an error."""
    kind = type_of(status)
    if isinstance(error, UpstreamFailure) and error.provider_type in OF_PROVIDERS:
        kind = error.provider_type
    told: dict[str, Any] = {"type": kind, "message": error_message(error)}
    if error.code in THREADS:
        told["details"] = {"error_code": error.code}
    return orjson.dumps({"type": "error", "error": told, "request_id": request_id})


def type_of(status: int) -> str:
    """Return Anthropic's word for what an answer of that status is about."""
    return TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
