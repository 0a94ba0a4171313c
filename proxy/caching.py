"""
What may be served from the cache and what may be kept in it: the file's rules, and what a request
says about itself. Pure.

A request says it in LiteLLM's body field `cache` or in `Cache-Control` (RFC 9111, section 5.2.1);
where both speak, the stricter counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FINISHED = frozenset({"stop", "tool_calls", "function_call"})
TTL_S = 600.0
MOST_S = 10 * 365 * 86_400.0
LONGEST_NAMESPACE = 256


class Mode(StrEnum):
    """Whether requests are cached that do not say so."""

    DEFAULT_ON = "default_on"
    DEFAULT_OFF = "default_off"


@dataclass(frozen=True, slots=True)
class Caching:
    """The file's rules. `scopes` holds the keys that have one of their own."""

    enabled: bool = False
    mode: Mode = Mode.DEFAULT_ON
    surfaces: frozenset[str] | None = None  # None: all whose answers can be kept
    ttl_s: float = TTL_S
    stale_if_error_s: float = 0.0
    scope: str = "key"
    scopes: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    finish_reasons: frozenset[str] = FINISHED
    max_entry_bytes: int = 4 * 1024 * 1024
    pace_s: float | None = None  # between the events of a stream that is given again

    def scope_of(self, key: str) -> str:
        return self.scopes.get(key, self.scope)


@dataclass(frozen=True, slots=True)
class CacheWishes:
    """What a request says of the cache."""

    no_cache: bool = False  # do not answer from it
    no_store: bool = False  # do not keep the answer
    ttl_s: float | None = None  # keep it for so long
    max_age_s: float | None = None  # an older one is none
    max_stale_s: float = 0.0  # one that has expired by no more than this will do
    namespace: str = ""
    use_cache: bool = False  # for Mode.DEFAULT_OFF

    @property
    def reads(self) -> bool:
        return not self.no_cache and self.max_age_s != 0

    def with_header(self, control: bytes) -> CacheWishes:
        """Return these wishes and those of a `Cache-Control` header; junk in it is passed over."""
        if not control:
            return self
        said = _directives(control)
        ages = [age for age in (self.max_age_s, _seconds(said.get("max-age"))) if age is not None]
        stale_s = self.max_stale_s
        if "max-stale" in said:
            found = _seconds(said["max-stale"])
            stale_s = MOST_S if found is None and not said["max-stale"] else found or stale_s
        return CacheWishes(
            no_cache=self.no_cache or "no-cache" in said,
            no_store=self.no_store or "no-store" in said,
            ttl_s=self.ttl_s,
            max_age_s=min(ages, default=None),
            max_stale_s=stale_s,
            namespace=self.namespace,
            use_cache=self.use_cache,
        )


NO_WISHES = CacheWishes()


class Freshness(StrEnum):
    """What an entry is good for."""

    FRESH = "fresh"
    STALE = "stale"  # an answer when every target fails
    GONE = "gone"


def applies(caching: Caching, wishes: CacheWishes, surface: str) -> bool:
    """Say whether the cache has anything to do with a request on this surface."""
    if not caching.enabled or not (caching.surfaces is None or surface in caching.surfaces):
        return False
    if caching.mode is Mode.DEFAULT_OFF and not wishes.use_cache:
        return False
    return not (wishes.no_store and not wishes.reads)


def freshness(
    age_s: float, ttl_s: float, *, wishes: CacheWishes, stale_if_error_s: float
) -> Freshness:
    """Return what an entry of this age is good for, which is kept for `ttl_s`."""
    if not wishes.reads or (wishes.max_age_s is not None and age_s > wishes.max_age_s):
        return Freshness.GONE
    if age_s <= ttl_s + wishes.max_stale_s:
        return Freshness.FRESH
    return Freshness.STALE if age_s <= ttl_s + stale_if_error_s else Freshness.GONE


def may_be_kept(finish_reasons: Iterable[object], caching: Caching) -> bool:
    """Say whether an answer is whole: every choice of it ended, and in a way that is kept."""
    reasons = list(finish_reasons)
    return bool(reasons) and all(reason in caching.finish_reasons for reason in reasons)


def wishes_of(cache: object) -> CacheWishes:
    """
    Return what LiteLLM's body field `cache` says.

    Raises ValueError with the name of the field and what it must be.
    """
    if cache is None or isinstance(cache, bool):
        return CacheWishes(no_cache=True, no_store=True) if cache is False else NO_WISHES
    if not isinstance(cache, Mapping):
        raise ValueError("`cache` must be an object")  # noqa: TRY004  # it is a value of the body
    return CacheWishes(
        no_cache=_flag(cache, "no-cache"),
        no_store=_flag(cache, "no-store"),
        ttl_s=_number(cache, "ttl"),
        max_age_s=_number(cache, "s-maxage", "s-max-age"),
        namespace=_namespace(cache.get("namespace")),
        use_cache=_flag(cache, "use-cache"),
    )


def _directives(control: bytes) -> dict[str, str]:
    parts = (part.strip().partition("=") for part in control.decode("latin-1").split(","))
    return {name.strip().lower(): value.strip().strip('"') for name, _, value in parts}


def _seconds(text: str | None) -> float | None:
    return min(float(text), MOST_S) if text and text.isascii() and text.isdigit() else None


def _flag(cache: Mapping[str, Any], name: str) -> bool:
    value = cache.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"`cache.{name}` must be true or false")
    return value is True


def _number(cache: Mapping[str, Any], *names: str) -> float | None:
    for name in names:
        value = cache.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST_S:
            raise ValueError(f"`cache.{name}` must be a number of seconds")
        return float(value)
    return None


def _namespace(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > LONGEST_NAMESPACE:
        raise ValueError(f"`cache.namespace` must be a text of at most {LONGEST_NAMESPACE} letters")
    return value
