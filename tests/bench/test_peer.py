"""Which LiteLLM is measured beside Mobius, and which is not."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from bench import peer
from bench.peer import OtherVersion


def test_the_version_is_the_one_of_the_lock() -> None:
    lock = (
        "litellm-enterprise==0.1\nlitellm==1.106.2 \\\n    --hash=sha256:32e5\nopenai==2.20.0 \\\n"
    )
    assert peer.locked_version(lock) == "1.106.2"


def test_the_lock_of_this_tree_names_the_version_that_is_installed() -> None:
    assert peer.locked_version(peer.LOCK.read_text()) == version("litellm")


def test_a_lock_without_litellm_is_an_error() -> None:
    with pytest.raises(LookupError):
        peer.locked_version("openai==2.20.0 \\\n")


def test_another_version_is_not_measured_and_both_are_named() -> None:
    peer.compare("1.106.2", "1.106.2")
    with pytest.raises(OtherVersion, match=r"1\.105\.0.*1\.106\.2"):
        peer.compare("1.105.0", "1.106.2")


def test_the_version_is_that_of_the_environment_the_command_stands_in() -> None:
    ours = Path(sys.executable).parent / "litellm"
    assert peer.find(ours) == peer.Peer(ours)


def test_a_command_that_is_no_litellm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OtherVersion, match="litellm is no LiteLLM"):
        peer.find(tmp_path / "bin" / "litellm")
