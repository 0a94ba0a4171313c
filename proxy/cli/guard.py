"""Which files may be served as the command was given: at start, and on every live edit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from proxy.config import Config, ConfigError, Remark, load_config
from proxy.reload import Load

NO_KEY = (
    "no key is configured, so Mobius answers on a loopback address only; to listen elsewhere set "
    "the variable MOBIUS_MASTER_KEY, or general_settings.master_key"
)


def guarded(*, loopback: bool, several: bool, redis: bool) -> Load:
    """
    Return the loader of the files that may be served.

    To the world only with a key; with several workers only what they can share, by way of the Redis
    that was there at start, if there was one.
    """
    load: Load = load_config if loopback else loopback_only(load_config)
    return _shared_only(load, redis=redis) if several else load


def unshared(config: Config) -> str | None:
    """Return what of the file each worker would keep for itself, or None."""
    if config.snapshot.allowances.any:
        return "the limits of keys, teams, users and models"
    targets = config.snapshot.targets()
    if any((t.rpm, t.tpm, t.max_parallel) != (None, None, None) for t in targets):
        return "the rpm, tpm and max_parallel_requests of deployments"
    if config.cache.enabled and config.cache.redis is None:
        return "the cache"
    return None


def _shared_only(load: Load, *, redis: bool) -> Load:
    def shared(path: Path, environ: Mapping[str, str]) -> Config:
        config = load(path, environ)
        what = None if redis and config.redis is not None else unshared(config)
        if what is not None:
            text = (
                f"with --workers above 1, {what} would be kept by each worker for itself: set "
                "router_settings.redis_url, or start one worker"
            )
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
