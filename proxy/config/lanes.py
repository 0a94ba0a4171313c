"""The lanes of a target: past LiteLLM where its wire is known here, else through it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.config.names import is_price
from proxy.facts import ModelFacts
from proxy.snapshot import TURNS
from proxy.types import Lane

# Providers that LiteLLM asks as OpenAI is asked, at `api_base` and with `Authorization: Bearer`.
DIRECT = frozenset({"openai", "custom_openai", "litellm_proxy", "hosted_vllm"})
# Providers that are asked as Anthropic is asked, on Anthropic's surfaces.
MESSAGES = frozenset({"anthropic"})
# Providers with a wire format of their own that is written here: those of `upstream/tongues`.
TRANSLATED = frozenset({"anthropic"})
# What the direct lane does with a litellm_param itself; any other is LiteLLM's to act on.
UNDERSTOOD = frozenset(
    {
        "additional_drop_params", "allowed_openai_params", "api_base", "api_key", "base_model",
        "extra_body", "extra_headers", "headers", "organization", "project",
    }
)  # fmt: skip

# And what the translated lane does.
SIMPLE = frozenset({"api_base", "api_key", "extra_headers", "headers"})
# What LiteLLM puts over the file's headers, or chooses among them.
LITELLMS_HEADERS = ("accept", "anthropic-", "authorization", "content-type", "x-api-key")
ACCOUNT = "sk-ant-oat"  # what a token of a person's account begins with, where a key is meant


def obstacle(
    lane: Lane, provider: str, model: str, params: Mapping[str, Any], facts: ModelFacts
) -> str | None:
    """Return why chats with a target cannot go by `lane`; None when they can."""
    if lane is Lane.UNIFIED:
        return None
    if lane is Lane.TRANSLATED:
        return _untranslated(provider, model, params, facts)
    if provider not in DIRECT:
        return f"{provider} is not asked in OpenAI's own format"
    if model.startswith(TURNS):
        return "LiteLLM calls another endpoint for this model"
    if provider != "openai" and "api_base" not in params:
        return "it has no api_base"
    return _unclear(params, UNDERSTOOD)


def _untranslated(
    provider: str, model: str, params: Mapping[str, Any], facts: ModelFacts
) -> str | None:
    if provider not in TRANSLATED:
        return f"only LiteLLM translates for {provider}"
    if "*" not in model and facts.habits is None:
        return "what LiteLLM's table says of this model is LiteLLM's to read"
    if str(params.get("api_key", "")).startswith(ACCOUNT):
        return "its key is a person's, which LiteLLM knows how to use"
    names = {str(n).lower() for kind in ("headers", "extra_headers") for n in params.get(kind, ())}
    if set_by_litellm := sorted(name for name in names if name.startswith(LITELLMS_HEADERS)):
        return f"the header {set_by_litellm[0]} is LiteLLM's to write"
    return _unclear(params, SIMPLE)


def _unclear(params: Mapping[str, Any], understood: frozenset[str]) -> str | None:
    """Return what of the params only LiteLLM can act on; None where there is nothing."""
    unknown = sorted(name for name in params if name not in understood and not is_price(name))
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
    facts: ModelFacts,
    *,
    wish: str | None,
) -> tuple[Lane, str | None]:
    """Return the lane of chats, and why it is not the one that `mobius.lanes` wishes for."""
    lane = Lane.TRANSLATED if provider in TRANSLATED else Lane.DIRECT
    lane = Lane.UNIFIED if obstacle(lane, provider, model, params, facts) else lane
    if wish is None or wish == lane:
        return lane, None
    why = obstacle(Lane(wish), provider, model, params, facts)
    return (Lane(wish), None) if why is None else (lane, why)


def messages_lane(provider: str, params: Mapping[str, Any], *, wish: str | None) -> Lane:
    """Return the lane of Anthropic's surfaces, of which all but Anthropic are asked by a chat."""
    if provider in MESSAGES and wish != Lane.UNIFIED and _unclear(params, UNDERSTOOD) is None:
        return Lane.DIRECT
    return Lane.AS_CHAT


def responses_lane(
    provider: str,
    params: Mapping[str, Any],
    info: Mapping[str, Any],
    *,
    lane: Lane,
    wish: str | None,
) -> Lane:
    """Return the lane of OpenAI's Responses, of which who may have only chats is asked by those."""
    said = info.get("supported_endpoints")
    has = {str(each).strip("/").removeprefix("v1/") for each in _list(said)}
    only_chats = "chat/completions" in has and "responses" not in has
    azure = provider == "azure" and wish != Lane.UNIFIED and _is_plain_azure(params)
    return Lane.DIRECT if (lane is Lane.DIRECT or azure) and not only_chats else Lane.AS_CHAT


def _is_plain_azure(params: Mapping[str, Any]) -> bool:
    """Say whether the file has all that opens the address of a whole resource: it and its key."""
    base = str(params.get("api_base", "")).rstrip("/").removesuffix("/v1").removesuffix("/openai")
    own = {name: value for name, value in params.items() if name != "api_version"}
    return (
        "api_key" in params
        and bool(base)
        and "/openai" not in base
        and _unclear(own, UNDERSTOOD) is None
    )


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def wish_for(lanes: Mapping[str, str], *names: str) -> str | None:
    """Return what `mobius.lanes` says of the first of `names` that stands there."""
    return next((lanes[name] for name in names if name in lanes), None)
