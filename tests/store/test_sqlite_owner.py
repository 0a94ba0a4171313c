"""Who is alive: a lock that is held says so, and nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.store.sqlite_owner import Owner, Turn


def locks(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob("*.lock"))


def test_the_living_are_not_inherited_and_the_dead_once(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    alive, other = Owner(path, "alive"), Owner(path, "other")
    alive.hold()
    other.hold()
    (tmp_path / "m.db.dead.lock").touch()
    with other.inherit(["alive", "without-a-file", "other"]) as names:
        assert names == ["dead", "without-a-file"]
        with alive.inherit(["dead"]) as again:  # somebody has them at hand
            assert again == []
    assert locks(path) == ["m.db.alive.lock", "m.db.other.lock"]
    alive.release()
    other.release()
    assert locks(path) == []
    other.release()


def test_an_inheritance_that_fails_is_there_for_the_next(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    heir = Owner(path, "heir")
    (tmp_path / "m.db.dead.lock").touch()
    with pytest.raises(ZeroDivisionError), heir.inherit([]):
        raise ZeroDivisionError
    with heir.inherit([]) as names:
        assert names == ["dead"]


def test_a_lock_whose_file_is_gone_is_held_again(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    owner, other = Owner(path, "owner"), Owner(path, "other")
    owner.hold()
    (tmp_path / "m.db.owner.lock").unlink()
    owner.hold()
    with other.inherit(["owner"]) as names:
        assert names == []


def test_a_lock_that_another_looks_at_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    owner, other = Owner(path, "owner", looks=3), Owner(path, "other")
    with other.inherit(["owner"]), pytest.raises(BlockingIOError, match="owner"):
        owner.hold()
    owner.hold()
    assert locks(path) == ["m.db.owner.lock"]
    owner.release()


def test_a_turn_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    first, second = Turn(path, "usage"), Turn(path, "usage")
    assert first.take()
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    assert not first.take()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_turn_whose_file_is_gone_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "m.db"
    first, second = Turn(path, "usage"), Turn(path, "usage")
    assert first.take()
    (tmp_path / "m.db.usage").unlink()
    assert second.take()
    assert not first.take()
