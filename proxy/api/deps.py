"""What a route may ask for. The lifespan put it in the scope's state; nothing is global."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from starlette.types import Scope

from proxy.api.load import Drain
from proxy.clock import Clock
from proxy.everyone import Everyone
from proxy.log import Log
from proxy.numbers import Numbers
from proxy.policy import RingPolicy
from proxy.probes import Probe
from proxy.replies import ChunkStream, Reply
from proxy.routing import Plan
from proxy.snapshot import Snapshot
from proxy.store import UsageQuery, UsageReport
from proxy.types import Call, Caller, Ring, Tally


class Serves(Protocol):
    """The gateway, as far as the edge knows it."""

    async def serve(self, call: Call, caller: Caller, snapshot: Snapshot, tally: Tally) -> Reply:
        """Answer the call. Raises ProxyError; whoever reads a ChunkStream closes it."""
        ...


class Snapshots(Protocol):
    """Where the configuration comes from, and what became of the last edit of its file."""

    @property
    def current(self) -> Snapshot: ...
    @property
    def generation(self) -> int: ...
    @property
    def last_error(self) -> Exception | None:
        """What is wrong with the file, a line for each fault; None when it is in force."""
        ...


class Meters(Protocol):
    """The metrics that only the edge can count."""

    content_type: str

    def render(self, numbers: Numbers) -> bytes: ...
    def rejected(self, reason: str) -> None:
        """Count a request that never reached the gateway; `reason` is from a closed set."""
        ...


class UsageBook(Protocol):
    """Where it is written what was used."""

    async def report(self, query: UsageQuery) -> UsageReport:
        """Return a row for each group that used anything. Raises LedgerUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """What `/health` and `/ai/providers/health` say of one target."""

    label: str
    healthy: bool
    reason: str | None = None  # why not: open, cooling, unconfigured
    provider: str = "none"
    latency_s: float | None = None  # decaying average of the time to first content
    mocked: bool = False  # it asks no provider
    probe: Probe | None = None  # the last one


class Purge(Protocol):
    """The cache, as far as administrators are concerned."""

    async def __call__(self, *, key: str | None, model: str | None) -> int: ...


class Shelf(Protocol):
    """The responses that providers keep."""

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
        """Return what its provider says of it. Raises ProxyError."""
        ...

    async def follow(
        self, id: str, query: Sequence[tuple[str, str]], *, caller: Caller, snapshot: Snapshot
    ) -> ChunkStream:
        """Return its events. Raises ProxyError; whoever reads them closes them."""
        ...


class State(TypedDict):
    """Everything the lifespan owns and a request may use."""

    gateway: Serves
    snapshots: Snapshots
    metrics: Meters
    clock: Clock
    log: Log
    drain: Drain
    lanes: Callable[[], Mapping[str, str]]  # ready, loading or failed
    targets: Callable[[], Sequence[TargetHealth]]
    usage: UsageBook
    purge: Purge
    shelf: Shelf
    everyone: Everyone  # all processes that serve at this address
    explain: Callable[[Ring, RingPolicy], Plan]  # the order in which targets would be asked now


def state_of(scope: Scope) -> State:
    state: State = scope["state"]
    return state
