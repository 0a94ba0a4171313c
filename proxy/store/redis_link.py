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
from proxy.store.windows import US, Labels, labels_at, months_around

GRACE_S = 0.05  # and so long again, in which a busy event loop may find the reply that is there
COMPANY_S = 0.005  # that what nobody waits for waits for company
CONNECT_S = 1.0  # for the first batch of a link that was down, for which nobody waits
REST_S = 0.5  # until a link that is down is tried again
MOST_OPERATIONS = 200  # in one batch
LIGHT_ENTRIES = 20  # of the last minute, which weigh as much as one operation
PREFIX = "{mobius}:quota:"  # its hash tag keeps every key in one slot of a Cluster
SCRIPT = files("proxy.store").joinpath("redis_quota.lua").read_text()
SHA = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

Words: TypeAlias = tuple[Any, ...]  # the name of an operation of the script, and its arguments


@dataclass(frozen=True, slots=True)
class Spans:
    """The times that owners and Redis go by; all processes at one Redis have the same."""

    recovery_s: float = 3.0  # in which owners find out that Redis came back empty
    owner_s: float = 15.0  # an owner that gave no sign of life for so long is taken for dead
    lease_s: float = 3600.0  # a dead owner's leases are kept so long: it may only be cut off
    beat_s: float = 1.0  # between signs of life
    batch_s: float = 0.1  # in which Redis is to answer one batch


SPANS = Spans()


@dataclass(frozen=True, slots=True)
class Moment:
    """When the script ran, by the clock of Redis."""

    at_us: int
    labels: Labels


