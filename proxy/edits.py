"""What a live edit of the file has changed, for the log."""

from __future__ import annotations

from proxy.config import Config
from proxy.policy import MetricsPort
from proxy.snapshot import Snapshot

MOST_NAMES = 10  # of models, in a line about a reload


def waiting(started: Config, now: Config) -> list[str]:
    """Return the settings that were read at start and have changed since."""
    paths = (started.snapshot.policy.ledger.path, now.snapshot.policy.ledger.path)
    changed = {"router_settings.redis_url": started.redis != now.redis}
    changed["litellm_settings.cache_params"] = _place_of(started) != _place_of(now)
    changed["mobius.ledger.path"] = paths[0] != paths[1]
    changed["mobius.metrics.access"] = _port_of(started) != _port_of(now)
    return [name for name, differs in changed.items() if differs]


def _port_of(config: Config) -> MetricsPort | None:
    """Return where the metrics have a port of their own."""
    access = config.snapshot.policy.metrics.access
    return access if isinstance(access, MetricsPort) else None


def _place_of(config: Config) -> tuple[object, ...]:
    """Return where answers are kept."""
    cache = config.cache
    place = (cache.type, cache.folder, cache.redis, cache.namespace, cache.timeout_s)
    return place if cache.enabled else ()


def change(old: Snapshot, new: Snapshot) -> dict[str, object]:
    """Return which models came and went: how many, and the names of the first."""
    facts: dict[str, object] = {}
    before, after = set(old.models()), set(new.models())
    for word, names in (("added", after - before), ("removed", before - after)):
        facts[f"models_{word}"] = len(names)
        if names:
            facts[word] = sorted(names)[:MOST_NAMES]
    return facts
