"""
Where a target of the direct lane is asked, and with which headers: what LiteLLM and the provider's
own SDK would use for it, without either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from yarl import URL

from proxy.types import ANTHROPIC, Surface, Target
from proxy.upstream.fields import TARGETS
from proxy.upstream.secrets import HEADERS

HOME = "https://api.openai.com/v1"  # where the file has no `api_base`
PATHS: Mapping[Surface, str] = {
    Surface.CHAT: "chat/completions",
    Surface.COMPLETIONS: "completions",
    Surface.EMBEDDINGS: "embeddings",
    Surface.MODERATIONS: "moderations",
    Surface.IMAGES: "images/generations",
    Surface.RERANK: "rerank",
    Surface.MESSAGES: "v1/messages",
    Surface.COUNT_TOKENS: "v1/messages/count_tokens",
    Surface.RESPONSES: "responses",
    Surface.SPEECH: "audio/speech",
    Surface.TRANSCRIPTIONS: "audio/transcriptions",
    Surface.TRANSLATIONS: "audio/translations",
}
AZURE = "azure"
AZURE_VERSION = "preview"  # where the file names none
AZURE_UNDATED = frozenset({"latest", "preview", "v1"})  # of the API that does without dates
ANTHROPIC_HOME = "https://api.anthropic.com"
ANTHROPIC_VERSION = "2023-06-01"  # where neither the caller nor the file names another
BETA, VERSION = "anthropic-beta", "anthropic-version"
# What a token of a person's account begins with, where a key is meant; and what it is asked with.
OAUTH_PREFIX, OAUTH_BETA = "sk-ant-oat", "oauth-2025-04-20"
PLAIN: Mapping[str, str] = {
    "accept": "application/json",
    # Asked for plainly: what is not compressed need not be bounded while it unfolds.
    "accept-encoding": "identity",
    "content-type": "application/json",
    "user-agent": "mobius",
}


@dataclass(frozen=True, slots=True)
class Address:
    """The URL of one surface of a target, and the headers that open it."""

    url: URL
    headers: Mapping[str, str] = field(repr=False)


@lru_cache(maxsize=TARGETS)
def address_of(target: Target, surface: Surface) -> Address:
    """Return where `target` answers to `surface`, and what it is asked with."""
    params = target.params
    written = {
        name.lower(): str(value)
        for kind in reversed(HEADERS)
        for name, value in (params.get(kind) or {}).items()
    }
    if surface in ANTHROPIC:
        opens = _anthropic_key(str(params.get("api_key", "")))
        base = _anthropic_base(str(params.get("api_base") or ANTHROPIC_HOME))
    elif target.provider == AZURE:
        # Of all surfaces only that of Responses is asked of it past LiteLLM.
        opens = {"api-key": str(params.get("api_key", ""))}
        return Address(_azure_url(params), _joined({**PLAIN, **opens}, written))
    else:
        named = {
            "openai-organization": params.get("organization"),
            "openai-project": params.get("project"),
        }
        opens = {
            "authorization": f"Bearer {params.get('api_key', '')}",
            **{name: value for name, value in named.items() if value},
        }
        base = str(params.get("api_base") or HOME).rstrip("/")
    headers = _joined({**PLAIN, **opens}, written)
    return Address(URL(f"{base}/{PATHS[surface]}", encoded=True), headers)


def _azure_url(params: Mapping[str, Any]) -> URL:
    """Return where a resource of Azure's answers with Responses, by the versions of LiteLLM."""
    root = str(params.get("api_base", "")).rstrip("/").removesuffix("/v1").removesuffix("/openai")
    version = str(params.get("api_version") or AZURE_VERSION)
    path = "openai/v1" if version in AZURE_UNDATED else "openai"
    url = f"{root}/{path}/{PATHS[Surface.RESPONSES]}"
    return URL(url, encoded=True).with_query({"api-version": version})


def headers_for(address: Address, said: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers of one call; of what the caller `said` too, the file's word stands."""
    if not said:
        return address.headers
    return _joined(said, address.headers)


def _joined(under: Mapping[str, str], over: Mapping[str, str]) -> Mapping[str, str]:
    """Return both, `over` where they differ; betas are a list, and all of them are wanted."""
    betas = [name.strip() for each in (under, over) for name in each.get(BETA, "").split(",")]
    wanted = ",".join(dict.fromkeys(name for name in betas if name))
    return {**under, **over, **({BETA: wanted} if wanted else {})}


def _anthropic_base(base: str) -> str:
    """Return the base without what may stand in it already of the path."""
    return base.rstrip("/").removesuffix("/messages").removesuffix("/v1")


def _anthropic_key(key: str) -> Mapping[str, str]:
    if key.startswith(OAUTH_PREFIX):
        return {"authorization": f"Bearer {key}", BETA: OAUTH_BETA}
    return {"x-api-key": key}
