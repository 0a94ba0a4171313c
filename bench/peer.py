"""
LiteLLM's proxy beside Mobius: the same version, asked the same in the same rounds.

It is a program of its own in an environment of its own (`make bench-litellm`), which nothing here
imports. It serves as its pages advise for production, with one worker, a master key, no database
and no callbacks: what it could keep and export of a request costs it nothing here.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from bench.cast import KEY, MODEL, READINESS, Server, Start, begin, claude_entry, openai_entry
from bench.child import HOST, ROOT, Child, held_port

NAME = "litellm"
CLAUDE_NAME = "litellm-claude"
CLAUDE_MODEL = "bench-claude"
OPPOSITE = {NAME: "mobius", CLAUDE_NAME: "translated"}  # who does the same
COMMAND = ROOT / ".venv-litellm" / "bin" / "litellm"  # where `make bench-litellm` puts it
LOCK = ROOT / "requirements.txt"
ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its prices from the internet
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
}
_ASK_VERSION = "from importlib.metadata import version; print(version('litellm'))"


class OtherVersion(Exception):
    """What stands there is not the LiteLLM that Mobius is locked to, or is none."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The command of a LiteLLM of the right version; without one, `missing` says why."""

    command: Path | None
    missing: str = ""


def find(given: Path | None) -> Peer:
    """
    Return the peer at `given`, or else the one of `make bench-litellm` where it is installed.

    Raises OtherVersion where the one that was given cannot be measured.
    """
    command = given or COMMAND
    if given is None and not command.exists():
        return Peer(None, "it is not installed (make bench-litellm installs it and measures it)")
    try:
        compare(_version(command), locked_version(LOCK.read_text()))
    except OtherVersion as error:
        if given is not None:
            raise
        return Peer(None, f"{error} (make bench-litellm installs the right one)")
    return Peer(command.absolute())


def locked_version(lock: str) -> str:
    """Return the version of LiteLLM that a lock names. Raises LookupError when it names none."""
    found = re.search(r"^litellm==(\S+)", lock, re.MULTILINE)
    if found is None:
        raise LookupError("the lock names no litellm")
    return found[1]


def compare(installed: str, locked: str) -> None:
    """Raise OtherVersion unless both are the same."""
    if installed != locked:
        raise OtherVersion(f"it is LiteLLM {installed}, Mobius is locked to {locked}")


def _version(command: Path) -> str:
    """Return the version of the package that a command belongs to, without importing it."""
    asking = [str(command.parent / "python"), "-c", _ASK_VERSION]
    try:
        told = subprocess.run(asking, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as exc:
        raise OtherVersion(f"{command} is no LiteLLM in an environment of its own") from exc
    return told.stdout.strip()


@contextlib.contextmanager
def serving(command: Path, origin: Child, folder: Path) -> Iterator[tuple[Child, Start]]:
    """Yield LiteLLM's proxy with a target of OpenAI's wire format and one of Anthropic's."""
    config = {
        "model_list": [
            openai_entry(MODEL, origin.port),
            claude_entry(CLAUDE_MODEL, origin.port),
        ],
        "general_settings": {"master_key": KEY},
    }
    file = folder / f"{NAME}.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    with (
        held_port() as port,
        Child(NAME, port, _arguments(command, file, port), folder, env=ENV) as child,
    ):
        yield child, begin(child, READINESS)


def servers(child: Child) -> Sequence[Server]:
    """Return what is measured of it: both of its targets."""
    return (Server(NAME, child), Server(CLAUDE_NAME, child, CLAUDE_MODEL))


def _arguments(command: Path, file: Path, port: int) -> Sequence[str]:
    where = ("--host", HOST, "--port", str(port))
    return (
        str(command),
        "--config",
        str(file),
        *where,
        "--num_workers",
        "1",
        "--telemetry",
        "False",
    )
