"""Another time of day for one process: Debian's libfaketime, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


class FakeTime:
    """What a process that is started with `env` takes for the time; its monotonic clock is true."""

    def __init__(self, folder: Path, offset: str = "+0") -> None:
        if not LIBRARY.exists():
            pytest.skip("needs libfaketime: on Debian and Ubuntu, apt install faketime")
        self._file = folder / "faketime"
        self.set(offset)

    def set(self, offset: str) -> None:
        """From now on its clock is off by that: `+1h`, `-1h`, `+0`."""
        self._file.write_text(f"{offset}\n")

    @property
    def env(self) -> Mapping[str, str]:
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
