"""Who is measured in which case, and how long the progress bar is."""

from __future__ import annotations

from pathlib import Path

from bench.campaign import PARTS, Options, is_asked, steps
from bench.load import Case
from bench.payload import Kind
from bench.peer import Peer

NONE = Peer(None, "it is not installed")


def options(*only: str, peer: Peer = NONE) -> Options:
    return Options(rounds=3, seconds=1.0, within_s=60.0, only=frozenset(only), peer=peer)


def test_on_many_connections_only_the_floor_and_mobius_are_asked() -> None:
    names = ("direct", "floor", "mobius", "translated", "litellm", "litellm-claude")
    asked = {name for name in names if is_asked(name, Case(Kind.UNARY, 64))}
    assert asked == {"floor", "mobius"}
    assert all(is_asked(name, Case(Kind.STREAM, 16)) for name in names)


def test_litellm_is_asked_for_no_crowd_of_paced_streams() -> None:
    assert not is_asked("litellm", Case(Kind.PACED, 64))
    assert is_asked("translated", Case(Kind.PACED, 64))


def test_the_bar_has_room_for_litellm_only_where_it_is_measured() -> None:
    without = steps(options("unary"))
    assert without == 1 + 4 + 3 * (4 + 4 + 2)
    found = Peer(Path("litellm"))
    assert steps(options("unary", peer=found)) == without + 1 + 2 + 3 * (2 + 2)
    assert steps(options("ring", peer=found)) == steps(options("ring")) == 1


def test_every_part_alone_moves_the_bar() -> None:
    assert all(steps(options(part)) > 0 for part in PARTS)
