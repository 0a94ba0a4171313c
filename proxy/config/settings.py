"""
`router_settings`, `litellm_settings` and `general_settings`: what of them Mobius acts on.

A setting may stand in either of the first two; `router_settings` wins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from proxy.config.names import GENERAL, SECTIONS, SETTINGS, known, nearest
from proxy.config.remarks import shown
from proxy.config.sections import Reader, note_literal
from proxy.config.source import Fields, Leaf, Tree
from proxy.config.trust import read_trust
from proxy.policy import MobiusPolicy, RedisSettings
from proxy.store.redis_address import RedisAddressInvalid, check_url
from proxy.types import Strategy, Trust

T = TypeVar("T")
Read: TypeAlias = Callable[[Reader, Tree | None, str], T | None]

STRATEGIES: Mapping[str, Strategy] = {
    "simple-shuffle": Strategy.SIMPLE_SHUFFLE,
    "random": Strategy.SIMPLE_SHUFFLE,
    "health-based": Strategy.HEALTH_BASED,
    "round-robin": Strategy.ROUND_ROBIN,
    "latency-based": Strategy.LATENCY_BASED,
    "latency-based-routing": Strategy.LATENCY_BASED,
    "least-busy": Strategy.LEAST_BUSY,
    "cost-based": Strategy.COST_BASED,
    "cost-based-routing": Strategy.COST_BASED,
    "usage-based": Strategy.USAGE_BASED,
    "usage-based-routing": Strategy.USAGE_BASED,
    "usage-based-routing-v2": Strategy.USAGE_BASED,
}
# LiteLLM's alone, and what is nearest to each.
STRATEGIES_ELSEWHERE: Mapping[str, Strategy] = {
    "lar1": Strategy.HEALTH_BASED,
    "provider-budget-routing": Strategy.SIMPLE_SHUFFLE,
}


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the file under its name."""

    name: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Settings:
    """Finds a setting in `router_settings`, then in `litellm_settings`."""

    reader: Reader
    sections: tuple[Section, ...]

    def each(self, name: str) -> list[tuple[Tree, str]]:
        """Return every place where a setting is written, the winning one first."""
        return [
            (section.fields.entries[name], f"{section.name}.{name}")
            for section in self.sections
            if name in section.fields.entries
        ]

    def first(self, names: Iterable[str], read: Callable[[Tree, str], T | None]) -> T | None:
        """Return the value that wins; every place is read, so that every error is found."""
        values = [read(tree, what) for name in names for tree, what in self.each(name)]
        return next((value for value in values if value is not None), None)

    def seconds(self, *names: str) -> float | None:
        def read(tree: Tree, what: str) -> float | None:
            return self.reader.number(tree, what, above=0, most=86_400)

        # Names are of one meaning: the section decides first, the order of the names second.
        for section in self.sections:
            found = Settings(self.reader, (section,)).first(names, read)
            if found is not None:
                return found
        return None

    def strategy(self) -> Strategy:
        return self.first(["routing_strategy"], self._strategy) or Strategy.SIMPLE_SHUFFLE

    def _strategy(self, tree: Tree, what: str) -> Strategy | None:
        written = self.reader.text(tree, what)
        if written is None:
            return None
        name = written.lower().replace("_", "-")
        if name in STRATEGIES:
            return STRATEGIES[name]
        if (instead := STRATEGIES_ELSEWHERE.get(name)) is not None:
            self.reader.findings.warn(
                tree.place, f"{what}: {name} is not among Mobius' own; {instead} is used"
            )
            return instead
        meant = nearest(name, STRATEGIES.keys() | STRATEGIES_ELSEWHERE.keys())
        hint = f"; the nearest name is {meant}" if meant else f", as {', '.join(STRATEGIES)} are"
        said = f'{what}: "{shown(written)}" is not a strategy{hint}'
        self.reader.findings.error(tree.place, said)
        return None

    def policy(self, base: MobiusPolicy) -> MobiusPolicy:
        """Return the policy with what LiteLLM's sections say; they stand nearer to the ring."""
        reader = self.reader
        retries = self.first(["num_retries"], lambda t, w: reader.integer(t, w, most=10))
        cooldown_s = self.seconds("cooldown_time")
        # N failures are allowed, so the one after them opens the breaker.
        allowed = self.first(["allowed_fails"], lambda t, w: reader.integer(t, w, most=10**6))
        # LiteLLM's least wait before a retry; ours is drawn from 0 up to this, then doubles.
        wait_s = self.first(["retry_after"], lambda t, w: reader.number(t, w, most=3600))
        update: dict[str, object] = {}
        if retries is not None:
            update["num_retries"] = retries
        if cooldown_s is not None:
            update["cooldown_time"] = cooldown_s
            update["cooldown_cap"] = max(cooldown_s, base.cooldown_cap)
        if allowed is not None:
            update["breaker"] = base.breaker.model_copy(update={"failures": allowed + 1})
        if wait_s:
            update["backoff_base"] = max(wait_s, base.backoff_base)
            update["backoff_cap"] = max(wait_s, base.backoff_cap)
        return base.model_copy(update=update)

    def drop_params(self) -> bool | None:
        return self.first(["drop_params"], self.reader.switch)

    def trust(self) -> Trust | None:
        """Return whose certificates are trusted where a deployment does not say it."""
        read = [read_trust(self.reader, tree, what) for tree, what in self.each("ssl_verify")]
        return read[0] if read else None

    def redis(self) -> RedisSettings | None:
        """Return where the shared state is; None when no setting says so."""
        reader = self.reader

        def later(read: Read[T]) -> Callable[[Tree, str], T | None]:
            return lambda tree, what: read_later(reader, tree, what, read)

        def text(name: str) -> str | None:
            return self.first([f"redis_{name}"], later(Reader.name))

        for section in self.sections:
            for name in ("redis_password", "redis_url"):
                tree = section.fields.entries.get(name)
                if name == "redis_password" or "@" in _written(tree):
                    note_literal(reader, tree, f"{section.name}.{name}")
        url = text("url")
        self._check_redis_url(url)
        return redis_of(
            RedisSettings(
                url=url,
                host=text("host"),
                port=self.first(["redis_port"], later(port_of)),
                password=text("password"),
                db=self.first(["redis_db"], later(Reader.integer)),
            )
        )

    def _check_redis_url(self, url: str | None) -> None:
        if url is None:
            return
        try:
            check_url(url)
        except RedisAddressInvalid as exc:
            trees = (section.fields.entries.get("redis_url") for section in self.sections)
            place = next(tree.place for tree in trees if tree is not None)
            self.reader.findings.error(place, f"redis_url: {exc}")


