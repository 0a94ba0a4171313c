"""Where a deployment is called, with which key, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from proxy.config.names import HANDED_PREFIXES, words
from proxy.config.providers import CLOUDS, CUSTOMS, NO_KEY, is_home
from proxy.config.remarks import Place
from proxy.config.sections import Reader, note_literal
from proxy.config.source import Tree

# With one of these a provider needs no `api_key`.
OTHER_CREDENTIALS = ("azure_ad_token", "client_secret", "azure_client_secret", "azure_password",
                     "use_xai_oauth", "anthropic_federation_rule_id", "anthropic_identity_token",
                     "anthropic_identity_token_file", "openai_identity_provider_id")  # fmt: skip
# What tells two places or two keys apart, beside everything in HANDED_PREFIXES.
IDENTIFYING = words(
    """
    api_base api_key api_version client_id client_secret default_headers deployment_id
    extra_headers headers mock_response organization project region_name sagemaker_base_url
    tenant_id
    """
)


def connect(
    reader: Reader, place: Place, provider: str, acted: Mapping[str, Tree], handed: dict[str, Any]
) -> None:
    """Put the address and the key among the params. A key from the environment stays at home."""
    is_mocked = "mock_response" in handed  # nothing is called, so no key is missing
    key_tree = None if is_mocked else acted.get("api_key")
    base_tree = acted.get("api_base") or acted.get("base_url")
    unset = len(reader.missing or ())
    key = reader.text(key_tree, "api_key")
    base = reader.name(base_tree, "api_base")
    if len(reader.missing or ()) > unset:
        return
    if key is not None:
        handed["api_key"] = key
        note_literal(reader, key_tree, "api_key")
    if base is not None:
        handed["api_base"] = base
    if is_mocked or key is not None or any(name in handed for name in OTHER_CREDENTIALS):
        return
    if base is not None and not is_home(provider, base):
        if provider not in CLOUDS:
            handed["api_key"] = NO_KEY
        return
    _by_custom(reader, place, provider, handed)


def _by_custom(reader: Reader, place: Place, provider: str, handed: dict[str, Any]) -> None:
    custom = CUSTOMS.get(provider)
    if custom is None:
        return
    key = reader.secrets.first(custom.keys)
    if key.value is None:
        reader.unset(custom.keys[0], key.problem, place, "api_key", unreadable=key.unreadable)
        return
    handed["api_key"] = key.value
    if "api_base" in handed or not custom.bases:
        return
    base = reader.secrets.first(custom.bases)
    if base.value is not None:
        handed["api_base"] = base.value
        if not custom.needs_base:
            reader.findings.warn(place, f"api_base is taken from {' or '.join(custom.bases)}")
    elif custom.needs_base:
        reader.unset(custom.bases[0], base.problem, place, "api_base", unreadable=base.unreadable)


def credential_of(provider: str, handed: Mapping[str, Any]) -> str:
    """Return a hash of where a target is and of what opens it."""
    place = {
        name: value
        for name, value in handed.items()
        if name in IDENTIFYING or name.startswith(HANDED_PREFIXES)
    }
    canonical = json.dumps([provider, place], sort_keys=True, default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:24]
