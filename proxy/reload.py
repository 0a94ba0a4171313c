"""
Live edits: watches the file, and puts a new Snapshot in place of the old when it is right.

A broken file changes nothing: the old Snapshot stays, and the error is kept for the log, the
metrics and `/health/readiness`. A request that took the old Snapshot keeps it to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from watchfiles import awatch

from proxy.clock import Clock
from proxy.config import Config, ConfigError, Remark, load_config, shown
from proxy.snapshot import Snapshot

# The safety net where inotify sees nothing: network and overlay mounts, a bind-mounted single file,
# no more watches left. A few calls of stat() cost microseconds.
POLL_S = 0.25
SETTLE_S = 0.03  # an editor writes in steps: look again until two looks are the same
REST_S = 0.2  # between two looks, however much happens in the directory
MOST_LOOKS = 5
EMPTIED = (
    "no model is left in this file, so it is taken for half-written, and the models from before "
    "still answer; to serve none, restart Mobius with this file"
)
LOST = (
    "the file that {name}_FILE names is empty or cannot be read, so it is taken for half-written, "
    "and its former content still counts; to go on without it, restart Mobius"
)

Load: TypeAlias = Callable[[Path, Mapping[str, str]], Config]
Signature: TypeAlias = tuple[tuple[int, ...] | None, ...]


class Result(StrEnum):
    """What a reload came to; closed, so that it may be a metric label."""

    OK = "ok"
    ERROR = "error"
    UNCHANGED = "unchanged"


Observer: TypeAlias = Callable[[Result, ConfigError | None], None]


class Reloader:
    """
    Owns the current Snapshot. One event loop owns it.

    `on_reload` are told of every reload that found something new; they must not raise. `environ` is
    asked again at each load, and mounted secrets are read again; it holds nothing that a former
    file has set.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        config: Config,
        *,
        clock: Clock,
        load: Load = load_config,
    ) -> None:
        self._path = path
        self._environ = environ
        self._clock = clock
        self._load = load
        self._lock = asyncio.Lock()
        self._stirred = asyncio.Event()
        self._config = self._numbered(config, 1)
        self._files = config.files
        self._seen: Signature | None = None  # of the files, just before they were last read
        self.last_error: ConfigError | None = None
        self.on_reload: list[Observer] = []

    @property
    def current(self) -> Snapshot:
        return self._config.snapshot

    @property
    def config(self) -> Config:
        return self._config

    @property
    def generation(self) -> int:
        return self._config.snapshot.generation

    async def reload(self) -> Result:
        """Read the file and, when it is right and says something new, put it in place."""
        async with self._lock:
            self._seen = await asyncio.to_thread(_signature, self._files)
            try:
                config = await asyncio.to_thread(self._load, self._path, self._environ)
            except ConfigError as exc:
                return self._refused(exc)
            except Exception as exc:
                # A fault of ours must not end live edits either.
                remark = Remark(str(self._path), 1, f"a fault in Mobius: {type(exc).__name__}")
                return self._refused(ConfigError([remark]))
            return self._accepted(config)

    async def watch(self) -> None:
        """Reload after every change of a file, until cancelled."""
        if self._seen is None:
            await self.reload()  # what was saved since the first load
        while True:
            async with self._watching(self._files) as watched:
                while watched == self._files:
                    # Not `wait_for`: before Python 3.12 it lost a cancellation that came with an
                    # edit, and the service did not end.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._stirred.wait()
                    self._stirred.clear()
                    if await self._has_changed():
                        await self.reload()

    def _accepted(self, config: Config) -> Result:
        if self.current.targets() and not config.snapshot.targets():
            # Many editors empty a file before they write it, and a full disk leaves it so.
            return self._refused(ConfigError([Remark(str(self._path), 1, EMPTIED)], config.files))
        if lost := self._lost(config):
            return self._refused(ConfigError(lost, config.files))
        was_wrong = self.last_error is not None
        self.last_error = None
        self._files = config.files
        if config.fingerprint == self._config.fingerprint and not was_wrong:
            return Result.UNCHANGED
        self._config = self._numbered(config, self.generation + 1)
        return self._tell(Result.OK, None)

    def _lost(self, config: Config) -> list[Remark]:
        """Return what is to be said of the mounted secrets that could be read until now."""
        held = [name for name, could_be_read in self._config.mounted.items() if could_be_read]
        lost = [name for name in held if not config.mounted.get(name, True)]
        return [Remark(str(self._path), 1, LOST.format(name=shown(name))) for name in lost]

    def _refused(self, error: ConfigError) -> Result:
        self.last_error = error
        # The fault may be in a file that the old configuration did not read.
        self._files = tuple(dict.fromkeys((*self._config.files, *error.files)))
        return self._tell(Result.ERROR, error)

    def _tell(self, result: Result, error: ConfigError | None) -> Result:
        for observer in self.on_reload:
            observer(result, error)
        return result

    def _numbered(self, config: Config, generation: int) -> Config:
        return replace(config, snapshot=replace(config.snapshot, generation=generation))

    async def _has_changed(self) -> bool:
        signature = await asyncio.to_thread(_signature, self._files)
        if signature == self._seen:
            return False
        for _ in range(MOST_LOOKS):
            await self._clock.sleep(SETTLE_S)
            before, signature = signature, await asyncio.to_thread(_signature, self._files)
            if signature == before:
                break
        return signature != self._seen  # a reload that was asked for may have been faster

    @contextlib.asynccontextmanager
    async def _watching(self, files: tuple[Path, ...]) -> AsyncIterator[tuple[Path, ...]]:
        task = asyncio.create_task(self._stir(files))
        try:
            yield files
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _stir(self, files: tuple[Path, ...]) -> None:
        directories = await asyncio.to_thread(_directories, files)
        # Without inotify, or with no watches left, the poll alone has to do.
        with contextlib.suppress(OSError, RuntimeError):
            async for _ in awatch(
                *directories, watch_filter=None, recursive=False, step=20, debounce=50
            ):
                self._stirred.set()
                # Whatever else is written beside the file, a log perhaps, is looked at in one go.
                await self._clock.sleep(REST_S)


def _signature(files: Iterable[Path]) -> Signature:
    """Return what changes when a file is written, replaced, or reached through another link."""
    return tuple(_stat(file) for file in files)


def _stat(file: Path) -> tuple[int, ...] | None:
    try:
        stat = os.stat(file)
    except (OSError, ValueError):
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino, stat.st_dev


def _directories(files: Iterable[Path]) -> list[Path]:
    """
    Return the directories to watch: each file's, and those of every link on the way to it.

    An atomic save replaces a name in its directory; a mounted ConfigMap swaps `..data`, a link in
    the directory of the links that lead through it.
    """
    found: dict[Path, None] = {}
    for file in files:
        with contextlib.suppress(OSError, RuntimeError):
            step = file.absolute()
            for _ in range(8):
                found[step.parent] = None
                if not step.is_symlink():
                    break
                step = step.parent / step.readlink()
            found[file.resolve().parent] = None
    return [directory for directory in found if directory.is_dir()]
