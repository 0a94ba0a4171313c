"""Which files may be served as the command was given: at start, and on every live edit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.config import Config, ConfigError, Remark, load_config
from proxy.config.caching import REDIS
from proxy.reload import Load

NO_KEY = (
    "no key is configured, so Mobius answers on a loopback address only; to listen elsewhere set "
    "the variable MOBIUS_MASTER_KEY, or general_settings.master_key"
)

APART = "would be kept by each worker for itself"
SET_URL = "set router_settings.redis_url"


def guarded(*, loopback: bool, several: bool, redis: bool) -> Load:
    """
    Return the loader of the files that may be served.

    To the world only with a key; with several workers only what they can share, by way of the Redis
    that was there at start, if there was one.
    """
    load: Load = load_config if loopback else loopback_only(load_config)
    return _shared_only(load, redis=redis) if several else load


def unshared(config: Config, *, redis: bool) -> str | None:
    """Return what of the file each worker would keep for itself, and what to do, or None."""
    if not redis:
        targets = config.snapshot.targets()
        if config.snapshot.allowances.any:
            return f"the limits of keys, teams, users and models {APART}: {SET_URL}"
        if any((t.rpm, t.tpm, t.max_parallel) != (None, None, None) for t in targets):
            return f"the rpm, tpm and max_parallel_requests of deployments {APART}: {SET_URL}"
    cache = config.cache
    if not cache.enabled:
        return None
    if cache.type != REDIS:
        return f"the cache (type {cache.type}) {APART}: set cache_params.type to redis"
    if cache.redis is None and not redis:
        return f"the cache {APART}: {SET_URL}"
    return None


def _shared_only(load: Load, *, redis: bool) -> Load:
    def shared(path: Path, environ: Mapping[str, str]) -> Config:
        config = load(path, environ)
        what = unshared(config, redis=redis and config.redis is not None)
        if what is not None:
            text = f"with --workers above 1, {what}, or start one worker"
            raise ConfigError([Remark(str(path), 1, text)], config.files)
        return config

    return shared


def loopback_only(load: Load) -> Load:
    """
    Return `load` for a server that others can reach: a file without any key is refused.

    Also on a live edit, so that nobody opens a server to the world by deleting a line.
    """

    def guarded(path: Path, environ: Mapping[str, str]) -> Config:
        config = load(path, environ)
        if not config.snapshot.callers:
            remark = Remark(str(path), 1, NO_KEY)
            raise ConfigError([remark], config.files)
        return config

    return guarded
