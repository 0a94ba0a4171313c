"""
A form with files in it, read as it arrives: its fields, and its files in a spool.

A file is never held in memory as a whole. What is kept is closed with the request.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import orjson
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.types import Receive

from proxy.api.conversation import ClientLeft
from proxy.api.headers import RequestHeaders
from proxy.errors import BodyTooLarge, BodyTooSlow, RequestInvalid, UploadUnkept
from proxy.recording import LOOKED_AT_BYTES, Length, length_of
from proxy.upload import Part, Spool, Upload

UPLOAD_S = 300.0  # the largest that is allowed by default needs a line of 0.8 Mbit/s
MOST_PARTS = 100
FIELDS_BYTES = 1024 * 1024  # all that is no file
# Fields that are no text to us; those of a form always are.
TYPED = frozenset({"cache", "disable_fallbacks", "fallbacks", "num_retries", "stream", "timeout"})
UNNAMED = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Form:
    """What a form says: fields as a body of JSON has them, and the files beside."""

    fields: dict[str, Any]
    upload: Upload


async def read_form(
    receive: Receive,
    headers: RequestHeaders,
    limit_bytes: int,
    kept: ExitStack,
    *,
    within_s: float = UPLOAD_S,
) -> Form:
    """
    Return the whole form; its files are there until `kept` is closed.

    Raises ClientLeft, BodyTooLarge, BodyTooSlow, RequestInvalid, UploadUnkept.
    """
    if headers.get(b"content-encoding", b"identity").strip().lower() not in {b"identity", b""}:
        raise RequestInvalid("a form is sent without a content-encoding")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    reading = _Reading(_boundary(headers), kept)
    try:
        async with asyncio.timeout(within_s):
            await _read(receive, reading, limit_bytes)
    except TimeoutError as exc:
        raise BodyTooSlow(f"the upload was not here within {within_s:g} seconds") from exc
    except FormParserError as exc:
        raise RequestInvalid("the body is not a form, as its content-type says") from exc
    except OSError as exc:
        raise UploadUnkept("the upload cannot be kept: there is no room for it") from exc
    return reading.form()


async def _read(receive: Receive, reading: _Reading, limit_bytes: int) -> None:
    size_bytes, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        size_bytes += len(piece)
        if size_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        if piece:
            reading.feed(piece)
        more = message.get("more_body", False)


def _boundary(headers: RequestHeaders) -> bytes:
    kind, options = parse_options_header(headers.get(b"content-type", b"").decode("latin-1"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RequestInvalid("the body must be multipart/form-data, with a boundary")
    return options[b"boundary"]


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the upload is over {limit_bytes} bytes (mobius.limits.upload_mb)")


@dataclass(slots=True)
class _Open:
    """The part that is being read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    text: bytearray = field(default_factory=bytearray)
    file: Part | None = None


class _Reading:
    """What the parser has found so far. Raises what `read_form` does."""

    def __init__(self, boundary: bytes, kept: ExitStack) -> None:
        self._kept = kept
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers,
                "on_part_data": self._data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._part = _Open()
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._pairs: list[tuple[str, str]] = []
        self._files: list[Part] = []
        self._parts = self._text_bytes = 0
        self._ended = False

    def feed(self, piece: bytes) -> None:
        self._parser.write(piece)

    def form(self) -> Form:
        """Return what was sent. Raises RequestInvalid where its end is missing."""
        if not self._ended:
            raise RequestInvalid("the form is cut short")
        return Form(_fields(self._pairs), Upload(tuple(self._files), _length(self._files)))

    def _begin(self) -> None:
        self._part = _Open()
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise RequestInvalid(f"the form has more than {MOST_PARTS} fields")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        name, value = self._header
        self._part.headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _headers(self) -> None:
        part = self._part
        said = part.headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(said)
        part.name = options.get(b"name", b"").decode(errors="replace")
        if not part.name:
            raise RequestInvalid("a field of the form has no name")
        if b"filename" in options:
            spool = Spool()
            self._kept.callback(spool.close)
            filename = options[b"filename"].decode(errors="replace")
            kind = part.headers.get(b"content-type", b"").decode("latin-1") or UNNAMED
            part.file = Part(part.name, filename, kind, spool)

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        if part.file is not None:
            part.file.spool.write(data[start:end])
            return
        self._text_bytes += end - start
        if self._text_bytes > FIELDS_BYTES:
            raise RequestInvalid(f"the fields of the form are over {FIELDS_BYTES} bytes")
        part.text += data[start:end]

    def _end_part(self) -> None:
        part = self._part
        if part.file is not None:
            self._files.append(part.file)
            return
        try:
            self._pairs.append((part.name, part.text.decode()))
        except UnicodeDecodeError:
            raise RequestInvalid("a field of the form is not UTF-8") from None

    def _end(self) -> None:
        self._ended = True


def _fields(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Return the fields as a body of JSON has them: one that is there twice is a list."""
    fields: dict[str, Any] = {}
    for written, text in pairs:
        bare = written.removesuffix("[]")
        name = bare if bare in TYPED else written
        value = _typed(text) if name in TYPED else text
        if name in fields:
            held = fields[name]
            fields[name] = [*(held if isinstance(held, list) else [held]), value]
        else:
            fields[name] = [value] if bare != written else value
    if isinstance(fields.get("fallbacks"), str):
        fields["fallbacks"] = [fields["fallbacks"]]
    return fields


def _typed(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def _length(files: list[Part]) -> Length:
    spool = files[0].spool if files else Spool()
    tail = spool.read(max(0, spool.size_bytes - LOOKED_AT_BYTES), LOOKED_AT_BYTES)
    return length_of(spool.read(0, LOOKED_AT_BYTES), tail, spool.size_bytes)
