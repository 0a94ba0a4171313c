"""Compressed bytes as plain ones, a bounded piece at a time, however many members they come in."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

PIECE_BYTES = 64 * 1024
ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
WBITS = 32 + 15  # a gzip or a zlib header


class Unpacker:
    """What is left of one compressed body. Raises zlib.error where it is broken or cut."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=WBITS)

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """Yield what `raw` holds; another member may follow each (RFC 1952, section 2.2)."""
        while raw:
            if self._member.eof:
                raw = raw.lstrip(b"\0")  # padding, as gzip itself allows it
                if not raw:
                    return
                self._member = zlib.decompressobj(wbits=WBITS)
            yield self._member.decompress(raw, PIECE_BYTES)
            raw = self._member.unused_data or self._member.unconsumed_tail

    def end(self) -> Iterator[bytes]:
        """Yield what a bounded piece has held back; the last member must be whole."""
        while not self._member.eof:
            piece = self._member.decompress(b"", PIECE_BYTES)
            if not piece and not self._member.eof:
                raise zlib.error("the end is missing")
            yield piece
