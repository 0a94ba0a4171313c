"""Hand-written stand-ins for time and the model, and a whole gateway that stands on them."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import orjson

from proxy import sse
from proxy.allowance import Allowances
from proxy.attempts import Attempts
from proxy.errors import UpstreamFailure
from proxy.gateway import Gateway
from proxy.grammar import GRAMMARS
from proxy.headroom import Headroom
from proxy.health import Health
from proxy.leeway import Leeway
from proxy.limits import Scope, Unit
from proxy.log import Log
from proxy.metrics import Metrics
from proxy.policy import MobiusPolicy
from proxy.quota import Quota
from proxy.replies import Chunk, ChunkStream, Completion, Reply
from proxy.resume import Resume
from proxy.retry import Kind
from proxy.snapshot import Snapshot
from proxy.store import Closed, LedgerUnavailable, Opened
from proxy.store.memory import MemoryStore
from proxy.store.port import QuotaStore
from proxy.types import (
    Call,
    Caller,
    Group,
    Json,
    Ring,
    Strategy,
    Surface,
    Tally,
    Target,
    TargetTimeouts,
    Wishes,
)
from proxy.upstream.stream import Progress, Waits, begin
from proxy.waiting import Waiting

ANYBODY = Caller("web")
UNLIMITED = Allowances()


REQUEST_ID = "req-1"


class FakeClock:
    """Time passes when somebody sleeps, or when a test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.wall_s = 1_800_000_000.0
        self.slept: list[float] = []
        self.turns = 0  # of the loop, in which others may go on while somebody sleeps
        self.meanwhile: Callable[[], Awaitable[object]] | None = None  # once, in the next sleep

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.wall_s

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.pass_(seconds)


@dataclass(frozen=True)
class Fails:
    """A failure with facts; a bare Kind stands for one without."""

    kind: Kind
    status: int | None = None
    retry_after_s: float | None = None
    message: str | None = None
    code: str | None = None
    type: str | None = None

    def failure(self) -> UpstreamFailure:
        return UpstreamFailure(
            f"scripted: {self.kind}",
            kind=self.kind,
            provider_status=self.status,
            provider_message=self.message,
            provider_code=self.code,
            provider_type=self.type,
            retry_after_s=self.retry_after_s,
        )


def limited(retry_after_s: float | None = None, message: str = "slow down") -> Fails:
    return Fails(Kind.RATE_LIMITED, 429, retry_after_s, message, "rate_limit_exceeded")


@dataclass(frozen=True)
class Passes:
    """So many seconds pass before what follows."""

    seconds: float


