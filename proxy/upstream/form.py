"""A body and its files as a form, as it is sent: read from the spool while it goes out."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from proxy.types import Json
from proxy.upload import Part, Upload

# What would end a quoted name, as browsers write it (the HTML Standard, "Multipart form data").
_ESCAPES = {'"': "%22", "\r": "%0D", "\n": "%0A"}
_CONTENT_TYPE = re.compile(r"[\x20-\x7e]{1,200}")
_UNNAMED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Form:
    """A form that can be sent again and again."""

    boundary: str
    fields: tuple[bytes, ...] = field(repr=False)
    heads: tuple[bytes, ...] = field(repr=False)  # of the files
    upload: Upload = field(repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """What says how it is to be read."""
        return {"content-type": f"multipart/form-data; boundary={self.boundary}"}

    @property
    def _end(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()

    @property
    def size_bytes(self) -> int:
        text = sum(map(len, (*self.fields, *self.heads, self._end)))
        return text + self.upload.size_bytes + len(b"\r\n") * len(self.heads)

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield all of it, a bounded piece at a time."""
        yield b"".join(self.fields)
        for head, part in zip(self.heads, self.upload.parts, strict=True):
            yield head
            for piece in part.spool.pieces():
                yield piece
            yield b"\r\n"
        yield self._end


def form_of(body: Json, upload: Upload) -> Form:
    """Return a body and the files beside it as a form."""
    boundary = f"mobius-{secrets.token_hex(16)}"
    fields = tuple(_field(boundary, *pair) for pair in _pairs(body))
    return Form(boundary, fields, tuple(_head(boundary, p) for p in upload.parts), upload)


def _pairs(body: Json) -> Iterator[tuple[str, str]]:
    for name, value in body.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                yield name, _text(each)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _field(boundary: str, name: str, text: str) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"\r\n\r\n'
    return f"{head}{text}\r\n".encode(errors="replace")


def _head(boundary: str, part: Part) -> bytes:
    said = part.content_type
    kind = said if _CONTENT_TYPE.fullmatch(said) else _UNNAMED
    names = f'name="{_quoted(part.name)}"; filename="{_quoted(part.filename)}"'
    disposition = f"Content-Disposition: form-data; {names}"
    lines = (f"--{boundary}", disposition, f"Content-Type: {kind}", "", "")
    return "\r\n".join(lines).encode(errors="replace")


def _quoted(name: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in name)
