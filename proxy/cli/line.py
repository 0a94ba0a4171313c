"""The line between the supervisor and a worker: either may ask, and knows of the other's end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Any, Self, TypeAlias

import orjson

from proxy.everyone import Silent

MOST_BYTES = 64 * 1024 * 1024  # of one answer: every series of a large file
ANSWER_S = 2.0

Answer: TypeAlias = Callable[[str], Awaitable[Any]]  # of a word, with JSON


class Line:
    """One end, from `open` to `aclose`."""

    def __init__(self, answer: Answer) -> None:
        self.on_end: Callable[[], None] | None = None  # told when the other side is gone
        self._ended = False
        self._answer = answer
        self._ids = count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.StreamWriter | None = None

    async def open(self, end: socket.socket) -> Self:
        reader, self._writer = await asyncio.open_connection(sock=end, limit=MOST_BYTES)
        self._start(self._listen(reader))
        return self

    async def aclose(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):
                await self._writer.wait_closed()

    async def ask(self, word: str, *, timeout_s: float = ANSWER_S) -> Any:
        """Return the other side's answer. Raises Silent."""
        number = next(self._ids)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send({"ask": number, "word": word})
                return await answer
        except (TimeoutError, OSError) as exc:
            raise Silent(f"no answer within {timeout_s:g} s") from exc
        finally:
            del self._asked[number]

    async def _send(self, message: dict[str, Any]) -> None:
        if self._writer is None or self._ended:
            raise Silent("the other side is gone")
        self._writer.write(orjson.dumps(message) + b"\n")
        await self._writer.drain()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                self._hear(orjson.loads(line))
        except (OSError, ValueError):
            pass  # it died in the middle of a line
        finally:
            self._ended = True
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(Silent("the other side is gone"))
            if self.on_end is not None:
                self.on_end()

    def _hear(self, message: dict[str, Any]) -> None:
        if "ask" in message:
            self._start(self._reply(message["ask"], message["word"]))
            return
        answer = self._asked.get(message["to"])
        if answer is None or answer.done():
            return  # it came too late
        if "silent" in message:
            answer.set_exception(Silent(message["silent"]))
        else:
            answer.set_result(message["answer"])

    async def _reply(self, number: int, word: str) -> None:
        with suppress(Silent, OSError):
            try:
                answer = await self._answer(word)
            except Silent as exc:
                await self._send({"to": number, "silent": str(exc)})
            else:
                await self._send({"to": number, "answer": answer})

    def _start(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
