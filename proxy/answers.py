"""
Where answers are kept, and where it is known who made which, as the file said at start; a live edit
waits for the next start.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

from proxy.cache import Cache
from proxy.clock import Clock
from proxy.config import Config
from proxy.config.caching import DISK, REDIS
from proxy.ledger import Ledger, LedgerOrigins
from proxy.origins import Origins
from proxy.policy import RedisSettings
from proxy.relay import Relay
from proxy.store.cache_port import CacheStore
from proxy.store.disk_cache import DiskCache
from proxy.store.memory_cache import MemoryCache
from proxy.store.origins import MemoryOrigins, OriginStore
from proxy.store.patience import TIMEOUT_S
from proxy.store.redis_board import RedisBoard
from proxy.store.redis_cache import RedisCache
from proxy.store.redis_client import open_client
from proxy.store.redis_origins import RedisOrigins

_MB = 1024 * 1024


def check_place(config: Config, clock: Clock) -> None:
    """Return when answers can be kept where the file says. Raises CannotKeep."""
    if config.cache.enabled and config.cache.type == DISK:
        _open_disk(config, clock).close()


async def open_cache(opened: AsyncExitStack, config: Config, clock: Clock) -> Cache:
    """Return the cache; `opened` closes it."""
    cache = Cache(_open_store(opened, config, clock), clock, _relay(opened, config, clock))
    opened.push_async_callback(cache.aclose)
    return cache


def open_origins(opened: AsyncExitStack, config: Config, clock: Clock, ledger: Ledger) -> Origins:
    """Return who made which response; `opened` closes what is opened for it."""
    places: list[OriginStore] = [MemoryOrigins(clock), LedgerOrigins(ledger)]
    if config.redis is not None:
        redis = RedisOrigins(open_client(config.redis), clock)
        opened.push_async_callback(redis.aclose)
        places.append(redis)
    return Origins(places, clock)


def _redis_of(config: Config) -> RedisSettings | None:
    """Return the Redis of the cache: that of the shared state, where `cache_params` names none."""
    settings = config.cache
    if settings.enabled and settings.type == REDIS:
        return settings.redis or config.redis
    return None


def _relay(opened: AsyncExitStack, config: Config, clock: Clock) -> Relay | None:
    redis = _redis_of(config)
    if redis is None:
        return None
    timeout_s = config.cache.timeout_s or TIMEOUT_S
    client = open_client(redis, timeout_s=timeout_s)
    opened.push_async_callback(client.aclose)
    most_bytes = int(config.snapshot.policy.cache.max_entry_mb * _MB)
    namespace = config.cache.namespace or ""
    board = RedisBoard(
        client, clock, namespace=namespace, most_bytes=most_bytes, timeout_s=timeout_s
    )
    return Relay(board)


def _open_store(opened: AsyncExitStack, config: Config, clock: Clock) -> CacheStore:
    settings, policy = config.cache, config.snapshot.policy.cache
    most_bytes = int(policy.max_entry_mb * _MB)
    redis = _redis_of(config)
    if redis is not None:
        timeout_s = settings.timeout_s or TIMEOUT_S
        store = RedisCache(
            open_client(redis, timeout_s=timeout_s),
            clock,
            namespace=settings.namespace or "",
            most_bytes=most_bytes,
            timeout_s=timeout_s,
        )
        opened.push_async_callback(store.aclose)
        return store
    if settings.enabled and settings.type == DISK:
        disk = _open_disk(config, clock)
        opened.callback(disk.close)
        return disk
    return MemoryCache(clock, most_bytes=int(policy.max_memory_mb * _MB))


def _open_disk(config: Config, clock: Clock) -> DiskCache:
    most_bytes = int(config.snapshot.policy.cache.max_entry_mb * _MB)
    return DiskCache(config.cache.folder, clock, most_bytes=most_bytes)
