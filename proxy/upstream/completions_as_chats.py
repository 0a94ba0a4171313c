"""
What a target that has only chats does not understand of an older completion.

LiteLLM asks it a chat in their place. What it leaves out, or would send to be refused, is taken out
here and named, so that the caller is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from proxy.types import Call, Surface, Target
from proxy.upstream.fields import COOL_PROVIDERS, DEFAULTS, drops

# The question itself, and what LiteLLM or this gateway sees to by itself.
ASKED = frozenset({"model", "prompt", "stream", "stream_options"})
# OpenAI's parameters, by what a chat calls them; an empty name: LiteLLM has no way for it.
IN_A_CHAT: Mapping[str, str] = {
    "best_of": "best_of", "echo": "", "frequency_penalty": "frequency_penalty",
    "logit_bias": "logit_bias", "logprobs": "logprobs", "max_tokens": "max_tokens", "n": "n",
    "presence_penalty": "presence_penalty", "seed": "seed", "stop": "stop",
    "suffix": "suffix", "temperature": "temperature", "top_p": "top_p", "user": "user",
}  # fmt: skip
# What OpenAI assumes where nothing is said, beside what it assumes of a chat.
ASSUMED: Mapping[str, Any] = {**DEFAULTS, "best_of": 1, "echo": False, "suffix": ""}


def drop_unheard(
    litellm: ModuleType, target: Target, call: Call, body: dict[str, Any], *, foreign: bool
) -> Iterator[str]:
    """
    Take out of `body`, and name, what the target would not understand; clamp what it would.

    `foreign`: the caller wrote for another provider, so what is not OpenAI's is not this one's
    either. It does nothing for any other surface.
    """
    if call.surface is not Surface.COMPLETIONS or target.drop_params is False:
        return
    known = litellm.get_supported_openai_params(
        model=target.model, custom_llm_provider=target.provider
    )
    allowed = target.params.get("allowed_openai_params") or ()
    heard = frozenset({*(known or IN_A_CHAT.values()), *allowed})
    for name in [name for name in body if name not in ASKED]:
        word = IN_A_CHAT.get(name)
        if word in heard if word is not None else (name in heard or not foreign):
            continue
        value = body.pop(name)
        if name in call.body and value is not None and value != ASSUMED.get(name):
            yield name
    if drops(target, foreign=foreign):
        yield from _clamp(target, body)


def _clamp(target: Target, body: dict[str, Any]) -> Iterator[str]:
    heat = body.get("temperature")
    if target.provider in COOL_PROVIDERS and isinstance(heat, int | float) and heat > 1:
        body["temperature"] = 1.0
        yield "temperature"
    most, asked = target.facts.max_output_tokens, body.get("max_tokens")
    if most is not None and isinstance(asked, int) and asked > most:
        body["max_tokens"] = most
        yield "max_tokens"
