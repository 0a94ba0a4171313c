"""
How long a recording is, by its own first and last bytes. Pure.

Most formats say so, and a provider believes them. Of what does not, only the bytes are known.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Speech is recorded with 2 kB/s or more, and with 1 kB/s at the very least.
BYTES_PER_S = 2_000
BYTES_PER_S_LEAST = 1_000
LOOKED_AT_BYTES = 64 * 1024  # at either end

# MPEG-1 and MPEG-2 audio, layer III (ISO/IEC 11172-3, 13818-3): kbit/s by the index in a frame.
_MP3_KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_MP3_FRAME = re.compile(rb"\xff[\xfa\xfb\xf2\xf3\xe2\xe3]([\x10-\xef])")
_OGG_RATES = {b"OpusHead": (48_000, 0), b"\x01vorbis": (0, 12)}  # or where it stands after that


class Length(NamedTuple):
    """How many seconds it probably is, and how many it cannot exceed."""

    likely_s: float = 0.0
    most_s: float = 0.0


def length_of(head: bytes, tail: bytes, size_bytes: int) -> Length:
    """Return how long a recording of `size_bytes` is; `head` and `tail` are its ends."""
    if (exact_s := _wav_s(head, size_bytes)) is not None:
        return Length(exact_s, exact_s)
    most_s = size_bytes / BYTES_PER_S_LEAST
    for read in (_flac_s, _mp4_s, _ogg_s, _mp3_s):
        if (told_s := read(head, tail, size_bytes)) is not None:
            return Length(min(told_s, most_s), most_s)
    return Length(size_bytes / BYTES_PER_S, most_s)


def _wav_s(head: bytes, size_bytes: int) -> float | None:
    """Read plain samples, of which every second is as long as the next."""
    place = head.find(b"fmt ")
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE" or place < 0 or len(head) < place + 24:
        return None
    kind, channels = _little(head, place + 8, 2), _little(head, place + 10, 2)
    rate, bits = _little(head, place + 12, 4), _little(head, place + 22, 2)
    per_s = channels * rate * bits // 8
    plain = kind in (1, 3, 0xFFFE)  # whole numbers, floats, and either of them with more to say
    begins = head.find(b"data", place) + 8
    samples = size_bytes - (begins if begins >= 8 else 0)
    return max(0, samples) / per_s if plain and per_s >= BYTES_PER_S_LEAST else None


def _flac_s(head: bytes, tail: bytes, size_bytes: int) -> float | None:
    """Read STREAMINFO (RFC 9639, section 8.2)."""
    if head[:4] != b"fLaC" or len(head) < 26:
        return None
    bits = int.from_bytes(head[18:26])
    rate, samples = bits >> 44, bits & 0xFFFFFFFFF
    return samples / rate if rate and samples else None


def _mp4_s(head: bytes, tail: bytes, size_bytes: int) -> float | None:
    """Read the movie header, which stands at either end (ISO/IEC 14496-12, section 8.2.2)."""
    if head[4:8] != b"ftyp":
        return None
    for data in (head, tail):
        place = data.find(b"mvhd") + 4
        if place < 4 or len(data) < place + 32:
            continue
        wide = data[place] == 1
        rate = int.from_bytes(data[place + (20 if wide else 12) :][:4])
        units = int.from_bytes(data[place + (24 if wide else 16) :][: 8 if wide else 4])
        if rate and units:
            return units / rate
    return None


def _ogg_s(head: bytes, tail: bytes, size_bytes: int) -> float | None:
    """Read at which sample the last page ends (RFC 3533, section 6; RFC 7845, section 4)."""
    if head[:4] != b"OggS":
        return None
    for mark, (fixed, offset) in _OGG_RATES.items():
        if (place := head.find(mark)) >= 0:
            rate = fixed or _little(head, place + offset, 4)
            last = tail.rfind(b"OggS")
            ends = _little(tail, last + 6, 8) if last >= 0 else 0
            return ends / rate if rate and ends else None
    return None


def _mp3_s(head: bytes, tail: bytes, size_bytes: int) -> float | None:
    """Take the first frame for all of them, which is exact where they are of one rate."""
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum(
            byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True)
        )
    found = _MP3_FRAME.search(head, start)
    if found is None or (start == 0 and found.start() > 0):
        return None
    older = found[0][1] & 0x08  # MPEG-1
    kbits = _MP3_KBITS[0 if older else 1][found[1][0] >> 4]
    return (size_bytes - start) / (kbits * 125)


def _little(data: bytes, place: int, width: int) -> int:
    return int.from_bytes(data[place : place + width], "little")
