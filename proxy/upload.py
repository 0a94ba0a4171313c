"""
The files that a request brings, kept so that they can be sent again and again.

A small one stays in memory; a larger one is in a file that has no name, so that nothing is left of
it however the process ends. Reading and writing do not wait: the system has all of it in memory, or
takes it at once, and a hop to a thread would cost more.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from proxy.recording import Length

MEMORY_BYTES = 512 * 1024
PIECE_BYTES = 64 * 1024


class Spool:
    """Bytes that are written once and read from any place, until they are dropped by `close`."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES) -> None:
        self.size_bytes = 0
        self._memory_bytes = memory_bytes
        self._held = bytearray()
        self._file: BinaryIO | None = None
        self._closed = False

    @property
    def in_memory(self) -> bool:
        return self._file is None

    def write(self, piece: bytes) -> None:
        """Add bytes at the end. Raises OSError where there is no room for them."""
        if self._file is None and self.size_bytes + len(piece) > self._memory_bytes:
            # It is closed with the spool.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
            self._put(bytes(self._held))
            self._held.clear()
        if self._file is None:
            self._held += piece
        else:
            self._put(piece)
        self.size_bytes += len(piece)

    def _put(self, piece: bytes) -> None:
        left = memoryview(piece)
        while self._file is not None and left:
            left = left[self._file.write(left) :]

    def read(self, start: int, most_bytes: int) -> bytes:
        """Return what is at `start`, or less where it ends. Raises ValueError once it is closed."""
        if self._closed:
            raise ValueError("the upload is gone")
        if self._file is None:
            return bytes(self._held[start : start + most_bytes])
        return os.pread(self._file.fileno(), most_bytes, start)

    def pieces(self) -> Iterator[bytes]:
        """Yield all of it; several may read at once."""
        for start in range(0, self.size_bytes, PIECE_BYTES):
            yield self.read(start, PIECE_BYTES)

    def close(self) -> None:
        """Give everything back. Safe to call again."""
        self._closed = True
        self._held.clear()
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One file as it was sent."""

    name: str  # of its field
    filename: str
    content_type: str
    spool: Spool = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """The files of one request."""

    parts: tuple[Part, ...]
    length: Length  # of the recording among them

    @property
    def size_bytes(self) -> int:
        return sum(part.spool.size_bytes for part in self.parts)
