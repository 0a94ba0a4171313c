"""A reply as bytes: what is written, in which pieces, after which waits, and how it ends."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Literal, TypeAlias

from tests.providers.gate import Gate
from tests.providers.steps import Framing

Ending: TypeAlias = Literal[
    "whole",  # the HTTP body ends; the connection is kept
    "eof",  # FIN, wherever we are
    "reset",  # RST, wherever we are
    "stall",  # silence; FIN after `stall_s`
    "open",  # the reply is finished, its HTTP body is not ended, the connection stays
]


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes of the body that belong together, and the tokens that are complete with them."""

    data: bytes
    tokens: tuple[int, ...] = ()
    wait_s: float = 0.0
    gate: Gate | None = None


@dataclass(frozen=True, slots=True)
class Transcript:
    """Everything the server does for one request.

    `status` None: there is no head. `length` is the Content-Length announced, None for none.
    """

    ending: Ending
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    parts: Iterable[Part] = ()
    framing: Framing = "length"
    length: int | None = None
    delay_s: float = 0.0
    gate: Gate | None = None
    stall_s: float | None = None
    announce_close: bool = False
    close: bool = False

    def head(self) -> bytes:
        """The status line and the headers."""
        assert self.status is not None
        headers = dict(self.headers)
        if self.framing == "chunked":
            headers.setdefault("transfer-encoding", "chunked")
        elif self.framing == "length":
            headers.setdefault("content-length", str(self.length or 0))
        if self.announce_close or self.framing == "close":
            headers.setdefault("connection", "close")
        lines = [f"HTTP/1.1 {self.status} {_reason(self.status)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def frame(self, data: bytes) -> bytes:
        """The bytes as they stand in the body on the wire."""
        if self.framing != "chunked" or not data:
            return data  # a chunk of nothing would be the last
        return b"%x\r\n%s\r\n" % (len(data), data)


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def zipped(parts: Iterable[Part]) -> Iterator[Part]:
    """The same parts, compressed with gzip; each can be read when it arrives."""
    squeeze = zlib.compressobj(wbits=31)
    for part in parts:
        data = squeeze.compress(part.data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
        yield replace(part, data=data)
    yield Part(squeeze.flush())


def split(parts: Iterable[Part], cuts: int | Sequence[int] | None) -> Iterable[Part]:
    """The same bytes in other pieces; a token belongs to the piece that completes it."""
    if cuts is None:
        return parts
    if isinstance(cuts, int):
        return _every(parts, cuts)
    return _at(parts, sorted(set(cuts)))


def _every(parts: Iterable[Part], size: int) -> Iterator[Part]:
    for part in parts:
        pieces = [part.data[at : at + size] for at in range(0, len(part.data), size)]
        for number, data in enumerate(pieces):
            first, last = number == 0, number == len(pieces) - 1
            yield Part(
                data,
                tokens=part.tokens if last else (),
                wait_s=part.wait_s if first else 0.0,
                gate=part.gate if first else None,
            )


def _at(parts: Iterable[Part], cuts: Sequence[int]) -> Iterator[Part]:
    body = bytearray()
    ends: list[tuple[int, tuple[int, ...]]] = []
    for part in parts:
        body += part.data
        ends.append((len(body), part.tokens))
    marks = [cut for cut in cuts if 0 < cut < len(body)]
    for start, end in zip([0, *marks], [*marks, len(body)], strict=True):
        tokens = tuple(t for at, some in ends for t in some if start < at <= end)
        yield Part(bytes(body[start:end]), tokens)
