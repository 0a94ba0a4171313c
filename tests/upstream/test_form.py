from __future__ import annotations

import asyncio

from proxy.recording import Length
from proxy.types import Json
from proxy.upload import PIECE_BYTES, Part, Spool, Upload
from proxy.upstream.form import Form, form_of
from tests.providers.wire import form_in


def upload(content: bytes, filename: str = "a.mp3", kind: str = "audio/mpeg") -> Upload:
    spool = Spool()
    spool.write(content)
    return Upload((Part("file", filename, kind, spool),), Length())


def sent(form: Form) -> list[bytes]:
    async def read() -> list[bytes]:
        return [piece async for piece in form.pieces()]

    return asyncio.run(read())


def test_a_body_and_its_file_are_a_form_that_can_be_sent_twice() -> None:
    content = bytes(range(256)) * 2000
    body: Json = {"model": "m", "include[]": ["a", "b"], "stream": True, "none": None, "t": 0.5}
    form = form_of(body, upload(content))
    pieces = sent(form)
    raw = b"".join(pieces)
    assert form_in(form.headers, raw) == {
        "model": [b"m"], "include[]": [b"a", b"b"], "stream": [b"true"], "t": [b"0.5"],
        "file": [content],
    }  # fmt: skip
    assert len(raw) == form.size_bytes
    assert max(map(len, pieces)) <= PIECE_BYTES
    assert b"".join(sent(form)) == raw


def test_no_name_ends_a_line_or_a_quote() -> None:
    form = form_of({'a"\r\nX: y': "1"}, upload(b"", 'b"\r\n.mp3', "audio/mpeg\r\nX: y"))
    raw = b"".join(sent(form))
    assert b'name="a%22%0D%0AX: y"' in raw
    assert b'filename="b%22%0D%0A.mp3"\r\nContent-Type: application/octet-stream\r\n' in raw
