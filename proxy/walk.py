"""One request on its way round the ring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from proxy.admission import Admission
from proxy.errors import UpstreamFailure
from proxy.leeway import Need
from proxy.policy import RingPolicy
from proxy.retry import Kind
from proxy.routing import Plan
from proxy.types import Call, Ring, Tally, Target


@dataclass(slots=True)
class Walk:
    """One request's way round the ring: what it was given, and what it has met so far."""

    call: Call
    ring: Ring
    policy: RingPolicy
    tally: Tally
    admission: Admission
    needs: Callable[[Target], Need]
    could_not: Callable[[Target], str | None]  # why a target surely cannot answer
    deadline_s: float
    turn: int
    plan: Plan
    failures: dict[str, UpstreamFailure] = field(default_factory=dict)  # the last of each target
    first_asked: str | None = None  # the provider whose dialect the caller surely speaks
    done: set[str] = field(default_factory=set)  # identities that cannot answer this request
    silent: set[str] = field(default_factory=set)  # identities that have had their chance
    turned: set[Kind] = field(default_factory=set)  # failures whose own fallbacks were turned to
    exhausted: bool = False  # time ran out
    may_hedge: bool | None = None  # be asked of two at once; None: nobody has looked yet
    racing: bool = False  # two are asked
    beside: tuple[tuple[Target, UpstreamFailure], ...] = ()  # asked beside one, and failed

    @property
    def everybody(self) -> tuple[Target, ...]:
        """Every target this request may come to, those of the special fallbacks too."""
        groups = (*self.ring.groups, *self.ring.oversized, *self.ring.content)
        return tuple(target for group in groups for target in group.targets)

    def may_answer(self, target: Target) -> bool:
        return target.identity not in self.done | self.silent
