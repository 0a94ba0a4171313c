"""Hand-written stand-ins for what the edge is given, and a client that speaks ASGI itself."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from proxy.api.deps import State
from proxy.api.load import Drain
from proxy.api.routes import install
from proxy.everyone import Reloaded, Silent
from proxy.log import Log
from proxy.numbers import FamilyOf, Numbers
from proxy.owed import Owed
from proxy.policy import MobiusPolicy
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.routing import Plan
from proxy.snapshot import Snapshot
from proxy.store import UsageQuery, UsageReport, UsageRow
from proxy.types import Call, Caller, Group, Ring, Tally

CHAT: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: dict[str, Any] = {**CHAT, "stream": True}

Serve: TypeAlias = Callable[[Call, Tally], Awaitable[Reply]]


def sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def snapshot(*names: str, callers: dict[str, Caller] | None = None, **policy: object) -> Snapshot:
    """A configuration with these models; `callers` by their keys as they are sent."""
    return Snapshot(
        policy=MobiusPolicy.model_validate(policy),
        rings={name: Ring(name, (Group(name, ()),)) for name in names or ("gpt", "claude")},
        callers={sha256(key): caller for key, caller in (callers or {}).items()},
    )


class ManualClock:
    """Time passes when a test says so, and whoever sleeps wakes then."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_s = 1_800_000_000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._asleep = asyncio.Event()

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.wall_s

    async def sleep(self, seconds: float) -> None:
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + seconds, sleeper))
        self._asleep.set()
        await sleeper

    async def advance(self, seconds: float) -> None:
        """Let time pass as soon as somebody is waiting for it."""
        await self._asleep.wait()
        self.now_s += seconds
        for due_s, sleeper in self._sleepers:
            if due_s <= self.now_s and not sleeper.done():
                sleeper.set_result(None)
        self._sleepers = [each for each in self._sleepers if not each[1].done()]
        if not self._sleepers:
            self._asleep.clear()


@dataclass
class FakeGateway:
    """Answers with `script`, and remembers what it was asked."""

    script: Serve
    calls: list[Call] = field(default_factory=list)
    callers: list[str] = field(default_factory=list)

    async def serve(self, call: Call, caller: Caller, snapshot: Snapshot, tally: Tally) -> Reply:
        self.calls.append(call)
        self.callers.append(caller.name)
        return await self.script(call, tally)


@dataclass
class FakeSnapshots:
    current: Snapshot
    generation: int = 3
    last_error: Exception | None = None
    result: str = "ok"
    reloads: int = 0

    async def reload(self) -> str:
        self.reloads += 1
        return self.result


@dataclass
class FakeMeters:
    content_type: str = "text/plain; version=1.0.0; charset=utf-8"
    reasons: list[str] = field(default_factory=list)

    def render(self, numbers: Numbers) -> bytes:
        return b"mobius_up %d\n" % sum(sum(family.samples.values()) for family in numbers)

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


@dataclass
class FakeBook:
    """Knows these rows, or why it knows nothing, and remembers what it was asked."""

    rows: list[UsageRow] = field(default_factory=list)
    trouble: Exception | None = None
    replicas: int = 1
    note: str = ""
    asked: list[UsageQuery] = field(default_factory=list)

    async def report(self, query: UsageQuery) -> UsageReport:
        self.asked.append(query)
        if self.trouble is not None:
            raise self.trouble
        return UsageReport(self.rows, self.replicas, self.note)


UP = FamilyOf("mobius_up", "gauge", "", {("mobius_up", ()): 1})


@dataclass
class FakeEveryone:
    """One process with a number; or nobody who answers, for this reason."""

    snapshots: FakeSnapshots
    silent: str = ""

    async def numbers(self) -> Numbers:
        if self.silent:
            raise Silent(self.silent)
        return (UP,)

    async def reload(self) -> Reloaded:
        if self.silent:
            raise Silent(self.silent)
        error = self.snapshots.last_error
        result = await self.snapshots.reload()
        return Reloaded(result, str(error) if error else None, self.snapshots.generation)


class Upstream:
    """A stream's source: emits what it is given, breaks as it is told, and notes its closing."""

    def __init__(self, *steps: bytes | Exception | asyncio.Event) -> None:
        self._steps = steps
        self.silent = asyncio.Event()  # it waits for an event that nobody may ever set
        self.closed = 0
        self.settled = 0
        self.settles = asyncio.Event()  # settlement has begun
        self.settling: asyncio.Event | None = None  # it waits for this
        self.stream = ChunkStream([], self._chunks()).owe(self._owed())

    async def _chunks(self) -> AsyncGenerator[Chunk, None]:
        try:
            for step in self._steps:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    self.silent.set()
                    await step.wait()
                else:
                    yield Chunk.of_payloads([step])
        finally:
            self.closed += 1

    def _owed(self) -> Owed:
        owed = Owed()
        owed.push_async_callback(self._settle)
        return owed

    async def _settle(self) -> None:
        self.settles.set()
        if self.settling is not None:
            await self.settling.wait()
        self.settled += 1


