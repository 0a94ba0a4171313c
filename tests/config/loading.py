"""What the tests of the configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.config import Config, ConfigError, Remark, load_config
from proxy.snapshot import Snapshot
from proxy.types import Ring, Target

FILES = Path(__file__).with_name("files")


def load_file(name: str, **environ: str) -> Config:
    return load_config(FILES / name, environ)


def load_text(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    file = folder / "litellm_config.yaml"
    file.write_text(text, encoding="utf-8")
    return load_config(file, environ or {})


def refusal(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> ConfigError:
    """Load a text that must not load, and return why."""
    try:
        load_text(folder, text, environ)
    except ConfigError as exc:
        return exc
    raise AssertionError("this file was accepted")


def lines(remarks: tuple[Remark, ...]) -> list[tuple[int, str]]:
    return [(remark.line, remark.text) for remark in remarks]


def ring(snapshot: Snapshot, name: str) -> Ring:
    found = snapshot.ring(name)
    assert found is not None, name
    return found


def names(snapshot: Snapshot, name: str) -> list[str]:
    """Return the groups of a ring, in order."""
    return [group.name for group in ring(snapshot, name).groups]


def targets(snapshot: Snapshot, name: str) -> list[Target]:
    """Return the targets of a ring's own group."""
    return list(ring(snapshot, name).groups[0].targets)


def mock_model(name: str, **more: object) -> str:
    """Return an entry of model_list, on a line of its own."""
    params = "".join(f", {key}: {value}" for key, value in more.items())
    return (
        f"  - {{model_name: {name},"
        f" litellm_params: {{model: openai/{name}, mock_response: hi{params}}}}}\n"
    )
