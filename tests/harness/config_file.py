"""The configuration file, edited in the three ways in which the world edits files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml

Config: TypeAlias = str | Mapping[str, Any]
EditKind: TypeAlias = Literal[
    "save",  # truncated and written in place
    "rename",  # written beside it and renamed over it, as editors do
    "configmap",  # a symbolic link further up is swapped, as Kubernetes does
]
NAME = "litellm_config.yaml"


def as_yaml(config: Config) -> str:
    """The configuration as text."""
    return config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)


class ConfigFile:
    """`litellm_config.yaml` in a folder, from its first writing on."""

    def __init__(self, folder: Path, config: Config, how: EditKind = "save") -> None:
        self.path = folder / NAME
        self._versions = count(1)
        self.write(config, how)

    def write(self, config: Config, how: EditKind) -> None:
        """The file has the new content."""
        text = as_yaml(config)
        match how:
            case "save":
                self.path.write_text(text)
            case "rename":
                beside = self.path.with_suffix(".tmp")
                beside.write_text(text)
                beside.replace(self.path)
            case "configmap":
                self._swap(text)

    def _swap(self, text: str) -> None:
        """A new folder, a link `..data` that moves to it at once, and a link to the file in it."""
        folder = self.path.parent
        version = folder / f"..version_{next(self._versions)}"
        version.mkdir()
        (version / NAME).write_text(text)
        _link(folder / "..data", version.name)
        if not self.path.is_symlink():
            _link(self.path, f"..data/{NAME}")


def _link(path: Path, target: str) -> None:
    beside = path.with_name(f"{path.name}_tmp")
    os.symlink(target, beside)
    beside.replace(path)
