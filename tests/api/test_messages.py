"""Anthropic's form of errors and of the end of a stream."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy import sse
from proxy.api.messages import STOP_FRAME, AsAnthropic, type_of
from proxy.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    KeyRejected,
    LimitReached,
    ModelForbidden,
    ModelUnknown,
    NoTargetAvailable,
    Overloaded,
    ProviderAuthFailed,
    ProxyError,
    Refused,
    RequestInvalid,
    UpstreamFailure,
)
from proxy.replies import Chunk
from proxy.retry import Kind
from proxy.types import Surface, Tally


@pytest.fixture
def form() -> AsAnthropic:
    return AsAnthropic(Tally("req_1", Surface.MESSAGES, "m", False, 0.0))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestInvalid("x"), "invalid_request_error"),
        (KeyRejected("x"), "authentication_error"),
        (ModelForbidden("x"), "permission_error"),
        (ModelUnknown("x"), "not_found_error"),
        (BodyTooLarge("x"), "request_too_large"),
        (LimitReached("x"), "rate_limit_error"),
        (ProxyError("x"), "api_error"),
        (ProviderAuthFailed("x"), "api_error"),
        (NoTargetAvailable("x"), "overloaded_error"),
        (Overloaded("x"), "overloaded_error"),
        (DeadlineExceeded("x"), "timeout_error"),
    ],
)
def test_an_error_has_anthropic_s_type_and_envelope(
    form: AsAnthropic, error: ProxyError, kind: str
) -> None:
    told = {"type": "error", "error": {"type": kind, "message": "x"}, "request_id": "req_1"}
    assert orjson.loads(form.failed(error)) == told
    assert form.broken(error) == sse.frame(orjson.dumps(told), b"error")
    assert type_of(error.status) == kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("overloaded_error", "overloaded_error"),
        ("authentication_error", "api_error"),  # of our key, not of the caller's
        ("server_error", "api_error"),
        (None, "api_error"),
    ],
)
def test_what_a_provider_says_in_a_stream_is_passed_on(
    form: AsAnthropic, said: str | None, kind: str
) -> None:
    failure = UpstreamFailure("x", kind=Kind.BROKEN, provider_type=said)
    found: Any = orjson.loads(form.failed(failure))
    assert found["error"]["type"] == kind


def test_a_lost_thread_is_told_as_the_sdk_reads_it(form: AsAnthropic) -> None:
    failure = UpstreamFailure(
        "x", kind=Kind.FORGOTTEN, provider_status=404, provider_code="thread_not_found"
    )
    told = orjson.loads(form.failed(Refused(failure, status=404)))["error"]
    assert told["details"] == {"error_code": "thread_not_found"}
    assert told["type"] == "not_found_error"


def test_a_stream_has_its_last_event_once(form: AsAnthropic) -> None:
    text = {"type": "content_block_delta", "delta": {"text": "event: message_stop\n"}}
    form.events(Chunk.of_events([text]))
    assert form.end() == STOP_FRAME
    assert form.events(Chunk.of_events([{"type": "message_stop"}])) == STOP_FRAME
    assert form.end() == b""
