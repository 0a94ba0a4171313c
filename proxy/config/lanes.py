"""The lanes of a target: past LiteLLM where its wire is the surface's own, else through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.config.names import is_price
from proxy.snapshot import TURNS
from proxy.types import Lane

# Providers that LiteLLM asks as OpenAI is asked, at `api_base` and with `Authorization: Bearer`.
DIRECT = frozenset({"openai", "custom_openai", "litellm_proxy", "hosted_vllm"})
# Providers that are asked as Anthropic is asked, on Anthropic's surfaces.
MESSAGES = frozenset({"anthropic"})
# What the direct lane does with a litellm_param itself; any other is LiteLLM's to act on.
UNDERSTOOD = frozenset(
    {
        "additional_drop_params", "allowed_openai_params", "api_base", "api_key", "base_model",
        "extra_body", "extra_headers", "headers", "organization", "project",
    }
)  # fmt: skip


def obstacle(provider: str, model: str, params: Mapping[str, Any]) -> str | None:
    """Return why a target cannot be called directly; None when it can."""
    if provider not in DIRECT:
        return f"{provider} is not asked in OpenAI's own format"
    if model.startswith(TURNS):
        return "LiteLLM calls another endpoint for this model"
    if provider != "openai" and "api_base" not in params:
        return "it has no api_base"
    return _unclear(params)


def _unclear(params: Mapping[str, Any]) -> str | None:
    """Return what of the params only LiteLLM can act on; None where there is nothing."""
    unknown = sorted(name for name in params if name not in UNDERSTOOD and not is_price(name))
    if unknown:
        return f"{unknown[0]} is LiteLLM's to act on"
    base = str(params.get("api_base", ""))
    if (not base.startswith(("http://", "https://")) and base) or "?" in base or "#" in base:
        return "its api_base is no plain URL"
    return None


def lane_of(
    provider: str,
    model: str,
    params: Mapping[str, Any],
    *,
    wish: str | None,
) -> tuple[Lane, str | None]:
    """Return the lane, and why it is not the one that `mobius.lanes` wishes for."""
    why = obstacle(provider, model, params)
    if wish == Lane.UNIFIED or why is not None:
        return Lane.UNIFIED, why if wish == Lane.DIRECT else None
    return Lane.DIRECT, None


def messages_lane(provider: str, params: Mapping[str, Any], *, wish: str | None) -> Lane:
    """Return the lane of Anthropic's surfaces, of which all but Anthropic are asked by a chat."""
    if provider in MESSAGES and wish != Lane.UNIFIED and _unclear(params) is None:
        return Lane.DIRECT
    return Lane.TRANSLATED


def responses_lane(lane: Lane, info: Mapping[str, Any]) -> Lane:
    """Return the lane of OpenAI's Responses: by a chat where the file says it has only those."""
    said = info.get("supported_endpoints")
    has = {
        str(each).strip("/").removeprefix("v1/")
        for each in (said if isinstance(said, list) else ())
    }
    only_chats = "chat/completions" in has and "responses" not in has
    return Lane.DIRECT if lane is Lane.DIRECT and not only_chats else Lane.TRANSLATED


def wish_for(lanes: Mapping[str, str], *names: str) -> str | None:
    """Return what `mobius.lanes` says of the first of `names` that stands there."""
    return next((lanes[name] for name in names if name in lanes), None)
