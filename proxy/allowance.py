"""Which limits of the file a request stands under: its key's, team's, user's and model's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from proxy.limits import NANO, Limit, Scope, ScopeKind, Unit, Window
from proxy.policy import BudgetUsd, Limits
from proxy.types import Caller
from proxy.wildcard import fits

DEFAULT_USER = "default"  # in `mobius.users`: whoever has no entry of its own

_COUNTED = (
    ("rpm", Unit.REQUESTS, Window.MINUTE),
    ("rpd", Unit.REQUESTS, Window.DAY),
    ("max_parallel", Unit.PARALLEL, Window.NOW),
    ("tpm", Unit.TOKENS, Window.MINUTE),
    ("tpd", Unit.TOKENS, Window.DAY),
)
_BUDGETS = (("day", Window.DAY), ("month", Window.MONTH), ("total", Window.TOTAL))


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one request stands under."""

    scopes: tuple[Scope, ...]  # for whom it counts
    admission: tuple[Limit, ...] = ()  # of REQUESTS and PARALLEL: once for each request
    spending: tuple[Limit, ...] = ()  # of TOKENS and NANO_USD: for each attempt
    most_tokens: tuple[Scope, int] | None = None  # the least `max_tokens_per_request`
    has_budget: bool = False  # there is one of NANO_USD among them


@dataclass(frozen=True, slots=True)
class Allowances:
    """The limits of the whole file."""

    keys: Mapping[str, Limits] = field(default_factory=dict)
    teams: Mapping[str, Limits] = field(default_factory=dict)
    users: Mapping[str, Limits] = field(default_factory=dict)
    models: Mapping[str, Limits] = field(default_factory=dict)  # names, or patterns as `claude-*`

    def of(self, caller: Caller, *, user: str | None, model: str) -> Allowance:
        """Return the limits of a request for the public name `model`, made for the end `user`."""
        written = tuple(self._written(caller, user, model))
        limits = tuple(limit for scope, own in written if own for limit in limits_of(scope, own))
        return Allowance(
            scopes=tuple(scope for scope, _ in written),
            admission=tuple(x for x in limits if x.unit in {Unit.REQUESTS, Unit.PARALLEL}),
            spending=tuple(x for x in limits if x.unit in {Unit.TOKENS, Unit.NANO_USD}),
            most_tokens=_least(written),
            has_budget=any(limit.unit is Unit.NANO_USD for limit in limits),
        )

    def configured(self) -> tuple[Limit, ...]:
        """Return every limit whose scope the file names: few enough to be watched."""
        tables = (
            (ScopeKind.KEY, self.keys),
            (ScopeKind.TEAM, self.teams),
            (ScopeKind.MODEL, self.models),
        )
        return tuple(
            limit
            for kind, table in tables
            for name, written in table.items()
            for limit in limits_of(Scope(kind, name), written)
        )

    @property
    def any(self) -> bool:
        """Say whether the file limits anybody."""
        return any((self.keys, self.teams, self.users, self.models))

    def _written(
        self, caller: Caller, user: str | None, model: str
    ) -> Iterator[tuple[Scope, Limits | None]]:
        yield Scope(ScopeKind.KEY, caller.name), self.keys.get(caller.name)
        if caller.team is not None:
            yield Scope(ScopeKind.TEAM, caller.team), self.teams.get(caller.team)
        if user is not None:
            own = self.users.get(user) or self.users.get(DEFAULT_USER)
            yield Scope(ScopeKind.USER, user), own
        # A pattern limits all that match it together, so it is a scope of its own.
        yield Scope(ScopeKind.MODEL, model), self.models.get(model)
        for pattern, written in self.models.items():
            if pattern != model and fits(model, pattern):
                yield Scope(ScopeKind.MODEL, pattern), written


def limits_of(scope: Scope, written: Limits) -> tuple[Limit, ...]:
    """Return what a `limits:` section says about one scope."""
    counted = (
        Limit(scope, unit, window, most, word)
        for word, unit, window in _COUNTED
        if (most := getattr(written, word)) is not None
    )
    budget = written.budget_usd or BudgetUsd()
    money = (
        Limit(scope, Unit.NANO_USD, window, round(most * NANO), f"budget_usd.{word}")
        for word, window in _BUDGETS
        if (most := getattr(budget, word)) is not None
    )
    return (*counted, *money)


def _least(written: Iterable[tuple[Scope, Limits | None]]) -> tuple[Scope, int] | None:
    found = (
        (scope, limits.max_tokens_per_request)
        for scope, limits in written
        if limits is not None and limits.max_tokens_per_request is not None
    )
    return min(found, key=lambda pair: pair[1], default=None)
