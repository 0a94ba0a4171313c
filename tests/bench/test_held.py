"""In which steps more and more streams begin, and what counts as a stall."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from bench.held import CLIMBS, GROWTH, MOST, Watcher, is_tried, levels


def test_every_step_has_more_streams_and_the_last_has_the_most() -> None:
    for climb in CLIMBS.values():
        found = list(levels(climb.first))
        assert found[0] == climb.first
        assert found[-1] == MOST
        assert found == sorted(set(found))


def test_few_streams_become_one_more_and_many_a_share_more() -> None:
    assert list(levels(1))[:4] == [1, 2, 3, 4]
    found = list(levels(100))
    assert all(new <= old * GROWTH for old, new in pairwise(found))


def test_a_silence_is_told_once() -> None:
    watcher = Watcher()
    watcher.on_message_begin()
    watcher.on_body(b"data: a")
    watcher.on_body(b"data: b")
    assert watcher.silent_s() > 0
    assert watcher.silent_s() == 0


@pytest.mark.anyio
async def test_a_silence_that_has_not_ended_counts_once_a_stream_has_begun() -> None:
    watcher = Watcher()
    watcher.connection_made(Deaf())
    asking = asyncio.create_task(watcher.ask(b"GET / HTTP/1.1"))
    await asyncio.sleep(0)
    assert watcher.silent_s() == 0
    watcher.on_message_begin()
    watcher.on_body(b"data: a")
    assert watcher.silent_s() > 0
    asking.cancel()


class Deaf(asyncio.Transport):
    """Where a request goes that nobody answers."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


def test_what_comes_before_a_stream_begins_is_no_silence_within_it() -> None:
    watcher = Watcher()
    watcher.on_message_begin()
    watcher.on_body(b"data: a")
    assert watcher.silent_s() == 0


def test_mobius_is_tried_as_often_as_the_floor() -> None:
    assert all(is_tried("mobius", turn) == is_tried("floor", turn) for turn in range(1, 5))
    assert not is_tried("translated", 1)