@dataclass
class Gate:
    """A place where the target waits until the test opens it."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_(self) -> None:
        self.reached.set()
        await self.opened.wait()

    async def cancel(self, work: Coroutine[Any, Any, object]) -> None:
        """Cancel `work` once it waits here, and wait until it has ended by that."""
        task = asyncio.create_task(work)
        await self.reached.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


@dataclass(frozen=True)
class States:
    """What the provider states of its own limits, beside the answer or the failure."""

    step: Any  # a Script
    leeways: tuple[Leeway, ...]


# A piece of a stream: an event, one read that brings several, or what happens instead.
Piece: TypeAlias = Kind | Fails | Exception | Passes | Gate | Json | bytes | Sequence[Json | bytes]
# One answer: a Kind fails, a dict completes, a list streams and may break; a tuple does the
# waiting in front first.
Script: TypeAlias = Kind | Fails | States | Json | list[Any] | tuple[Any, ...]


class Source:
    """A stream as a lane reads it, a chunk per piece; it notes what is read, and its closing."""

    def __init__(self, pieces: Iterable[Piece], clock: FakeClock) -> None:
        self._pieces = pieces
        self._clock = clock
        self.given = 0
        self.closed = 0

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        try:
            for piece in self._pieces:
                if await _waited(piece, self._clock):
                    continue
                if isinstance(piece, Kind | Fails | Exception):
                    raise _failure(piece)
                self.given += 1
                yield _chunk(piece)
        finally:
            self.closed += 1


async def _waited(piece: object, clock: FakeClock) -> bool:
    match piece:
        case Passes(seconds):
            clock.pass_(seconds)
        case Gate():
            await piece.pass_()
        case _:
            return False
    return True


def _failure(piece: Kind | Fails | Exception) -> Exception:
    match piece:
        case Kind():
            return Fails(piece).failure()
        case Fails():
            return piece.failure()
        case _:
            return piece


def _chunk(piece: object) -> Chunk:
    events = piece if isinstance(piece, list) else [piece]
    payloads = [each if isinstance(each, bytes) else orjson.dumps(each) for each in events]
    return Chunk.of_payloads(payloads)


@dataclass(frozen=True)
class Asked:
    """One physical call, as the target saw it."""

    target: Target
    call: Call = field(repr=False)
    foreign: bool


class FakeUpstream:
    """Plays a script per target label, and remembers whom it was asked for, in order."""

    def __init__(self, scripts: Mapping[str, Iterable[Script]], clock: FakeClock) -> None:
        self._scripts: dict[str, Iterator[Script]] = {
            label: iter(steps) for label, steps in scripts.items()
        }
        self._clock = clock
        self.calls: list[Asked] = []
        self.sources: list[Source] = []

    @property
    def asked(self) -> list[str]:
        return [each.target.label for each in self.calls]

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        self.calls.append(Asked(target, call, foreign))
        step = next(self._scripts.get(target.label, iter(())), None)
        if step is None:
            raise AssertionError(f"{target.label} was not expected to be asked again")
        while isinstance(step, tuple):
            waits, step = step[:-1], step[-1]
            for wait in waits:
                await _waited(wait, self._clock)
        if isinstance(step, States):
            return await self._stating(step, target, call)
        return await self._played(step, target, call)

    async def _stating(self, states: States, target: Target, call: Call) -> Reply:
        try:
            reply = await self._played(states.step, target, call)
        except UpstreamFailure as failure:
            failure.leeways = states.leeways
            raise
        reply.leeways = states.leeways
        return reply

    async def _played(self, step: object, target: Target, call: Call) -> Reply:
        if isinstance(step, Kind | Fails):
            raise _failure(step)
        if isinstance(step, list):
            return await self._stream(step, target, call)
        body = cast("Json", step)
        return Completion(orjson.dumps(body), body)

    async def _stream(self, pieces: list[Piece], target: Target, call: Call) -> ChunkStream:
        source = Source(pieces, self._clock)
        self.sources.append(source)
        return await begin(
            source.chunks(),
            Progress(
                GRAMMARS[Surface.CHAT], choices=call.body.get("n", 1), wants_usage=call.wants_usage
            ),
            target.timeouts,
            self._clock,
            headers={},
            dropped=(),
            waits=Waits(usage_s=0.02, done_s=0.01),
        )


def target(label: str, **facts: Any) -> Target:
    """A target of which only the label matters, but for what is said about it."""
    return Target(
        **{
            "label": label,
            "group": "m",
            "provider": "openai",
            "model": label,
            "identity": f"identity of {label}",
            "credential": f"credential of {label}",
            "timeouts": TargetTimeouts(),
            **facts,
        }
    )


def group(name: str, *targets: Target | str, strategy: Strategy = Strategy.HEALTH_BASED) -> Group:
    members = (target(each) if isinstance(each, str) else each for each in targets)
    return Group(name, tuple(members), strategy)


def ring(*targets: Target | str, **facts: Any) -> Ring:
    """The ring of the model `m`: one group, and what is said about it."""
    return Ring("m", (group("m", *targets),), **facts)


def ask(*, model: str = "m", stream: bool = False, n: int = 1, **facts: Any) -> Call:
    wishes = Wishes(**facts.pop("wishes", {}))
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "the prompt"}],
        "n": n,
        **facts.pop("body", {}),
    }
    return Call(model, stream, body, wishes=wishes, **facts)


def answer(prompt_tokens: int = 7, completion_tokens: int = 3, **usage: Any) -> Json:
    return {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "t0"}, "finish_reason": "stop"}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            **usage,
        },
    }


def delta(text: str, index: int = 0) -> Json:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}


def role(index: int = 0) -> Json:
    delta = {"role": "assistant", "content": ""}
    return {"choices": [{"index": index, "delta": delta, "finish_reason": None}]}


def finish(index: int = 0, reason: str = "stop") -> Json:
    return {"choices": [{"index": index, "delta": {}, "finish_reason": reason}]}


def usage(prompt_tokens: int = 7, completion_tokens: int = 3) -> Json:
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return {"choices": [], "usage": counts}


def sent(chunks: Iterable[Chunk]) -> list[Json]:
    """What a client reads out of the bytes of these chunks."""
    reader = sse.Reader()
    return [orjson.loads(event.data) for chunk in chunks for event in reader.feed(chunk.raw)]


class FakeLedger:
    """Keeps the rows in a list, in the order they came; `broken` refuses those of new attempts."""

    def __init__(self) -> None:
        self.opened: list[Opened] = []
        self.closed: list[Closed] = []
        self.admitted: list[str] = []  # the keys of requests, one for each that was let in
        self.past = 0  # used of everything, before all that is here
        self.broken = False

    async def open(self, row: Opened, *, admitted: bool) -> None:
        if self.broken:
            raise LedgerUnavailable("the disk is full")
        self.opened.append(row)
        if admitted:
            self.admitted.append(row.key)

    async def close(self, row: Closed) -> None:
        self.closed.append(row)

    def admit(self, *, key: str, team: str, user: str, model: str, at: float) -> None:
        self.admitted.append(key)

    async def used(self, scope: Scope, unit: Unit, *, since: float) -> int:
        return self.past

    async def recent(self, scope: Scope, unit: Unit, *, since: float) -> list[tuple[float, int]]:
        return []


class Bench:
    """A whole gateway on fakes, with its insides in reach. The model `m` has one group."""

    def __init__(
        self,
        scripts: Mapping[str, Iterable[Script]],
        *,
        ring: Ring | None = None,
        others: Sequence[Ring] = (),
        chance: Callable[[], float] = lambda: 0.5,
        allowances: Allowances = UNLIMITED,
        **policy: object,
    ) -> None:
        self.clock = FakeClock()
        self.upstream = FakeUpstream(scripts, self.clock)
        self.health = Health(self.clock)
        self.metrics = Metrics(self.clock)
        self.log_lines: list[bytes] = []
        self.policy = MobiusPolicy.model_validate(policy)
        self.ring = ring or Ring("m", (group("m", *scripts),))
        self.ledger = FakeLedger()
        self.headroom = Headroom(self.clock)
        self.allowances = allowances
        self._chance = chance
        self.use(MemoryStore(self.clock, self.ledger))
        self.rings = {each.model: each for each in (self.ring, *others)}
        self.tally = Tally("req-1", Surface.CHAT, "unknown", False, 0.0)

    def use(self, store: QuotaStore) -> None:
        """Count from here on in this store."""
        self.store = store
        self.quota = Quota(store, self.ledger, self.metrics, self.headroom)
        self.attempts = Attempts(
            self.upstream,
            self.health,
            self.metrics,
            self.quota,
            headroom=self.headroom,
            clock=self.clock,
            chance=self._chance,
        )
        self.gateway = Gateway(
            attempts=self.attempts,
            resume=Resume(self.attempts, self.metrics, self.clock),
            quota=self.quota,
            metrics=self.metrics,
            log=Log(self.log_lines.append, self.clock),
        )

    @property
    def asked(self) -> list[str]:
        return self.upstream.asked

    async def run(self, call: Call | None = None) -> Reply:
        """Go round the ring, without the gateway in front of it."""
        call = call or ask()
        self.tally = Tally(REQUEST_ID, call.surface, "m", call.stream, self.clock.now())
        async with self.quota.admit(call, ANYBODY, self._snapshot(), self.tally) as admission:
            return await self.attempts.run(self.ring, admission, self.policy)

    async def serve(self, call: Call | None = None, caller: Caller = ANYBODY) -> Reply:
        call = call or ask()
        self.tally = Tally(
            REQUEST_ID,
            call.surface,
            "unknown",
            call.stream,
            self.clock.now(),
            caller=caller.name,
        )
        return await self.gateway.serve(call, caller, self._snapshot(), self.tally)

    def _snapshot(self) -> Snapshot:
        return Snapshot(policy=self.policy, rings=self.rings, allowances=self.allowances)

    async def read(self, call: Call | None = None) -> list[Json]:
        """Read a stream to its end, and return what its client saw."""
        reply = await self.serve(call or ask(stream=True))
        assert isinstance(reply, ChunkStream)
        try:
            return sent([chunk async for chunk in reply])
        finally:
            await reply.aclose()

    def away_s(self, label: str) -> float:
        """How long the target rests from now."""
        return self.health.standing(self._target(label), self.policy).away_s

    def blamed(self, label: str) -> bool:
        """Say whether the breaker of a target has heard of a failure."""
        return bool(self.health.record(self._target(label), self.policy).breaker._streak)

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series of one sample name."""
        return [
            (sample.labels, sample.value)
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == name
        ]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum over the series with these labels."""
        return sum(value for found, value in self.samples(name) if labels.items() <= found.items())

    def _target(self, label: str) -> Target:
        groups = [
            each
            for ring in self.rings.values()
            for each in (*ring.groups, *ring.oversized, *ring.content)
        ]
        return next(t for each in groups for t in each.targets if t.label == label)