@dataclass(slots=True, eq=False)
class Operation:
    """
    One step of the script, and who is told how it went: `done` or `failed`, once.

    `mirrored`: its effect is in what `resync` says, so that it is not to be sent after that, and
    nobody waits for it.
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
    """
    Asks one script of one Redis from `open` to `aclose`.

    `told` hears of ups and downs; `synced` is called whenever Redis knows all that `resync` said.
    """

    def __init__(
        self,
        client: Any,
        clock: Clock,
        *,
        owner: str,
        resync: Callable[[Labels], Iterable[Words]],
        told: Callable[[str | None], None],
        synced: Callable[[], None] = lambda: None,
        spans: Spans = SPANS,
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
        self._synced = synced
        self._batch_s = spans.batch_s
        self._spans = orjson.dumps(
            [int(each * US) for each in (spans.recovery_s, spans.owner_s, spans.lease_s)]
        )
        self._ahead_s = clock.wall() - clock.now()  # of Redis' clock over the monotonic one
        self._told_up: bool | None = None
        self._closing = self._listening = False
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
            while not self._task.done():
                # A cancellation may be lost in a connection that is being made.
                self._task.cancel()
                await asyncio.wait({self._task}, timeout=REST_S)
        self._told_up = False  # which is no news to anybody
        self._go_down("it is closed")
        with suppress(RedisError, OSError):
            await self._client.aclose()

    def wall(self) -> float:
        """Seconds since 1970 by the clock of Redis, as far as it was heard of."""
        return self._clock.now() + self._ahead_s

    def put(self, operation: Operation) -> None:
        """Have the operation sent with the next batch. Raises StoreUnavailable: it is not."""
        if not self.up:
            raise StoreUnavailable(self.trouble)
        self._queue.append(operation)
        self._wake.set()

    def tell(self, operation: Operation) -> None:
        """
        Have what is mirrored sent soon, unless `resync` is going to say it anyhow.

        Nobody waits for it: it is given a moment for something to travel with.
        """
        if not self._listening:
            return
        self._queue.append(operation)
        if len(self._queue) == 1:
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
        while not self._closing:
            try:
                await self._come_up()
                await self._serve()
            except OutOfStep:
                # Nothing was carried out, and what waits is sent again after the next `resync`.
                continue
            except Broken as exc:
                await self._rest(str(exc))
            except Exception as exc:  # of our own making: nobody is to wait for ever for that
                await self._rest(f"talking to Redis failed ({_said(exc)})")

    async def _rest(self, why: str) -> None:
        self._go_down(why)
        self._settled.set()
        await self._clock.sleep(REST_S)

    async def _come_up(self) -> None:
        """Have Redis know of this process exactly what the process knows itself."""
        self._session += 1
        self._sequence = 0
        with suppress(OutOfStep):  # which says the epoch, where it is another one
            await self._send("sync", [], self._batch_s if self.up else CONNECT_S)
        # What is mirrored so far is in the words below; what is told from here on comes after them.
        self._queue = deque(each for each in self._queue if not each.mirrored)
        self._listening = True
        *portions, last = _portions(self._resync(labels_at(self.wall())))
        if portions:
            # It takes a while, and nobody is to wait so long.
            self._fail("it is being told of all that this process has taken")
        for portion in portions:
            await self._send("sync", portion)
        self.up = True
        await self._send("synced", last)
        if self._told_up is False:
            self._told(None)
        self._told_up = True
        self._synced()
        if self._queue:
            self._wake.set()
        self._settled.set()

    async def _serve(self) -> None:
        while not self._closing:
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
            except BaseException as exc:
                self.trouble = str(exc) or self.trouble
                for each in batch:
                    each.failed()
                raise
            for each, result in zip(batch, results, strict=True):
                each.done(result, moment)

    async def _send(
        self, mode: str, words: Sequence[Words], timeout_s: float | None = None
    ) -> tuple[list[Any], Moment]:
        """Return the results. Raises OutOfStep, Broken."""
        timeout_s = timeout_s or self._batch_s
        arguments = (
            *(self.owner, self._session, self._sequence, self.epoch, mode),
            *(orjson.dumps(months_around(self.wall())), orjson.dumps(words), self._spans),
        )
        try:
            reply = await self._evaluate(arguments, timeout_s)
        except TimeoutError:
            raise Broken(f"Redis did not answer within {timeout_s:g} s") from None
        except (RedisError, OSError) as exc:
            raise Broken(f"Redis cannot be used ({_said(exc)})") from exc
        status, epoch, at_us, *rest = reply
        self.heard_s = self._clock.now()
        self._ahead_s = at_us / US - self.heard_s
        self.epoch = epoch.decode()
        if status != b"OK":
            raise OutOfStep(status.decode())
        labels = Labels(rest[0].decode(), rest[1].decode())
        return rest[2:], Moment(at_us, labels)

    async def _evaluate(self, arguments: tuple[Any, ...], timeout_s: float) -> Any:
        """Return the reply. Raises TimeoutError where it takes too long, however busy the loop."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            # The loop is given another moment after the time: it looks for replies before it looks
            # at clocks.
            late = loop.call_later(timeout_s, lambda: limit.reschedule(loop.time() + GRACE_S))
            try:
                return await self._client.evalsha(SHA, 1, PREFIX, *arguments)
            except NoScriptError:  # it was restarted
                return await self._client.eval(SCRIPT, 1, PREFIX, *arguments)
            finally:
                late.cancel()

    def _go_down(self, why: str) -> None:
        self._listening = False
        self._fail(why)
        if self._told_up is not False:
            self._told_up = False
            self._told(why)

    def _fail(self, why: str) -> None:
        """Be down, and have all that waits know it."""
        self.trouble, self.up = why, False
        waiting, self._queue = self._queue, deque()
        for each in waiting:
            each.failed()


def _portions(words: Iterable[Words]) -> list[list[Words]]:
    """Return what may go out in one batch each, in order; the last one may be empty."""
    portions: list[list[Words]] = [[]]
    weight = 0
    for each in words:
        weighs = 1 + sum(len(part) for part in each if isinstance(part, list)) // LIGHT_ENTRIES
        if portions[-1] and weight + weighs > MOST_OPERATIONS:
            portions.append([])
            weight = 0
        portions[-1].append(each)
        weight += weighs
    return portions


def _said(error: Exception) -> str:
    # Of the first words only: an address may hold a password, and a reply what was asked.
    return f"{type(error).__name__}: {str(error).split('.')[0][:100]}"
