from __future__ import annotations

import struct

import pytest

from proxy.recording import Length, length_of

SIZE = 100_000


def of(data: bytes, tail: bytes = b"", size: int = SIZE) -> Length:
    return length_of(data, tail or data, size)


def wav(kind: int = 1, channels: int = 1, rate: int = 16_000, bits: int = 16) -> bytes:
    per_s = channels * rate * bits // 8
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, kind, channels, rate, per_s, channels * 2, bits)
    return b"RIFF\0\0\0\0WAVE" + fmt + b"data\xff\xff\xff\xff" + bytes(100)


def test_plain_samples_are_as_long_as_they_are() -> None:
    assert of(wav(), size=44 + 64_000) == (2.0, 2.0)
    assert of(wav(channels=2, rate=48_000), size=44 + 192_000) == (1.0, 1.0)


def test_a_head_that_cannot_be_is_not_believed() -> None:
    for odd in (wav(kind=85), wav(rate=0), wav(bits=0), wav()[:30], wav(rate=10)):
        assert of(odd) == (SIZE / 2000, SIZE / 1000)


@pytest.mark.parametrize(
    ("data", "tail", "seconds"),
    [
        (b"fLaC" + bytes(14) + (((44_100 << 44) | 441_000) + 0).to_bytes(8), b"", 10.0),
        (b"\0\0\0\x18ftypM4A " + bytes(50),
         b"mvhd" + bytes(12) + b"\0\0\3\xe8\0\0\x27\x10" + bytes(20), 10.0),
        (b"\0\0\0\x18ftypM4A mvhd\1" + bytes(19) + b"\0\0\3\xe8" + (5000).to_bytes(8) + bytes(9),
         b"", 5.0),
        (b"OggS" + bytes(24) + b"OpusHead", b"..OggS\0\0" + struct.pack("<Q", 480_000), 10.0),
        (b"OggS" + bytes(24) + b"\x01vorbis" + bytes(5) + struct.pack("<I", 44_100),
         b"OggS\0\0" + struct.pack("<Q", 441_000), 10.0),
        (b"\xff\xfb\x90\x00" + bytes(50), b"", SIZE / 16_000),  # 128 kbit/s
        (b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + b"\xff\xf3\x40\x00", b"", (SIZE - 20) / 4_000),
    ],
    ids=["flac", "m4a, at the end", "m4a, wide", "opus", "vorbis", "mp3", "mp3 with a head"],
)  # fmt: skip
def test_a_format_that_says_how_long_it_is_is_believed_within_reason(
    data: bytes, tail: bytes, seconds: float
) -> None:
    found = of(data, tail)
    assert found.likely_s == pytest.approx(seconds)
    assert found.most_s == SIZE / 1000


def test_nothing_is_longer_than_its_bytes_allow() -> None:
    endless = b"OggS" + bytes(24) + b"OpusHead"
    assert of(endless, b"OggS\0\0" + b"\xff" * 8) == (100.0, 100.0)


def test_of_anything_else_only_the_bytes_are_known() -> None:
    for data in (
        b"",
        b"fLaC",
        b"OggS",
        b"\0\0\0\x18ftyp",
        b"webm?",
        b"ID3",
        b"xx\xff\xfb\x90",
    ):
        assert of(data) == (SIZE / 2000, SIZE / 1000)
    assert of(b"", size=0) == (0.0, 0.0)
