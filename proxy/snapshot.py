"""
One frozen view of the configuration: who may ask, which rings there are, by which policy.

A request takes it once and keeps it to its end, so an edit of the file never changes a request
half-way. Nothing in here waits, and nothing in here can be changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from proxy.allowance import Allowances
from proxy.caching import Caching
from proxy.facts import Catalogue, EmptyCatalogue
from proxy.policy import MobiusPolicy
from proxy.types import Caller, Group, Lane, Ring, Target
from proxy.wildcard import filled, matched

LONGEST_NAME = 512  # characters of a public name that a wildcard may match
# With these a part of a name would be more than a part of a URL's path once a model stands in one.
STEERING = frozenset("?#%\\")
# LiteLLM takes these off the front of a model's name, and calls another endpoint for it.
TURNS = ("responses/", "o_series/", "gpt5_series/")
NOTHING_KNOWN = EmptyCatalogue()
NO_LIMITS = Allowances()
NO_CACHE = Caching()


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Which names are asked after a name, by kind of failure. Not transitive."""

    general: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    default: tuple[str, ...] = ()  # for every model without a list of its own
    oversized: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    content: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A group whose name holds `*`: it stands for every public name that matches."""

    pattern: str
    group: Group  # the models of its targets may hold `*` too
    num_retries: int | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What the service is at one moment. `rings` holds exact names and aliases.

    `generation` is the reloader's count of the snapshots that were put in place.
    """

    policy: MobiusPolicy = field(default_factory=MobiusPolicy)
    rings: Mapping[str, Ring] = field(default_factory=dict)
    wildcards: tuple[Wildcard, ...] = ()  # the most specific first
    fallbacks: Fallbacks = Fallbacks()
    hidden: frozenset[str] = frozenset()  # aliases that answer but are not listed
    callers: Mapping[str, Caller] = field(default_factory=dict)  # by the SHA-256 of the key, hex
    allowances: Allowances = NO_LIMITS
    caching: Caching = NO_CACHE
    catalogue: Catalogue = NOTHING_KNOWN  # for models whose names only a request knows
    generation: int = 0

    def ring(self, model: str) -> Ring | None:
        """Return the ring of a public name: exact or alias first, then the closest wildcard."""
        ring = self.rings.get(model)
        if ring is not None or not self.wildcards:
            return ring
        return compose(
            model,
            exact=self._group,
            wildcards=self.wildcards,
            fallbacks=self.fallbacks,
            catalogue=self.catalogue,
        )

    def models(self) -> tuple[str, ...]:
        """Return the names that can be listed: no wildcard, no hidden alias."""
        return tuple(name for name in self.rings if name not in self.hidden)

    def targets(self) -> tuple[Target, ...]:
        """Return every target of the file once, those of wildcards with their `*` still in them."""
        groups = [ring.groups[0] for ring in self.rings.values()]
        groups += [wildcard.group for wildcard in self.wildcards]
        return tuple({t.label: t for group in groups for t in group.targets}.values())

    def needs_litellm(self) -> bool:
        """Say whether a request may come to something that only LiteLLM knows."""
        targets = self.targets()
        # What a request was written for, another provider's model may not understand.
        return len({target.provider for target in targets}) > 1 or any(
            target.lane is not Lane.DIRECT
            or target.responses is Lane.AS_CHAT
            or target.drop_params
            or target.params.get("additional_drop_params")
            for target in targets
        )

    def _group(self, name: str) -> Group | None:
        ring = self.rings.get(name)
        return ring.groups[0] if ring else None


def compose(
    name: str,
    *,
    exact: Callable[[str], Group | None],
    wildcards: tuple[Wildcard, ...] = (),
    fallbacks: Fallbacks = Fallbacks(),
    alias: str | None = None,
    num_retries: int | None = None,
    catalogue: Catalogue = NOTHING_KNOWN,
) -> Ring | None:
    """
    Return the ring of `name`: its own group, then what it falls back to, no group twice.

    A list of fallbacks is looked up under the alias that was asked for, under the name, and under
    the wildcard that matched. None when nothing answers to the name.
    """
    own, wildcard, parts = _find(name, exact, wildcards, catalogue)
    if own is None:
        return None
    names = (*((alias,) if alias else ()), name, *((wildcard.pattern,) if wildcard else ()))

    def groups(table: Mapping[str, tuple[str, ...]], default: tuple[str, ...]) -> list[Group]:
        order = next((table[key] for key in names if key in table), default)
        found = [_find(filled(each, parts), exact, wildcards, catalogue)[0] for each in order]
        return _others(own, found)

    return Ring(
        model=alias or name,
        groups=(own, *groups(fallbacks.general, fallbacks.default)),
        oversized=tuple(groups(fallbacks.oversized, ())),
        content=tuple(groups(fallbacks.content, ())),
        num_retries=wildcard.num_retries if wildcard else num_retries,
        pattern=wildcard.pattern if wildcard else None,
    )


def _find(
    name: str,
    exact: Callable[[str], Group | None],
    wildcards: tuple[Wildcard, ...],
    catalogue: Catalogue,
) -> tuple[Group | None, Wildcard | None, tuple[str, ...]]:
    """Return the group behind a name; with it the wildcard that matched and what `*` stood for."""
    group = exact(name)
    # A name with a control character in it would end up in headers and logs.
    if group is not None or len(name) > LONGEST_NAME or not name.isprintable():
        return group, None, ()
    for wildcard in wildcards:
        parts = matched(wildcard.pattern, name)
        if parts is None or not all(map(_stays_in_place, parts)):
            continue
        if any(_turns(target.model, parts) for target in wildcard.group.targets):
            break
        targets = tuple(
            _concrete(target, name, parts, catalogue) for target in wildcard.group.targets
        )
        if all(target.model and not target.model.endswith("/") for target in targets):
            return replace(wildcard.group, name=name, targets=targets), wildcard, parts
    return None, None, ()


def _turns(template: str, parts: tuple[str, ...]) -> bool:
    """Say whether a stranger's parts make LiteLLM call another endpoint than the file's."""
    return template.startswith("*") and filled(template, parts).startswith(TURNS)


def _stays_in_place(part: str) -> bool:
    """Say whether a stranger's part of a model's name leads nowhere else when it is in a URL."""
    if ".." in part or any(c in STEERING or c.isspace() for c in part):
        return False
    return not part or not {"", "."} & set(part.split("/"))


def _others(own: Group, found: list[Group | None]) -> list[Group]:
    return [g for name, g in {g.name: g for g in found if g}.items() if name != own.name]


def is_at(target: Target, written: Target) -> bool:
    """Say whether a target is the deployment that a file writes, whose model may hold `*`."""
    if "*" in written.model:
        return target.credential == written.credential
    return target.identity == written.identity


def identity_of(credential: str, model: str) -> str:
    """Return what a target's health is kept under: its place and key (`credential`), its model."""
    return hashlib.sha256(f"{credential}\0{model}".encode()).hexdigest()[:24]


def _concrete(target: Target, name: str, parts: tuple[str, ...], catalogue: Catalogue) -> Target:
    # The label keeps its `*`: labels become metric series, and names under a wildcard are endless.
    if "*" not in target.model:
        return target
    # More parts than places cannot be mapped; LiteLLM then takes the name as it was asked for.
    model = name if len(parts) > target.model.count("*") else filled(target.model, parts)
    return replace(
        target,
        model=model,
        identity=identity_of(target.credential, model),
        facts=catalogue.find(target.provider, model, target.stated),
    )
