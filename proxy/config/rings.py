"""`model_list`, fallbacks and aliases → the rings of a Snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from proxy.config.names import nearest
from proxy.config.remarks import Place, shown
from proxy.config.sections import Reader
from proxy.config.settings import Settings
from proxy.config.source import Fields, Leaf, Tree
from proxy.config.targets import Above, Deployment, everything, read_deployment
from proxy.facts import Catalogue
from proxy.snapshot import Fallbacks, Wildcard, compose
from proxy.types import Group, Ring, Strategy, Target
from proxy.wildcard import matched

Table = dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Rings:
    """Everything a Snapshot knows about models."""

    rings: Mapping[str, Ring]
    wildcards: tuple[Wildcard, ...]
    fallbacks: Fallbacks
    hidden: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Alias:
    model: str
    hidden: bool
    place: Place


def read_rings(reader: Reader, settings: Settings, tree: Tree | None, above: Above) -> Rings:
    """Return the rings; names that lead nowhere are noted."""
    items = reader.items(tree, "model_list")
    written = frozenset(_names_in(items))
    read = (
        read_deployment(reader, each, above)
        for item in items
        for each in (item, *everything(reader, item, written))
    )
    deployments = [deployment for deployment in read if deployment is not None]
    groups, retries = _groups(deployments, settings.strategy())
    aliases = _read_aliases(reader, settings)
    names = _Names(reader, written | groups.keys(), frozenset(aliases))
    fallbacks = _read_fallbacks(settings, names)
    for name, alias in aliases.items():
        names.check(alias.model, alias.place, f"model_group_alias of {shown(name)}", aliases=False)
    return _compose(groups, retries, aliases, fallbacks, above.catalogue)


def _names_in(items: Iterable[Tree]) -> Iterator[str]:
    for item in items:
        leaf = item.entries.get("model_name") if isinstance(item, Fields) else None
        if isinstance(leaf, Leaf):
            yield leaf.text


def _groups(
    deployments: list[Deployment], strategy: Strategy
) -> tuple[dict[str, Group], dict[str, int]]:
    by_name: dict[str, list[Deployment]] = {}
    for deployment in deployments:
        by_name.setdefault(deployment.target.group, []).append(deployment)
    groups = {
        name: Group(name, _labelled(_ordered(members)), strategy)
        for name, members in by_name.items()
    }
    retries = {
        name: next((m.num_retries for m in members if m.num_retries is not None), None)
        for name, members in by_name.items()
    }
    return groups, {name: number for name, number in retries.items() if number is not None}


def _ordered(members: list[Deployment]) -> list[Target]:
    """Return the targets; where some have an `order`, those without one are asked after them."""
    orders = [member.target.order for member in members if member.has_order]
    last = max(orders, default=-1) + 1
    return [
        member.target if member.has_order or not orders else replace(member.target, order=last)
        for member in members
    ]


def _labelled(targets: list[Target]) -> tuple[Target, ...]:
    """Return the targets with labels that tell them apart: `#2` for the second of the same."""
    seen: dict[str, int] = {}
    labelled = []
    for target in targets:
        number = seen[target.label] = seen.get(target.label, 0) + 1
        label = target.label if number == 1 else f"{target.label}#{number}"
        labelled.append(replace(target, label=label))
    return tuple(labelled)


def _compose(
    groups: Mapping[str, Group],
    retries: Mapping[str, int],
    aliases: Mapping[str, _Alias],
    fallbacks: Fallbacks,
    catalogue: Catalogue,
) -> Rings:
    wildcards = tuple(
        sorted(
            (
                Wildcard(name, group, retries.get(name))
                for name, group in groups.items()
                if "*" in name
            ),
            key=lambda wildcard: wildcard.pattern.count("*") - len(wildcard.pattern),
        )
    )
    exact = {name: group for name, group in groups.items() if "*" not in name}

    meant = {
        name: compose(alias.model, exact=exact.get, wildcards=wildcards, catalogue=catalogue)
        for name, alias in aliases.items()
    }
    groups_of = {name: ring.groups[0] for name, ring in meant.items() if ring} | exact

    def ring(name: str, alias: str | None = None) -> Ring | None:
        return compose(
            name,
            exact=groups_of.get,
            wildcards=wildcards,
            fallbacks=fallbacks,
            alias=alias,
            num_retries=retries.get(name),
            catalogue=catalogue,
        )

    rings = {name: ring(name) for name in exact}
    shadowed = [name for name in aliases if name not in exact]
    rings |= {name: ring(aliases[name].model, alias=name) for name in shadowed}
    hidden = frozenset(name for name in shadowed if aliases[name].hidden)
    found = {name: each for name, each in rings.items() if each is not None}
    return Rings(found, wildcards, fallbacks, hidden)


def _read_aliases(reader: Reader, settings: Settings) -> dict[str, _Alias]:
    """Return what `model_group_alias` says: a name, or `{model: name, hidden: true}`."""
    aliases: dict[str, _Alias] = {}
    for tree, what in reversed(settings.each("model_group_alias")):
        fields = reader.fields(tree, what)
        for name, value in (fields.entries if fields else {}).items():
            label = f"{what}.{shown(name)}"
            hidden = False
            target: Tree | None = value
            if isinstance(value, Fields):
                target = value.entries.get("model")
                hidden = reader.switch(value.entries.get("hidden"), f"{label}.hidden") or False
            model = reader.name(target, label)
            if model is None:
                reader.findings.error(value.place, f"{label} takes the name of a model")
            else:
                aliases[name] = _Alias(model, hidden, value.place)
    return aliases


def _read_fallbacks(settings: Settings, names: _Names) -> Fallbacks:
    general = names.table(settings, "fallbacks")
    listed = [names.listed(tree, what) for tree, what in settings.each("default_fallbacks")]
    # LiteLLM writes a list for every model without one of its own as {"*": [...]}, too.
    default = next(iter(listed), general.get("*", ()) if "*" not in names.models else ())
    return Fallbacks(
        general={
            name: order for name, order in general.items() if name != "*" or "*" in names.models
        },
        default=default,
        oversized=names.table(settings, "context_window_fallbacks"),
        content=names.table(settings, "content_policy_fallbacks"),
    )


@dataclass(frozen=True, slots=True)
class _Names:
    """The public names of the file, those of entries with errors too."""

    reader: Reader
    models: frozenset[str]
    aliases: frozenset[str]

    def table(self, settings: Settings, name: str) -> Table:
        """Return one kind of fallbacks; for each model the list of router_settings wins."""
        table: Table = {}
        for tree, what in reversed(settings.each(name)):
            for model, order in self._rows(tree, what):
                table[model] = order
        return table

    def _rows(self, tree: Tree, what: str) -> Iterator[tuple[str, tuple[str, ...]]]:
        for item in self.reader.items(tree, what):
            fields = self.reader.fields(item, f"an entry of {what}")
            for model, order in (fields.entries if fields else {}).items():
                if model != "*":
                    self.check(model, fields.places[model] if fields else item.place, what)
                yield model, self.listed(order, f"{what} of {shown(model)}", model)

    def listed(self, tree: Tree, what: str, model: str = "") -> tuple[str, ...]:
        """Return the names of one list, each once, without those that lead nowhere."""
        found: dict[str, None] = {}
        for item in self.reader.items(tree, what):
            name = self._fallback(item, what)
            if name is not None and self._usable(name, model, item.place, what):
                found[name] = None
        return tuple(found)

    def _fallback(self, item: Tree, what: str) -> str | None:
        if not isinstance(item, Fields):
            return self.reader.name(item, what)
        # LiteLLM takes a mapping here, which may also replace the messages.
        for name, place in item.places.items():
            if name != "model":
                self.reader.findings.warn(place, f"{what}: Mobius does not act on {shown(name)}")
        if "model" not in item.entries:
            self.reader.findings.error(item.place, f"{what} takes names of models")
        return self.reader.name(item.entries.get("model"), what)

    def _usable(self, name: str, model: str, place: Place, what: str) -> bool:
        if "*" in name and name.count("*") > model.count("*"):
            self.reader.findings.error(
                place, f"{what}: {shown(name)} has more * than the name it stands for"
            )
            return False
        return self.check(name, place, what)

    def check(self, name: str, place: Place, what: str, *, aliases: bool = True) -> bool:
        """Say whether a name leads to a group; when it does not, that is noted."""
        known = self.models | self.aliases if aliases else self.models
        if name in known or any(matched(model, name) is not None for model in self.models):
            return True
        meant = nearest(name, known)
        hint = f"; the nearest name is {shown(meant)}" if meant else ""
        self.reader.findings.error(place, f"{what}: there is no model {shown(name)}{hint}")
        return False
