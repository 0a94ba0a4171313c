"""
`litellm_config.yaml` → a Config, or an error that names every wrong line.

`load_config` is the way in. It is pure but for reading files: it never touches the environment,
and it never imports LiteLLM.
"""

from __future__ import annotations

import hashlib
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from proxy.catalogue import PriceTable
from proxy.config.caching import CacheSettings, caching_of, read_cache
from proxy.config.include import Sources, read_sources
from proxy.config.mobius import (
    allowances_of,
    check_ai_model,
    read_callers,
    read_policy,
    without_keys,
)
from proxy.config.names import is_secret
from proxy.config.price_table import shipped_table
from proxy.config.remarks import ConfigError, Findings, Remark, shown
from proxy.config.rings import read_rings
from proxy.config.secrets import Secrets
from proxy.config.sections import Reader, note_literal
from proxy.config.settings import (
    Settings,
    check_sections,
    read_general,
    read_settings,
)
from proxy.config.source import Fields
from proxy.config.targets import Above
from proxy.policy import MobiusPolicy, RedisSettings
from proxy.snapshot import Snapshot

__all__ = [
    "CacheSettings",
    "Config",
    "ConfigError",
    "RedisSettings",
    "Remark",
    "load_config",
    "shown",
]


@dataclass(frozen=True, slots=True)
class Config:
    """
    A file that could be read, whole.

    `files` are all that were read or looked for, mounted secrets too: when one changes, the
    configuration may. `fingerprint` changes with what they hold. `mounted` says of each variable
    that a mounted secret was to hold whether it did. `environment` is what
    `environment_variables` sets for LiteLLM; whoever starts it exports them.
    """

    snapshot: Snapshot
    warnings: tuple[Remark, ...]
    files: tuple[Path, ...]
    fingerprint: str
    mounted: Mapping[str, bool] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    redis: RedisSettings | None = None
    cache: CacheSettings = field(default_factory=CacheSettings)


def load_config(
    path: Path,
    environ: Mapping[str, str],
    *,
    table: Callable[[], PriceTable | None] = shipped_table,
) -> Config:
    """
    Read and validate the file and what it includes. `environ` is read and never changed.

    Raises ConfigError with every error that was found, never returns half a Config.
    """
    findings = Findings()
    files: dict[Path, None] = {}
    overlay: dict[str, str] = {}
    secrets = Secrets(ChainMap(overlay, dict(environ)), files=files, values=findings.secrets)
    reader = Reader(findings, secrets)
    try:
        sources = read_sources(path, findings, files)
        check_sections(reader, sources.root)
        overlay |= _environment(reader, sources.root)
        config = _read(reader, sources, overlay, table())
        findings.stop()
    except ConfigError as exc:
        raise ConfigError(exc.remarks, files) from None
    return config


def _read(
    reader: Reader,
    sources: Sources,
    environment: Mapping[str, str],
    table: PriceTable | None,
) -> Config:
    root = sources.root
    if table is None:
        reader.findings.warn(
            root.place, "LiteLLM's table of prices cannot be read: only prices in this file count"
        )
    section = root.entries.get("mobius")
    settings = read_settings(reader, root)
    policy = settings.policy(read_policy(reader, section))
    callers = read_callers(reader, policy, section, read_general(reader, root))
    above = _above(reader, root, settings, policy, table or PriceTable({}))
    rings = read_rings(reader, settings, root.entries.get("model_list"), above)
    if not rings.rings and not rings.wildcards:
        reader.findings.warn(root.place, "there is no model in this file")
    redis, cache = settings.redis(), read_cache(settings)  # before the warnings: they add to them
    snapshot = Snapshot(
        policy=without_keys(policy),
        rings=MappingProxyType(dict(rings.rings)),
        wildcards=rings.wildcards,
        fallbacks=rings.fallbacks,
        hidden=rings.hidden,
        callers=MappingProxyType(callers),
        allowances=allowances_of(policy),
        caching=caching_of(cache, policy),
        catalogue=above.catalogue,
    )
    check_ai_model(reader, section, snapshot)
    return Config(
        snapshot=snapshot,
        warnings=reader.findings.clean(reader.findings.warnings),
        files=tuple(reader.secrets.files),
        fingerprint=_fingerprint(sources, reader.secrets),
        mounted=MappingProxyType(reader.secrets.mounted()),
        environment=MappingProxyType(dict(environment)),
        redis=redis,
        cache=cache,
    )


def _above(
    reader: Reader, root: Fields, settings: Settings, policy: MobiusPolicy, catalogue: PriceTable
) -> Above:
    """Return what holds for a deployment that says nothing of its own."""
    return Above(
        timeouts=policy.timeouts,
        timeout_s=settings.seconds("timeout", "request_timeout"),
        stream_timeout_s=settings.seconds("stream_timeout"),
        drop_params=settings.drop_params(),
        trust=settings.trust(),
        credentials=_credentials(reader, root),
        catalogue=catalogue,
        lanes=policy.lanes,
    )


def _environment(reader: Reader, root: Fields) -> dict[str, str]:
    """Return what `environment_variables` sets, for this load and for LiteLLM."""
    fields = reader.fields(root.entries.get("environment_variables"), "environment_variables")
    values: dict[str, str] = {}
    for name, tree in (fields.entries if fields else {}).items():
        missing: list[str] = []
        what = f"environment_variables.{shown(name)}"
        value = Reader(reader.findings, reader.secrets, missing).scalar(tree, what)
        if missing:
            reader.findings.warn(tree.place, f"{what} is left out: {missing[0]} is not set")
        elif value is not None:
            if is_secret(name.lower()):
                note_literal(reader, tree, what)
            values[name] = str(value)
    return values


def _credentials(reader: Reader, root: Fields) -> dict[str, Fields]:
    """Return `credential_list`: the params that stand under a name."""
    credentials: dict[str, Fields] = {}
    for item in reader.items(root.entries.get("credential_list"), "credential_list"):
        fields = reader.fields(item, "an entry of credential_list")
        if fields is None:
            continue
        name = reader.name(fields.entries.get("credential_name"), "credential_name")
        values = reader.fields(fields.entries.get("credential_values"), "credential_values")
        if name is None or values is None:
            missing = "credential_name" if name is None else "credential_values"
            reader.findings.error(fields.place, f"an entry of credential_list has no {missing}")
        elif name in credentials:
            reader.findings.error(fields.place, "credential_list has this name twice")
        else:
            credentials[name] = values
    return credentials


def _fingerprint(sources: Sources, secrets: Secrets) -> str:
    return hashlib.sha256(f"{sources.fingerprint} {secrets.fingerprint()}".encode()).hexdigest()
