from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.upload import PIECE_BYTES, Spool


def nameless_files() -> int:
    names = (str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink())
    return sum(name.endswith("(deleted)") for name in names)


def test_what_is_small_stays_in_memory_and_what_is_not_goes_to_a_file_without_a_name() -> None:
    before = nameless_files()
    spool = Spool(memory_bytes=10)
    spool.write(b"0123456789")
    assert spool.in_memory
    spool.write(b"ab")
    assert not spool.in_memory
    assert nameless_files() == before + 1
    assert (spool.size_bytes, spool.read(0, 99)) == (12, b"0123456789ab")
    spool.close()
    assert nameless_files() == before


@pytest.mark.parametrize("memory_bytes", [10, 10 * PIECE_BYTES])
def test_it_is_read_again_and_again_and_by_several_at_once(memory_bytes: int) -> None:
    data = os.urandom(2 * PIECE_BYTES + 7)
    spool = Spool(memory_bytes)
    for start in range(0, len(data), 1000):
        spool.write(data[start : start + 1000])
    one, other = spool.pieces(), spool.pieces()
    first = next(one)
    assert b"".join(other) == data
    assert first + b"".join(one) == data
    assert b"".join(spool.pieces()) == data
    spool.close()


@pytest.mark.parametrize("memory_bytes", [1, 10])
def test_once_it_is_closed_nothing_is_read_from_it(memory_bytes: int) -> None:
    spool = Spool(memory_bytes)
    spool.write(b"abc")
    spool.close()
    spool.close()
    with pytest.raises(ValueError, match="gone"):
        spool.read(0, 1)
