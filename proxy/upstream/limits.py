"""A provider's rate limit headers, in the spelling that OpenAI gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# Anthropic's API reference, "Rate limits": Response headers.
ANTHROPIC: Mapping[str, str] = MappingProxyType(
    {
        "anthropic-ratelimit-requests-limit": "x-ratelimit-limit-requests",
        "anthropic-ratelimit-requests-remaining": "x-ratelimit-remaining-requests",
        "anthropic-ratelimit-requests-reset": "x-ratelimit-reset-requests",
        "anthropic-ratelimit-tokens-limit": "x-ratelimit-limit-tokens",
        "anthropic-ratelimit-tokens-remaining": "x-ratelimit-remaining-tokens",
        "anthropic-ratelimit-tokens-reset": "x-ratelimit-reset-tokens",
    }
)
PREFIX = "x-ratelimit-"


def rate_limits(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Return the `x-ratelimit-*` headers of an answer; `headers` has lower-case names."""
    found = {name: value for name, value in headers.items() if name.startswith(PREFIX)}
    for name, ours in ANTHROPIC.items():
        if name in headers:
            found.setdefault(ours, headers[name])
    return found
