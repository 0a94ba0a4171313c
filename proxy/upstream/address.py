"""
Where a target of the direct lane is asked, and with which headers: what LiteLLM and OpenAI's SDK
would use for it, without either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from yarl import URL

from proxy.types import Surface, Target
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
    Surface.RESPONSES: "responses",
}
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
    base = str(params.get("api_base") or HOME).rstrip("/")
    named = {
        "openai-organization": params.get("organization"),
        "openai-project": params.get("project"),
    }
    written = {
        name.lower(): str(value)
        for kind in reversed(HEADERS)
        for name, value in (params.get(kind) or {}).items()
    }
    headers = {
        **PLAIN,
        "authorization": f"Bearer {params.get('api_key', '')}",
        **{name: value for name, value in named.items() if value},
        **written,
    }
    return Address(URL(f"{base}/{PATHS[surface]}", encoded=True), headers)
