"""
OpenAI's Responses from a provider that has only chats, by LiteLLM's own translation.

`litellm.aresponses` cannot be used: it imports LiteLLM's proxy, which does not come with the SDK.
What it would call in the end is called here.
"""

from __future__ import annotations

import importlib
from typing import Any

from proxy.errors import UpstreamFailure
from proxy.retry import Kind

HANDLER = "litellm.responses.litellm_completion_transformation.handler"
# OpenAI's API reference, "Create a model response": its fields but `input`, `model` and `stream`.
FIELDS = frozenset(
    {
        "include", "instructions", "max_output_tokens", "max_tool_calls", "metadata",
        "parallel_tool_calls", "prompt_cache_key", "reasoning", "safety_identifier", "service_tier",
        "store", "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p",
        "truncation", "user",
    }
)  # fmt: skip
# What has been kept at a provider is known to nobody else.
KEPT = ("previous_response_id", "conversation", "prompt")


async def respond(**arguments: Any) -> Any:
    """Return what `litellm.aresponses` would for a provider of chats. Raises UpstreamFailure."""
    for name in KEPT:
        if arguments.pop(name, None) is not None:
            message = f"{name} names what only a provider of responses keeps"
            raise UpstreamFailure(message, kind=Kind.DIALECT, param=name)
    items = arguments["input"]
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") == "item_reference":
            message = "an item_reference names what only a provider of responses keeps"
            raise UpstreamFailure(message, kind=Kind.DIALECT, param="input")
    if arguments.pop("background", None):
        raise UpstreamFailure("this provider answers at once or not at all", kind=Kind.DIALECT)
    handler = importlib.import_module(HANDLER).LiteLLMCompletionTransformationHandler()
    said = {name: arguments.pop(name) for name in FIELDS & arguments.keys()}
    provider, _, _ = arguments["model"].partition("/")
    return await handler.response_api_handler(
        model=arguments.pop("model"),
        input=arguments.pop("input"),
        responses_api_request=said,
        custom_llm_provider=provider,
        _is_async=True,
        stream=arguments.pop("stream", None),
        _skip_mcp_handler=True,  # it is in LiteLLM's proxy too
        **arguments,
    )
