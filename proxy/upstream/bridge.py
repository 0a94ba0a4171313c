"""
OpenAI's Responses, and speech, from a provider that has only chats, by LiteLLM's own translation.

`litellm.aresponses` cannot be used: it imports LiteLLM's proxy, which does not come with the SDK.
Neither can `litellm.aspeech` where it asks a chat: it asks twice, and by a client that nobody
watches. What they would call in the end is called here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from proxy.errors import UpstreamFailure
from proxy.retry import Kind

TRANSLATION = "litellm.endpoints.speech.speech_to_completion_bridge.transformation"
TALKING = ("gemini/", "vertex_ai/gemini", "vertex_ai_beta/gemini")  # whose chats speak
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
            message = f"{name} names what another provider keeps"
            raise UpstreamFailure(message, kind=Kind.DIALECT)
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


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was said, as a whole."""

    sound: bytes = field(repr=False)
    content_type: str
    usage: Mapping[str, Any] | None = None  # in the words of OpenAI's events


async def speak(litellm: ModuleType, **arguments: Any) -> Spoken:
    """Return what `litellm.aspeech` would."""
    if arguments["model"].startswith(TALKING):
        return await _spoken_in_a_chat(litellm, **arguments)
    answer = await litellm.aspeech(**arguments)
    return Spoken(answer.content, answer.response.headers.get("content-type", ""))


async def _spoken_in_a_chat(
    litellm: ModuleType,
    *,
    model: str,
    input: str,
    voice: Any = None,
    response_format: str | None = None,
    instructions: str | None = None,
    speed: Any = None,
    **place: Any,
) -> Spoken:
    translation = importlib.import_module(TRANSLATION)
    handler = translation.SpeechToCompletionBridgeTransformationHandler()
    form = {} if response_format is None else {"response_format": response_format}
    request = handler.transform_request(
        model=model,
        # As Google's guide to speech has it: a chat is told how to say something along with it.
        input=input if instructions is None else f"{instructions}\n\n{input}",
        voice=voice,
        optional_params=form,
        litellm_params=place,
        headers=place.pop("headers", {}),
        litellm_logging_obj=None,
        custom_llm_provider=model.partition("/")[0],
    )
    reply = await litellm.acompletion(**request)
    answer = handler.transform_response(model_response=reply, response_format=response_format)
    counted = getattr(reply, "usage", None)
    usage = counted and {
        "input_tokens": counted.prompt_tokens,
        "output_tokens": counted.completion_tokens,
        "total_tokens": counted.total_tokens,
    }
    return Spoken(answer.content, answer.response.headers["content-type"], usage)
