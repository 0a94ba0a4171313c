"""
Values that stand outside the file: `os.environ/NAME`, from the environment or a mounted file.

`NAME` is looked up in the environment; when it is not there, or empty, the file that `NAME_FILE`
names is read, without the line break at its end. It is read again at every load, so that a rotated
secret takes effect with the next reload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PREFIX = "os.environ/"
LARGEST_BYTES = 64 * 1024  # of a mounted secret

# What people write where a server wants no key; not worth a warning.
PLACEHOLDERS = frozenset(
    {"", "-", "anything", "dummy", "empty", "fake", "fake-key", "no-key", "none", "not-needed"}
)


@dataclass(frozen=True, slots=True)
class Found:
    """A variable's value; None and the reason when it has none."""

    value: str | None = field(repr=False)
    problem: str = ""
    unreadable: bool = False  # NAME_FILE is set, and its file cannot be read


@dataclass(slots=True)
class Secrets:
    """Looks up variables for one load, and remembers which files and values it came across."""

    environ: Mapping[str, str] = field(repr=False)
    files: dict[Path, None] = field(default_factory=dict)  # in the order they were met
    values: set[str] = field(default_factory=set, repr=False)
    contents: dict[Path, str] = field(default_factory=dict)  # a hash, of what is read whole
    _found: dict[str, Found] = field(default_factory=dict, repr=False)

    def find(self, name: str) -> Found:
        """Return what a variable holds."""
        if name not in self._found:
            found = self._found[name] = self._look_up(name)
            if found.value:
                self.values.add(found.value)
        return self._found[name]

    def first(self, names: tuple[str, ...]) -> Found:
        """Return the first of several variables that is set, else what is wrong with the first."""
        found = [self.find(name) for name in names]
        return next((each for each in found if each.value is not None), found[0])

    def fingerprint(self) -> str:
        """Return a hash that changes when a variable or a file that this load read changes."""
        pairs = sorted((name, found.value or "") for name, found in self._found.items())
        pairs += sorted((str(path), digest) for path, digest in self.contents.items())
        return hashlib.sha256(repr(pairs).encode()).hexdigest()

    def mounted(self) -> dict[str, bool]:
        """Return the variables that a mounted file was to hold, and whether it did."""
        named = {name for name in self._found if not self.environ.get(name)}
        return {
            name: self._found[name].value is not None
            for name in sorted(named)
            if self.environ.get(f"{name}_FILE")
        }

    def _look_up(self, name: str) -> Found:
        value = self.environ.get(name)
        if value:
            return Found(value)
        file = self.environ.get(f"{name}_FILE")
        if not file:
            return Found(None, f"the variable {name} is not set")
        path = Path(file)
        self.files[path] = None
        try:
            text = _read(path)
        except (OSError, ValueError):
            return Found(None, f"the file that {name}_FILE names cannot be read", unreadable=True)
        if not text:
            return Found(None, f"the file that {name}_FILE names is empty", unreadable=True)
        return Found(text)


def variable(value: object) -> str | None:
    """Return the name in `os.environ/NAME`; None for any other value."""
    if isinstance(value, str) and value.startswith(PREFIX):
        return value.removeprefix(PREFIX).strip()
    return None


def _read(path: Path) -> str:
    # A pipe or a device would keep the load waiting for ever.
    if not path.is_file():
        raise FileNotFoundError
    with path.open("rb") as file:
        raw = file.read(LARGEST_BYTES + 1)
    if len(raw) > LARGEST_BYTES:
        raise ValueError
    return raw.decode("utf-8-sig").rstrip("\r\n")
