"""Mobius itself, as a person runs it: a process of its own, one file, one port."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from anthropic import Anthropic
from anthropic import DefaultHttpxClient as AnthropicHttpClient
from openai import AsyncOpenAI, DefaultAsyncHttpxClient, DefaultHttpxClient, OpenAI

from tests.harness.child import MOBIUS, Child, clean_env
from tests.harness.config_file import Config, ConfigFile, EditKind
from tests.harness.metrics import Samples, parse
from tests.harness.waiting import wait_until
from tests.providers.ports import bound, port_of

START_S = 60.0
STOP_S = 40.0
LOG_S = 0.05  # a line is written within a fifth of that
LOG_LOOKS = 4  # a service under load always has more to say
_EDGE = httpx.Timeout(60.0, connect=5.0)

T = TypeVar("T")


class Mobius:
    """`mobius serve` with this configuration: ready inside the `with`, gone after it.

    It may be stopped or killed and started again in between: the port, the folder and the log stay.
    On the way out none of `secrets` may stand in the log. Its clients take no proxy from the
    environment; the synchronous ones are closed on the way out, an asynchronous one by the test.
    """

    def __init__(
        self,
        config: Config,
        *,
        env: Mapping[str, str] | None = None,
        args: Sequence[str] = (),
        secrets: Sequence[str] = (),
        layout: EditKind = "save",
        command: Sequence[str] = MOBIUS,
        ready_s: float | None = START_S,
    ) -> None:
        """`ready_s` None: do not wait for readiness. `layout` "configmap": a mounted one."""
        self._config, self._layout = config, layout
        self._env, self._args, self._command = dict(env or {}), tuple(args), tuple(command)
        self._secrets, self._ready_s = tuple(secrets), ready_s
        self._clients = contextlib.ExitStack()
        self._child: Child | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            temporary = tempfile.TemporaryDirectory(prefix="mobius-", ignore_cleanup_errors=True)
            self.folder = Path(undo.enter_context(temporary))
            self.port = port_of(undo.enter_context(bound()))
            self.file = ConfigFile(self.folder, self._config, self._layout)
            undo.callback(self.kill)
            undo.callback(self._clients.close)
            self.http = self._clients.enter_context(
                httpx.Client(base_url=self.url, timeout=_EDGE, trust_env=False)
            )
            self.start()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._undo:
            self.stop()
            if kind is None:
                self._assert_no_secret_was_told()

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.file.path

    @property
    def pid(self) -> int:
        """The process that was started last."""
        return self._running.pid

    @property
    def log(self) -> str:
        """All that it printed since the first start, once what it had to say is there."""
        if self._child is None:
            return ""
        # A line is written a moment after the answer that it is about.
        said = self._child.log
        for _ in range(LOG_LOOKS):
            time.sleep(LOG_S)
            before, said = said, self._child.log
            if said == before:
                break
        return said

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._running.exit_code

    def start(self) -> None:
        """A process runs and, unless told otherwise, is ready; AssertionError with its log."""
        where = ["--config", str(self.config), "--port", str(self.port)]
        command = [*self._command, "serve", *where, *self._args]
        env = clean_env(self.folder, self._env)
        self._child = Child(command, env=env, folder=self.folder, name="mobius")
        if self._ready_s is not None:
            self.wait_ready(self._ready_s)

    def wait_ready(self, timeout_s: float = START_S) -> None:
        """`/health/readiness` says 200; AssertionError at once when the process has ended."""
        try:
            self.wait_until(self._is_ready, timeout_s, "readiness")
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n--- its log:\n{self.log}") from exc

    def _is_ready(self) -> bool:
        if (code := self.exit_code) is not None:
            raise AssertionError(f"it ended with exit code {code}")
        try:
            return self.http.get("/health/readiness").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, grace_s: float = STOP_S) -> int:
        """The exit code after SIGTERM; after `grace_s` it is killed."""
        return self._running.end(grace_s)

    def kill(self) -> int | None:
        """The exit code after SIGKILL to it and its workers; None when it never started."""
        return self._child.kill() if self._child is not None else None

    def signal(self, number: signal.Signals) -> None:
        """The signal is sent to the process."""
        self._running.signal(number)

    def wait_exit(self, timeout_s: float = STOP_S) -> int:
        """The exit code of a process that ends by itself or by a signal sent before."""
        return self._running.wait(timeout_s)

    def edit(self, config: Config, how: EditKind = "save") -> None:
        """The file is changed; whether that was noticed is for the test to wait for."""
        self.file.write(config, how)

    def wait_until(
        self, predicate: Callable[[], T], timeout_s: float = 10.0, what: str = "it"
    ) -> T:
        """What `predicate` returned once it was true; AssertionError when it never was."""
        return wait_until(predicate, timeout_s, what)

    def metrics(self, **headers: str) -> Samples:
        """A scrape: the value of every sample by its name and its labels."""
        response = self.http.get("/metrics", headers=headers)
        response.raise_for_status()
        return parse(response.text)

    def openai(self, api_key: str = "sk-test", max_retries: int = 0, **more: Any) -> OpenAI:
        """The official client, pointed here."""
        http = DefaultHttpxClient(trust_env=False)
        client = OpenAI(
            base_url=f"{self.url}/v1",
            api_key=api_key,
            max_retries=max_retries,
            http_client=http,
            **more,
        )
        return self._clients.enter_context(client)

    def async_openai(
        self, api_key: str = "sk-test", max_retries: int = 0, **more: Any
    ) -> AsyncOpenAI:
        """The official asynchronous client; the test closes it (`async with`)."""
        return AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key=api_key,
            max_retries=max_retries,
            http_client=DefaultAsyncHttpxClient(trust_env=False),
            **more,
        )

    def anthropic(self, api_key: str = "sk-test", max_retries: int = 0, **more: Any) -> Anthropic:
        """Anthropic's official client, pointed here."""
        client = Anthropic(
            base_url=self.url,
            api_key=api_key,
            max_retries=max_retries,
            http_client=AnthropicHttpClient(trust_env=False),
            **more,
        )
        return self._clients.enter_context(client)

    @property
    def _running(self) -> Child:
        assert self._child is not None, "not started"
        return self._child

    def _assert_no_secret_was_told(self) -> None:
        log = self.log  # once: it waits for what is still to be written
        told = [secret[:4] + "…" for secret in self._secrets if secret in log]
        assert not told, f"the log names secrets that begin with {told}"


def mobius_command(
    *args: str,
    config: Config | None = None,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] = MOBIUS,
    timeout_s: float = 60.0,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """The command, run once to its end in an empty folder; with `config`, `--config` is given.

    `text` is what it reads from its standard input.
    """
    with tempfile.TemporaryDirectory(prefix="mobius-") as name:
        folder = Path(name)
        where = [] if config is None else ["--config", str(ConfigFile(folder, config).path)]
        return subprocess.run(
            [*command, *args, *where],
            env=clean_env(folder, env or {}),
            cwd=folder,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
