"""What counts as long streams that were under way at once, and how much each of them held."""

from __future__ import annotations

import pytest

from bench.memory import LongReader, MemorySample, check
from bench.payload import LONG, LONG_EVENTS, WrongAnswer


def reader(pieces: list[bytes], *, first_s: float = 1.0, last_s: float = 9.0) -> LongReader:
    read = LongReader()
    for piece in pieces:
        read.on_body(piece)
    read.first_s, read.last_s = first_s, last_s
    return read


def test_what_a_stream_held_is_its_share_of_what_was_added() -> None:
    assert MemorySample("mobius", 500, 4000, 80.0, 105.0).stream_kib == pytest.approx(51.2)


def test_a_long_stream_has_as_many_events_as_is_said() -> None:
    assert len(LONG) == LONG_EVENTS
    assert b"".join(LONG).count(b"data: ") == LONG_EVENTS


def test_the_bytes_are_checked_however_they_were_cut() -> None:
    whole = b"".join(LONG)
    check([reader(list(LONG)), reader([whole[:70_001], whole[70_001:]])])
    with pytest.raises(WrongAnswer, match="other bytes"):
        check([reader([whole[:-1]])])
    with pytest.raises(WrongAnswer, match="other bytes"):
        check([reader([whole.replace(b"word2000", b"word2001")])])


def test_streams_that_were_not_all_under_way_at_once_do_not_count() -> None:
    pieces = list(LONG)
    check([reader(pieces, last_s=5.0), reader(pieces, first_s=4.9)])
    with pytest.raises(WrongAnswer, match="had ended"):
        check([reader(pieces, last_s=5.0), reader(pieces, first_s=5.0)])