def read_settings(reader: Reader, root: Fields) -> Settings:
    """Return the two sections of settings, with a remark on every name Mobius does not act on."""
    sections = []
    for name in ("router_settings", "litellm_settings"):
        fields = reader.fields(root.entries.get(name), name)
        if fields is not None:
            check_names(reader, name, fields, acted=SETTINGS)
            sections.append(Section(name, fields))
    return Settings(reader, tuple(sections))


def read_general(reader: Reader, root: Fields) -> Tree | None:
    """Return the tree of `general_settings.master_key`, with a remark on every other name."""
    fields = reader.fields(root.entries.get("general_settings"), "general_settings")
    if fields is None:
        return None
    check_names(reader, "general_settings", fields, acted=GENERAL)
    return fields.entries.get("master_key")


def check_sections(reader: Reader, root: Fields) -> None:
    """Note every top-level section that Mobius does not act on."""
    for name, place in root.places.items():
        if name in SECTIONS:
            continue
        if name in known("sections"):
            reader.findings.warn(place, f"{name}: LiteLLM's section; Mobius does not act on it")
        elif not reader.unknown(name, place, SECTIONS | known("sections"), where="the file"):
            reader.findings.warn(place, f"{shown(name)}: this section is not known; it is ignored")


def check_names(reader: Reader, section: str, fields: Fields, *, acted: frozenset[str]) -> None:
    names = acted | known(section)
    for name, place in fields.places.items():
        if name in acted:
            continue
        if name in names:
            reader.findings.warn(
                place, f"{section}.{name} is known to LiteLLM; Mobius does not act on it"
            )
        elif not reader.unknown(name, place, names, where=section):
            reader.findings.warn(place, f"{section}.{shown(name)} is not known; it is ignored")


def read_later(reader: Reader, tree: Tree | None, what: str, read: Read[T]) -> T | None:
    """Read what this version does not act on: a variable that is not set there is no error."""
    missing: list[str] = []
    value = read(Reader(reader.findings, reader.secrets, missing), tree, what)
    if tree is not None and missing:
        reader.findings.warn(tree.place, f"{what} is left out: {missing[0]} is not set")
    return value


def port_of(reader: Reader, tree: Tree | None, what: str) -> int | None:
    return reader.integer(tree, what, most=65_535)


def redis_of(settings: RedisSettings) -> RedisSettings | None:
    named = settings.url or settings.host or settings.cluster or settings.sentinels
    return settings if named else None


def _written(tree: Tree | None) -> str:
    return tree.text if isinstance(tree, Leaf) else ""
