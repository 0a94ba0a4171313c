"""The body of a request, read within its limits. More than the limit is never held."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from itertools import chain

from starlette.types import Receive

from proxy.api.conversation import ClientLeft
from proxy.api.headers import RequestHeaders
from proxy.errors import BodyTooLarge, BodyTooSlow, HeadersTooLarge, RequestInvalid
from proxy.waiting import within

# A body that is still on its way holds a place that others could have. The largest that is allowed
# by default, 10 MB, needs a line of 1.4 Mbit/s to be here in time.
BODY_S = 60.0
_GZIP_BITS = 16 + zlib.MAX_WBITS


def check_headers(raw: Sequence[tuple[bytes, bytes]], limit_bytes: int) -> None:
    """Return when all headers together are within the limit. Raises HeadersTooLarge."""
    if sum(map(len, chain.from_iterable(raw))) > limit_bytes:
        raise HeadersTooLarge(f"the headers are over {limit_bytes} bytes")


async def read_body(
    receive: Receive, headers: RequestHeaders, limit_bytes: int, *, within_s: float = BODY_S
) -> bytes:
    """
    Return the whole body, decoded. Raises ClientLeft, BodyTooLarge, BodyTooSlow, RequestInvalid.

    The limit holds for what is sent and for what it unpacks to.
    """
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding not in {b"identity", b"", b"gzip", b"x-gzip"}:
        raise RequestInvalid("the content-encoding is not supported: send gzip, or none")
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared[:20]) > limit_bytes:
        raise _too_large(limit_bytes)
    try:
        raw = await within(within_s, _read(receive, limit_bytes))
    except TimeoutError as exc:
        raise BodyTooSlow(f"the body was not here within {within_s:g} seconds") from exc
    if encoding in {b"gzip", b"x-gzip"}:
        # Unpacking takes milliseconds per megabyte, which other requests should not wait for.
        return await asyncio.to_thread(unpacked, raw, limit_bytes)
    return raw


def unpacked(raw: bytes, limit_bytes: int) -> bytes:
    """Return what gzip bytes unpack to. Raises BodyTooLarge at the limit, RequestInvalid."""
    pieces: list[bytes] = []
    room = limit_bytes
    try:
        while raw:  # a gzip file may have several members
            unpacker = zlib.decompressobj(_GZIP_BITS)
            piece = unpacker.decompress(raw, room + 1)
            room -= len(piece)
            if room < 0:
                raise _too_large(limit_bytes)
            if not unpacker.eof:
                raise RequestInvalid("the gzip body is cut short")
            pieces.append(piece)
            raw = unpacker.unused_data
    except zlib.error as exc:
        raise RequestInvalid("the body is not gzip, as its content-encoding says") from exc
    return b"".join(pieces)


async def _read(receive: Receive, limit_bytes: int) -> bytes:
    pieces: list[bytes] = []
    held_bytes = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        piece: bytes = message.get("body", b"")
        held_bytes += len(piece)
        if held_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        pieces.append(piece)
        more = message.get("more_body", False)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is over {limit_bytes} bytes")