@dataclass
class Edge:
    """The edge with everything behind it faked."""

    script: Serve
    configured: Snapshot = field(default_factory=snapshot)
    clock: ManualClock = field(default_factory=ManualClock)
    meters: FakeMeters = field(default_factory=FakeMeters)
    log_lines: list[bytes] = field(default_factory=list)
    book: FakeBook = field(default_factory=FakeBook)

    purged: list[tuple[str | None, str | None]] = field(default_factory=list)

    async def purge(self, *, key: str | None, model: str | None) -> int:
        self.purged.append((key, model))
        return 3

    shelved: list[tuple[Any, ...]] = field(default_factory=list)
    shelf_error: Exception | None = None
    followed: Upstream = field(default_factory=Upstream)

    async def ask(
        self,
        method: str,
        id: str,
        below: Sequence[str],
        query: Sequence[tuple[str, str]],
        *,
        caller: Caller,
        snapshot: Snapshot,
    ) -> bytes:
        """What a provider keeps: always the same response."""
        self.shelved.append((method, id, tuple(below), tuple(query), caller.name))
        if self.shelf_error is not None:
            raise self.shelf_error
        return b'{"id": "resp_1"}'

    async def follow(
        self, id: str, query: Sequence[tuple[str, str]], *, caller: Caller, snapshot: Snapshot
    ) -> ChunkStream:
        """The events of the same response."""
        self.shelved.append(("follow", id, (), tuple(query), caller.name))
        if self.shelf_error is not None:
            raise self.shelf_error
        return self.followed.stream

    def __post_init__(self) -> None:
        self.gateway = FakeGateway(self.script)
        self.snapshots = FakeSnapshots(self.configured)
        self.everyone = FakeEveryone(self.snapshots)
        self.drain = Drain(chance=lambda: 0.5)
        self.state = State(
            gateway=self.gateway,
            snapshots=self.snapshots,
            metrics=self.meters,
            clock=self.clock,
            log=Log(self.log_lines.append, self.clock),
            drain=self.drain,
            lanes=lambda: {"unified": "ready"},
            targets=lambda: (),
            usage=self.book,
            purge=self.purge,
            shelf=self,
            everyone=self.everyone,
            explain=lambda ring, policy: Plan(()),
        )

    @property
    def app(self) -> ASGIApp:
        application = FastAPI(openapi_url=None)
        install(application)

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = self.state
            await application(scope, receive, send)

        return with_state

    def post(self, body: object = CHAT, **headers: str) -> Client:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return Client(self.app, pieces=[raw], headers=headers)

    def get(self, path: str, method: str = "GET", **headers: str) -> Client:
        path, _, query = path.partition("?")
        return Client(self.app, path=path, method=method, query=query, headers=headers)


class Client:
    """One request over ASGI, whose body, patience and departure a test decides on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        path: str = "/v1/chat/completions",
        method: str = "POST",
        query: str = "",
        headers: dict[str, str] | None = None,
        pieces: Iterable[bytes] = (b"",),
    ) -> None:
        self.sent: list[Message] = []
        self.on_send: Callable[[Message], Awaitable[None]] | None = None
        self._app = app
        self._pieces = list(pieces)
        self._left = asyncio.Event()
        self._arrived = asyncio.Condition()
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (name.replace("_", "-").encode(), value.encode())
                for name, value in (headers or {}).items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 4000),
        }

    async def run(self) -> Client:
        """Have the request served to its end; nothing that it started goes on after it."""
        before = asyncio.all_tasks()
        await self._app(self._scope, self._receive, self._send)
        assert asyncio.all_tasks() <= before
        return self

    def start(self) -> asyncio.Task[Client]:
        return asyncio.create_task(self.run())

    def leave(self) -> None:
        self._left.set()

    async def has(self, count: int) -> None:
        """Wait until so many messages have arrived."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.sent) >= count)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.sent[0]["headers"]}

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    @property
    def json(self) -> Any:
        return orjson.loads(b"".join(self.bodies))

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error

    async def _receive(self) -> Message:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.on_send is not None:
            await self.on_send(message)
        self.sent.append(message)
        async with self._arrived:
            self._arrived.notify_all()


def replies(reply: Reply) -> Serve:
    async def serve(call: Call, tally: Tally) -> Reply:
        return reply

    return serve


def fails(error: Exception) -> Serve:
    async def serve(call: Call, tally: Tally) -> Reply:
        raise error

    return serve


def events(bodies: Sequence[bytes]) -> list[Any]:
    """The JSON of each event among the frames."""
    lines = b"".join(bodies).split(b"\n")
    return [orjson.loads(line[6:]) for line in lines if line.startswith(b"data: {")]


COMPLETION = Completion(b'{"id":"x","choices":[]}')
