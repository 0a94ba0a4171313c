"""
A Call and a Target as the arguments of `litellm.acompletion`.

LiteLLM is handed an allow-list and nothing else. For a provider that speaks OpenAI's format the
whole body travels in an `extra_body` built here, so what the caller sent beats what LiteLLM would
make of it. For any other provider the parameters are LiteLLM's to translate, and on a foreign
target those it does not know are dropped and named.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from proxy.types import Call, Json, Target

# Providers whose wire is OpenAI's own: the body goes out and comes back as it is.
NATIVE = frozenset({"openai", "azure", "custom_openai", "litellm_proxy", "hosted_vllm"})

# OpenAI-compatible providers that LiteLLM asks with its own HTTP handler; the others of that kind
# it asks with OpenAI's SDK, which takes another kind of client. A contract test tries them all.
HANDLED = frozenset(
    {
        "azure_ai", "cometapi", "deepseek", "edenai", "fireworks_ai", "groq", "hosted_vllm",
        "ragflow", "together_ai", "xai",
    }
)  # fmt: skip

# The arguments of `acompletion` that a body may fill: OpenAI's parameters, as LiteLLM knows them.
PARAMETERS = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls",
        "prediction", "presence_penalty", "prompt_cache_key", "reasoning_effort",
        "response_format", "safety_identifier", "seed", "service_tier", "stop", "store",
        "temperature", "thinking", "tool_choice", "tools", "top_logprobs", "top_p", "user",
        "verbosity", "web_search_options",
    }
)  # fmt: skip
# Never LiteLLM's: it reads its own controls out of `metadata`, and writes the others itself.
OURS = frozenset({"model", "messages", "stream", "stream_options", "metadata"})

# A fixed number, because it is part of LiteLLM's client cache key; the attempt's own clock decides.
TIMEOUT_S = 86_400.0
# Anthropic's API reference: temperature ranges from 0 to 1, where OpenAI's goes to 2.
COOL_PROVIDERS = frozenset({"anthropic", "bedrock", "vertex_ai", "databricks"})


@dataclass(frozen=True, slots=True)
class Written:
    """What LiteLLM is called with, and what the caller is to be told about it."""

    arguments: Mapping[str, Any]
    native: bool  # the answer's bytes are the provider's own
    dropped: tuple[str, ...]
    secrets: tuple[str, ...]


def write_arguments(litellm: ModuleType, target: Target, call: Call, *, foreign: bool) -> Written:
    """Return what to call LiteLLM with; `foreign`: the caller wrote for another provider."""
    native = target.provider in NATIVE and "mock_response" not in target.params
    body = {**target.defaults, **call.body}
    for name in target.params.get("additional_drop_params") or ():
        body.pop(name, None)
    drop = target.drop_params is True or (foreign and target.drop_params is not False)
    dropped = _drop(litellm, target, body, foreign=foreign) if drop else []
    place = {k: v for k, v in target.params.items() if k not in ("extra_body", "drop_params")}
    arguments: dict[str, Any] = {
        **place,
        "model": f"{target.provider}/{target.model}",
        "stream": call.stream,
        # LiteLLM edits messages in place; the next target must see them as they were sent.
        "messages": copy.deepcopy(body["messages"]),
        "max_retries": 0,
        # Else LiteLLM asks the MCP servers of the tools itself, and calls the model again.
        "_skip_mcp_handler": True,
        "timeout": TIMEOUT_S,
        **(_as_sent(target, call, body) if native else _translated(target, call, body)),
    }
    if drop and not native:
        arguments["drop_params"] = True
    return Written(arguments, native, tuple(dropped), tuple(_secrets(target.params)))


def _as_sent(target: Target, call: Call, body: Json) -> Json:
    sent = {name: value for name, value in body.items() if name != "model"}
    if call.stream:
        options = sent.get("stream_options")
        # The usage is a fact to settle with; a chunk that nobody asked for is dropped again.
        sent["stream_options"] = {
            **(options if isinstance(options, dict) else {}),
            "include_usage": True,
        }
    return {"extra_body": {**sent, **(target.params.get("extra_body") or {})}}


def _translated(target: Target, call: Call, body: Json) -> Json:
    arguments = {name: value for name, value in body.items() if name not in OURS}
    if call.stream:
        arguments["stream_options"] = {"include_usage": True}
    return {**arguments, **(target.params.get("extra_body") or {})}


def _drop(litellm: ModuleType, target: Target, body: dict[str, Any], *, foreign: bool) -> list[str]:
    """Take out of `body`, and name, what the target would not understand; clamp what it would."""
    supported = litellm.get_supported_openai_params(
        model=target.model, custom_llm_provider=target.provider
    )
    known = {*(supported or PARAMETERS), *(target.params.get("allowed_openai_params") or ())}
    unknown = [
        name
        for name in body
        if name not in known
        and name not in ("model", "messages", "stream", "stream_options")
        and (foreign or name in PARAMETERS)
        and name not in target.defaults
    ]
    for name in unknown:
        del body[name]
    return [*unknown, *_clamp(litellm, target, body)]


def _clamp(litellm: ModuleType, target: Target, body: dict[str, Any]) -> Iterator[str]:
    temperature = body.get("temperature")
    if (
        target.provider in COOL_PROVIDERS
        and isinstance(temperature, int | float)
        and temperature > 1
    ):
        body["temperature"] = 1.0
        yield "temperature"
    limit = _output_limit(litellm, target)
    for name in ("max_tokens", "max_completion_tokens"):
        if limit is not None and isinstance(value := body.get(name), int) and value > limit:
            body[name] = limit
            yield name


def _output_limit(litellm: ModuleType, target: Target) -> int | None:
    """Return the most tokens that the model is known to write; None when nobody knows."""
    for facts in (
        target.info,
        litellm.model_cost.get(f"{target.provider}/{target.model}", {}),
        litellm.model_cost.get(target.model, {}),
    ):
        if isinstance(limit := facts.get("max_output_tokens"), int):
            return limit
    return None


def _secrets(params: Json) -> Iterator[str]:
    for name, value in params.items():
        if (
            isinstance(value, str)
            and len(value) >= 8
            and any(word in name for word in ("key", "secret", "token", "password"))
        ):
            yield value
