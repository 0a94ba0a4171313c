"""A form is the same however its bytes are split, and its files are never left open."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Receive

from proxy.api.conversation import ClientLeft
from proxy.api.multipart import FIELDS_BYTES, MOST_PARTS, Form, read_form
from proxy.errors import BodyTooLarge, BodyTooSlow, RequestInvalid, UploadUnkept
from proxy.upload import Spool

KIND = {b"content-type": b'multipart/form-data; boundary="b"'}
FILE = bytes(range(256)) * 3 + b"\r\n--b\r-\r\n--c"


def part(head: str, content: bytes) -> bytes:
    return f"--b\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + content + b"\r\n"


BODY = (
    part('name="file"; filename="größe;.mp3"\r\nContent-Type: audio/mpeg', FILE)
    + part('name="model"', b"m")
    + part('name="include[]"', b"a")
    + part('name="include[]"', b"b")
    + part('name="stream"', b"True")
    + part('name="twice"', b"1")
    + part('name="twice"', b"2")
    + part('name="fallbacks[]"', b"spare")
    + part('name="num_retries"', b"2")
    + b"--b--\r\n"
)
SAID = {
    "model": "m", "include[]": ["a", "b"], "stream": True, "twice": ["1", "2"],
    "fallbacks": ["spare"], "num_retries": 2,
}  # fmt: skip


def receiving(pieces: Iterable[bytes], end: Message | None = None) -> Receive:
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": True} for piece in pieces
    ]
    messages.append(end or {"type": "http.request", "body": b"", "more_body": False})
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return receive


def read(kept: ExitStack, *pieces: bytes, headers: Any = KIND, limit: int = 2**24) -> Form:
    return asyncio.run(read_form(receiving(pieces), headers, limit, kept))


def content_of(spool: Spool) -> bytes:
    return b"".join(spool.pieces())


@settings(max_examples=40)
@given(st.sets(st.integers(0, len(BODY))))
def test_a_form_is_the_same_however_its_bytes_are_split(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(BODY)]
    pieces = [BODY[a:b] for a, b in itertools.pairwise(places)]
    with ExitStack() as kept:
        form = read(kept, *pieces)
        assert form.fields == SAID
        (found,) = form.upload.parts
        assert (found.name, found.filename) == ("file", "größe;.mp3")
        assert (found.content_type, content_of(found.spool)) == ("audio/mpeg", FILE)
        assert form.upload.size_bytes == len(FILE)
        assert form.upload.length.most_s == len(FILE) / 1000
    with pytest.raises(ValueError, match="gone"):
        found.spool.read(0, 1)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (BODY[:-8], "cut short"),
        (b"", "cut short"),
        (b"junk", "not a form"),
        (part("", b"x") + b"--b--\r\n", "no name"),
        (part('name="a"', b"\xff") + b"--b--\r\n", "UTF-8"),
        (part('name="a"', b"") * (MOST_PARTS + 1) + b"--b--\r\n", "more than 100"),
        (part('name="a"', b"x" * (FIELDS_BYTES + 1)) + b"--b--\r\n", "1048576 bytes"),
        (b"--b\r\n" + b"a" * 9000 + b": b\r\n\r\n\r\n--b--\r\n", "not a form"),
    ],
)
def test_what_is_no_form_is_said(body: bytes, told: str) -> None:
    with ExitStack() as kept, pytest.raises(RequestInvalid, match=told):
        read(kept, body)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"content-type": b"application/json"},
        {b"content-type": b"multipart/form-data"},
        {**KIND, b"content-encoding": b"gzip"},
    ],
)
def test_a_request_without_a_form_is_refused(headers: Any) -> None:
    with ExitStack() as kept, pytest.raises(RequestInvalid):
        read(kept, BODY, headers=headers)


def test_more_than_the_limit_is_refused_announced_or_not() -> None:
    with ExitStack() as kept, pytest.raises(BodyTooLarge, match="upload_mb"):
        read(kept, headers={**KIND, b"content-length": b"101"}, limit=100)
    with ExitStack() as kept, pytest.raises(BodyTooLarge):
        read(kept, BODY[:60], BODY[60:120], limit=100)
    with ExitStack() as kept:
        assert read(kept, BODY, limit=len(BODY)).fields == SAID


def test_who_leaves_or_is_too_slow_leaves_nothing_open() -> None:
    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    receive = receiving([BODY[:300]], {"type": "http.disconnect"})
    with ExitStack() as kept, pytest.raises(ClientLeft):
        asyncio.run(read_form(receive, KIND, 2**24, kept))
    with ExitStack() as kept, pytest.raises(BodyTooSlow):
        asyncio.run(read_form(never, KIND, 2**24, kept, within_s=0.001))


def test_an_upload_that_cannot_be_kept_is_said() -> None:
    async def full() -> Message:
        raise OSError(28, "No space left on device")

    with ExitStack() as kept, pytest.raises(UploadUnkept):
        asyncio.run(read_form(full, KIND, 2**24, kept))


def test_words_that_are_no_json_stay_what_they_are() -> None:
    body = part('name="timeout"', b"soon") + part('name="fallbacks"', b"spare") + b"--b--\r\n"
    with ExitStack() as kept:
        assert read(kept, body).fields == {"timeout": "soon", "fallbacks": ["spare"]}
