"""Where and with what it was measured. Nothing here names the machine, a user or a path."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "mobius-proxy",
    "litellm",
    "aiohttp",
    "fastapi",
    "starlette",
    "uvicorn",
    "uvloop",
    "httptools",
)


def facts() -> dict[str, Any]:
    """Return what a reader needs in order to compare two runs."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": _cpu(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
