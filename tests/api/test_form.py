"""How a stream of Responses ends that cannot go on."""

from __future__ import annotations

import orjson
import pytest

from proxy.api.form import AsResponse
from proxy.errors import UpstreamFailure
from proxy.replies import Chunk
from proxy.retry import Kind
from proxy.types import Surface, Tally

BROKEN = UpstreamFailure("the stream stalled", kind=Kind.BROKEN)


def form() -> AsResponse:
    return AsResponse(Tally("r", Surface.RESPONSES, "m", True, 0.0))


def ended(subject: AsResponse) -> dict[str, object]:
    name, data, *rest = subject.broken(BROKEN).split(b"\n")
    assert (name, rest) == (b"event: error", [b"", b""])
    found: dict[str, object] = orjson.loads(data.removeprefix(b"data: "))
    return found


def test_the_error_is_the_next_event() -> None:
    subject = form()
    for number in (4, 5):
        chunk = Chunk.of_events([{"type": "x", "sequence_number": number}])
        assert subject.events(chunk) == chunk.raw
    event = ended(subject)
    assert event["sequence_number"] == 6
    assert (event["type"], event["message"], event["param"]) == ("error", BROKEN.message, None)
    assert event["error"] == {
        "message": BROKEN.message,
        "type": "server_error",
        "param": None,
        "code": "upstream_error",
    }


@pytest.mark.parametrize("last", [b"[", b'{"type": "x"}', b'{"sequence_number": "1"}', b"[3]"])
def test_an_event_without_a_number_is_followed_by_the_first(last: bytes) -> None:
    subject = form()
    assert ended(subject)["sequence_number"] == 0
    subject.events(Chunk.of_payloads([last]))
    assert ended(subject)["sequence_number"] == 0
