"""
One process's link to the shared state: what is asked goes out in batches, one at a time.

While a batch is under way the next one gathers, so that a busy process sends few and large ones. A
batch that fails may or may not have been carried out; the link is down from then on, and before it
is up again `resync` says all that this process holds, in place of whatever Redis knows of it. A
batch that arrives late is of an older session and is not carried out any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from secrets import token_hex
from typing import Any, TypeAlias

import orjson
from redis.exceptions import NoScriptError, RedisError

from proxy.clock import Clock
from proxy.store.port import StoreUnavailable
from proxy.store.windows import Labels, labels_at, months_around

TIMEOUT_S = 0.1  # for one batch
GRACE_S = 0.05  # and so long again, in which a busy event loop may find the reply that is there
COMPANY_S = 0.005  # that what nobody waits for waits for company
REST_S = 0.5  # until a link that is down is tried again
MOST_OPERATIONS = 200  # in one batch
PREFIX = "{mobius}:quota:"  # its hash tag keeps every key in one slot of a Cluster
SCRIPT = files("proxy.store").joinpath("redis_quota.lua").read_text()
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

Words: TypeAlias = tuple[Any, ...]  # the name of an operation of the script, and its arguments


@dataclass(frozen=True, slots=True)
class Moment:
    """When the script ran, by the clock of Redis."""

    at_us: int
    labels: Labels


@dataclass(slots=True, eq=False)
class Operation:
    """
    One step of the script, and who is told how it went: `done` or `failed`, once.

    `mirrored`: its effect is in what `resync` says, so that it is not to be sent after that.
    """

    words: Words
    done: Callable[[Any, Moment], None] = lambda result, moment: None
    failed: Callable[[], None] = lambda: None
    mirrored: bool = False


class Broken(Exception):
    """The link is down; whether the last batch was carried out is not known."""


class OutOfStep(Exception):
    """Redis knows another state of this process than it has itself; nothing was carried out."""


class RedisLink:
    """Asks one script of one Redis from `open` to `aclose`; `told` hears of ups and downs."""

    def __init__(
        self,
        client: Any,
        clock: Clock,
        *,
        owner: str,
        resync: Callable[[Labels], Iterable[Words]],
        told: Callable[[str | None], None],
    ) -> None:
        self.owner = owner
        self.epoch = f"none-{token_hex(8)}"  # the name of a new one, should Redis have none
        self.up = False  # operations may be put
        self.trouble = "it was not asked yet"
        self.heard_s = clock.now()  # the moment of the last reply
        self._client = client
        self._clock = clock
        self._resync = resync
        self._told = told
        self._ahead_s = clock.wall() - clock.now()  # of Redis' clock over the monotonic one
        self._told_up: bool | None = None
        self._closing = False
        self._session = self._sequence = 0
        self._queue: deque[Operation] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()  # once it is known whether the link comes up

    async def open(self) -> None:
        """Return when the link is up, or when the first attempt to bring it up has failed."""
        self._task = asyncio.create_task(self._run(), name="talk to Redis")
        await self._settled.wait()

    async def aclose(self) -> None:
        """Have sent what was put before, unless the link is down, and the connections closed."""
        if self._task is not None:
            with suppress(StoreUnavailable, TimeoutError):
                await asyncio.wait_for(self.ask(("retire",)), 1.0)
            self._closing = True
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._go_down("it is closed")
        with suppress(RedisError, OSError):
            await self._client.aclose()

    def wall(self) -> float:
        """Seconds since 1970 by the clock of Redis, as far as it was heard of."""
        return self._clock.now() + self._ahead_s

    def put(self, operation: Operation) -> None:
        """
        Have the operation sent with the next batch. Raises StoreUnavailable: it is not.

        Nobody waits for what is mirrored: it is given a moment for something to travel with.
        """
        if not self.up:
            raise StoreUnavailable(self.trouble)
        self._queue.append(operation)
        if not operation.mirrored:
            self._wake.set()
        elif len(self._queue) == 1:
            asyncio.get_running_loop().call_later(COMPANY_S, self._wake.set)

    async def ask(self, words: Words) -> Any:
        """Return what the operation returns. Raises StoreUnavailable."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any, moment: Moment) -> None:
            if not answer.done():
                answer.set_result(result)

        def failed() -> None:
            if not answer.done():
                answer.set_exception(StoreUnavailable(self.trouble))

        self.put(Operation(words, done, failed))
        return await answer

    async def _run(self) -> None:
        while not self._closing:  # a cancellation may be lost in a connection that is being made
            try:
                await self._come_up()
                await self._serve()
            except OutOfStep:
                # Nothing was carried out, and what waits is sent again after the next `resync`.
                continue
            except Broken as exc:
                self._go_down(str(exc))
                self._settled.set()
                await self._clock.sleep(REST_S)

    async def _come_up(self) -> None:
        """Have Redis know of this process exactly what the process knows itself."""
        self._session += 1
        self._sequence = 0
        with suppress(OutOfStep):  # which says the epoch, where it is another one
            await self._send("sync", [])
        # What is mirrored so far is in the words below; what is put from here on comes after them.
        self._queue = deque(each for each in self._queue if not each.mirrored)
        words = list(self._resync(labels_at(self.wall())))
        self.up = True
        while len(words) > MOST_OPERATIONS:
            await self._send("sync", words[:MOST_OPERATIONS])
            words = words[MOST_OPERATIONS:]
        await self._send("synced", words)
        if not self._told_up:
            self._told_up = True
            self._told(None)
        if self._queue:
            self._wake.set()
        self._settled.set()

    async def _serve(self) -> None:
        while True:
            await self._wake.wait()
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), MOST_OPERATIONS))]
            if not self._queue:
                self._wake.clear()
            if not batch:
                continue
            self._sequence += 1
            try:
                results, moment = await self._send("ask", [each.words for each in batch])
            except OutOfStep:
                self._queue.extendleft(reversed(batch))
                raise
            except BaseException:
                for each in batch:
                    each.failed()
                raise
            for each, result in zip(batch, results, strict=True):
                each.done(result, moment)

    async def _send(self, mode: str, words: Sequence[Words]) -> tuple[list[Any], Moment]:
        """Return the results. Raises OutOfStep, Broken."""
        arguments = (
            *(self.owner, self._session, self._sequence, self.epoch, mode),
            *(orjson.dumps(months_around(self.wall())), orjson.dumps(words)),
        )
        try:
            reply = await self._evaluate(arguments)
        except TimeoutError:
            raise Broken(f"Redis did not answer within {TIMEOUT_S:g} s") from None
        except (RedisError, OSError) as exc:
            raise Broken(f"Redis cannot be used ({_said(exc)})") from exc
        status, epoch, at_us, *rest = reply
        self.heard_s = self._clock.now()
        self._ahead_s = at_us / 1_000_000 - self.heard_s
        self.epoch = epoch.decode()
        if status != b"OK":
            raise OutOfStep(status.decode())
        labels = Labels(rest[0].decode(), rest[1].decode())
        return rest[2:], Moment(at_us, labels)

    async def _evaluate(self, arguments: tuple[Any, ...]) -> Any:
        """Return the reply. Raises TimeoutError where it takes too long, however busy the loop."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            # The loop is given another moment after the time: it looks for replies before it looks
            # at clocks.
            late = loop.call_later(TIMEOUT_S, lambda: limit.reschedule(loop.time() + GRACE_S))
            try:
                return await self._client.evalsha(SHA, 1, PREFIX, *arguments)
            except NoScriptError:  # it was restarted
                return await self._client.eval(SCRIPT, 1, PREFIX, *arguments)
            finally:
                late.cancel()

    def _go_down(self, why: str) -> None:
        self.trouble, self.up = why, False
        if self._told_up is not False:
            self._told_up = False
            self._told(why)
        waiting, self._queue = self._queue, deque()
        for each in waiting:
            each.failed()


def _said(error: Exception) -> str:
    # Of the first words only: an address may hold a password, and a reply what was asked.
    return f"{type(error).__name__}: {str(error).split('.')[0][:100]}"
