"""Workers as real processes: each a fresh interpreter, never a fork of one that has run."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

import proxy
from proxy.cli.line import Answer, Line
from proxy.cli.supervisor import Supervisor
from proxy.clock import SystemClock
from proxy.everyone import Silent
from proxy.log import Log, write_lines

# Found last where the supervisor found it, so that no folder of that name in the way is taken.
CODE = "import sys; sys.path.append(sys.argv[1]); from proxy.cli.worker import command; command()"
ROOT = str(Path(proxy.__file__).parents[1])


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is to do. It is told on the line, where no list of processes shows it."""

    config: str
    listeners: Sequence[int]  # file descriptors
    apart: Sequence[int]  # likewise, for the metrics
    loopback: bool  # a file without any key will do
    redis: bool  # there is one to share
    options: Mapping[str, Any]  # uvicorn's


def supervise(order: Order, *, workers: int) -> int:
    """Serve with that many workers until a signal; return the exit code."""
    return asyncio.run(_supervise(order, workers))


async def _supervise(order: Order, workers: int) -> int:
    clock = SystemClock()
    log = Log(write_lines, clock)
    supervisor = Supervisor(workers, partial(spawn, order), clock, log)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    async def reload() -> None:
        with suppress(Silent):
            await supervisor.reload()

    def hang_up() -> None:
        task = asyncio.create_task(reload(), name="reload on SIGHUP")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.end, number)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    return await supervisor.run()


class Spawned:
    """One process, and the line to it."""

    def __init__(self, process: asyncio.subprocess.Process, line: Line) -> None:
        self._process = process
        self._line = line

    async def ask(self, word: str, *, timeout_s: float) -> Any:
        return await self._line.ask(word, timeout_s=timeout_s)

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def wait(self) -> int:
        code = await self._process.wait()
        await self._line.aclose()
        return code


async def spawn(order: Order, number: int, answer: Answer) -> Spawned:
    """Return a worker that is starting."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", CODE, ROOT, f"worker {number}"),
            stdin=theirs.fileno(),
            pass_fds=[*order.listeners, *order.apart],
        )
    await asyncio.get_running_loop().sock_sendall(ours, orjson.dumps(asdict(order)) + b"\n")
    return Spawned(process, await Line(answer).open(ours))
