"""
Speech as LiteLLM asks for it, and from a provider whose chats speak.

Of those `litellm.aspeech` cannot be used: it asks twice, and by a client that nobody watches. What
it would call in the end is called here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

TRANSLATION = "litellm.endpoints.speech.speech_to_completion_bridge.transformation"
TALKING = ("gemini/", "vertex_ai/gemini", "vertex_ai_beta/gemini")  # whose chats speak


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
