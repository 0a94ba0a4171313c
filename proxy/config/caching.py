"""`litellm_settings.cache`, `cache_params`, `mobius.cache`: whether answers are kept, and where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from proxy.cacheable import CALL_TYPES, NEVER, surfaces_of
from proxy.caching import FINISHED, TTL_S, Caching, Mode
from proxy.config.remarks import shown
from proxy.config.sections import Reader, note_literal
from proxy.config.settings import Read, Settings, port_of, read_later, redis_of
from proxy.config.source import Fields, Items, Tree
from proxy.policy import MobiusPolicy, RedisSettings

T = TypeVar("T")

LOCAL, REDIS, DISK = "local", "redis", "disk"
TYPES = (LOCAL, REDIS, DISK)
PARAMS = frozenset(
    {
        *("type", "ttl", "namespace", "mode", "supported_call_types", "disk_cache_dir"),
        *("url", "host", "port", "password", "db", "ssl", "redis_startup_nodes"),
        *("sentinel_nodes", "service_name", "socket_timeout"),
    }
)
DISK_FOLDER = "data/cache"
MOST_TIMEOUT_S = 60.0
_MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """Whether answers are kept, for how long, and where."""

    enabled: bool = False
    type: str = LOCAL
    ttl_s: float | None = None
    namespace: str | None = None
    mode: Mode = Mode.DEFAULT_ON
    surfaces: frozenset[str] | None = None  # `supported_call_types`; None: all
    folder: str = DISK_FOLDER
    redis: RedisSettings | None = field(default=None)
    timeout_s: float | None = None  # for which a Redis is waited for


def read_cache(settings: Settings) -> CacheSettings:
    """Return what the file says; every error in it is noted."""
    reader = settings.reader
    enabled = bool(settings.first(["cache"], reader.switch))
    params = settings.first(["cache_params"], reader.fields)
    if params is None:
        return CacheSettings(enabled=enabled)
    if enabled:
        note_literal(reader, params.entries.get("password"), "cache_params.password")

    for name, place in params.places.items():
        known = name in PARAMS or reader.unknown(name, place, PARAMS, where="cache_params")
        if not known:
            reader.findings.warn(place, f"cache_params.{shown(name)}: Mobius does not act on it")

    def get(name: str, read: Read[T]) -> T | None:
        return read_later(reader, params.entries.get(name), f"cache_params.{name}", read)

    return CacheSettings(
        enabled=enabled,
        type=get("type", _type) or REDIS,
        ttl_s=get("ttl", lambda r, t, w: r.number(t, w, above=0)),
        namespace=get("namespace", Reader.name),
        mode=get("mode", _mode) or Mode.DEFAULT_ON,
        surfaces=get("supported_call_types", _call_types),
        folder=get("disk_cache_dir", Reader.name) or DISK_FOLDER,
        redis=_redis(reader, params),
        timeout_s=get("socket_timeout", _timeout_s),
    )


def caching_of(settings: CacheSettings, policy: MobiusPolicy) -> Caching:
    """Return the rules of the file in force."""
    cache = policy.cache
    return Caching(
        enabled=settings.enabled,
        mode=settings.mode,
        surfaces=settings.surfaces,
        ttl_s=settings.ttl_s or TTL_S,
        stale_if_error_s=cache.stale_if_error,
        scope=cache.scope,
        scopes={key.name: key.cache_scope for key in policy.keys if key.cache_scope is not None},
        namespace=settings.namespace or "",
        finish_reasons=frozenset(cache.finish_reasons) or FINISHED,
        max_entry_bytes=int(cache.max_entry_mb * _MB),
        pace_s=cache.pace,
    )


def _redis(reader: Reader, params: Fields) -> RedisSettings | None:
    def get(name: str, read: Read[T]) -> T | None:
        return read_later(reader, params.entries.get(name), f"cache_params.{name}", read)

    nodes = get("redis_startup_nodes", _nodes) or ()
    sentinels = get("sentinel_nodes", _nodes) or ()
    settings = RedisSettings(
        url=get("url", Reader.name),
        host=get("host", Reader.name),
        port=get("port", port_of),
        password=get("password", Reader.text),
        db=get("db", Reader.integer),
        ssl=bool(get("ssl", Reader.switch)),
        cluster=nodes,
        sentinels=sentinels,
        service=get("service_name", Reader.name),
    )
    return redis_of(settings)


def _type(reader: Reader, tree: Tree | None, what: str) -> str | None:
    return _one_of(reader, tree, what, TYPES)


def _mode(reader: Reader, tree: Tree | None, what: str) -> Mode | None:
    found = _one_of(reader, tree, what, tuple(Mode))
    return None if found is None else Mode(found)


def _one_of(reader: Reader, tree: Tree | None, what: str, names: tuple[str, ...]) -> str | None:
    value = reader.name(tree, what)
    if tree is None or value is None or value in names:
        return value
    reader.findings.error(tree.place, f"{what} takes one of {', '.join(names)}")
    return None


def _call_types(reader: Reader, tree: Tree | None, what: str) -> frozenset[str] | None:
    """Return the surfaces that are named; an empty list, as in LiteLLM, is none of them."""
    if not isinstance(tree, Items):
        return None
    names = frozenset(reader.names(tree, what))
    if unknown := sorted(names - CALL_TYPES - NEVER):
        takes = ", ".join(sorted(CALL_TYPES))
        reader.findings.error(tree.place, f"{what} takes some of {takes}, not {shown(unknown[0])}")
    for name in sorted(names & NEVER):
        reader.findings.warn(tree.place, f"{what}: answers of {name} are not kept")
    return surfaces_of(names)


def _timeout_s(reader: Reader, tree: Tree | None, what: str) -> float | None:
    return reader.number(tree, what, above=0, most=MOST_TIMEOUT_S)


def _nodes(reader: Reader, tree: Tree | None, what: str) -> tuple[tuple[str, int], ...]:
    """Return what LiteLLM writes as `{host: …, port: …}` or as `[host, port]`."""
    found = []
    for item in reader.items(tree, what):
        match item:
            case Fields():
                host, port = item.entries.get("host"), item.entries.get("port")
            case Items(items=(host, port)):
                pass
            case _:
                reader.findings.error(item.place, f"{what} takes hosts with their ports")
                continue
        name, number = reader.name(host, what), port_of(reader, port, what)
        if name is not None and number is not None:
            found.append((name, number))
    return tuple(found)
