"""What the file in force sets in the environment, and takes back when it is gone from the file."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping


class Exports:
    """Keeps in `target` what the file in force sets, over the environment as it was at `start`."""

    def __init__(self, target: MutableMapping[str, str], start: Mapping[str, str]) -> None:
        self._target = target
        self._start = start
        self._set: frozenset[str] = frozenset()

    def set(self, values: Mapping[str, str]) -> None:
        """Set `values`; what was set before and is not among them is as it was at start."""
        for name in self._set - values.keys():
            if name in self._start:
                self._target[name] = self._start[name]
            else:
                self._target.pop(name, None)
        self._target.update(values)
        self._set = frozenset(values)
