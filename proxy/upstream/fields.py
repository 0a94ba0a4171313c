"""
The fields of a body as a target is to get them, whatever lane it goes by.

What the file says for a body that leaves it out is filled in; what the target would not understand
is taken out, or clamped, and named. LiteLLM is asked for what a model understands.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from proxy.parameters import EXTRAS, OPENAI
from proxy.types import Call, Surface, Target

# Providers whose wire is OpenAI's own: the body goes out and comes back as it is.
NATIVE = frozenset({"openai", "azure", "custom_openai", "litellm_proxy", "hosted_vllm"})

# Never LiteLLM's: it reads its own controls out of `metadata`, and writes the others itself.
OURS = frozenset({"model", "messages", "stream", "stream_options", "metadata"})
# Where LiteLLM sends an `extra_body` as a field of that name. A contract test tries the others.
UNMERGED = frozenset(
    {"anthropic", "bedrock", "text-completion-codestral", "vertex_ai", "vertex_ai_beta"}
)
# What OpenAI assumes where nothing is said: dropping it changes nothing, so nobody is told.
DEFAULTS: Mapping[str, Any] = {
    "frequency_penalty": 0, "logit_bias": {}, "logprobs": False, "metadata": {},
    "modalities": ["text"], "n": 1, "parallel_tool_calls": True, "presence_penalty": 0,
    "response_format": {"type": "text"}, "service_tier": "auto", "stop": [], "store": False,
    "top_logprobs": 0, "verbosity": "medium",
}  # fmt: skip

# Anthropic's API reference: temperature ranges from 0 to 1, where OpenAI's goes to 2.
COOL_PROVIDERS = frozenset({"anthropic", "bedrock", "vertex_ai", "databricks"})

# Surfaces that take the parameters of a chat, for the most part.
GENERATING = frozenset({Surface.CHAT, Surface.COMPLETIONS, Surface.RESPONSES})
# Parameters of a chat that OpenAI's Responses have under the same name, with the same meaning.
ALIKE = frozenset(
    {
        "metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier",
        "store", "temperature", "top_logprobs", "top_p", "user",
    }
)  # fmt: skip

# Parameters that Anthropic has under the names that they have in the file.
SHARED = frozenset({"max_tokens", "temperature", "thinking", "top_k", "top_p"})

LENGTHS = frozenset({"max_tokens", "max_completion_tokens"})
TARGETS = 1024  # of which it is remembered what every call to them has in common


def filled(target: Target, call: Call) -> dict[str, Any]:
    """Return the body, and under it what the file says for a body that leaves it out."""
    if not target.defaults:
        return dict(call.body)
    if call.surface is Surface.MESSAGES:
        return {**{n: v for n, v in target.defaults.items() if n in SHARED}, **call.body}
    if call.surface not in GENERATING:
        return dict(call.body)  # the file's defaults are parameters of text
    defaults = dict(target.defaults)
    if call.surface is Surface.RESPONSES:
        defaults = {name: value for name, value in defaults.items() if name in ALIKE}
    if not call.stream:
        defaults.pop("stream_options", None)  # refused by OpenAI where nothing is streamed
    if LENGTHS & call.body.keys():
        defaults = {name: value for name, value in defaults.items() if name not in LENGTHS}
    return {**defaults, **call.body}


def take_out(path: str, body: dict[str, Any]) -> None:
    """Take a field out of `body`: one of its own, or a path of LiteLLM's, `tools[*].strict`."""
    name = re.split(r"[.\[]", path, maxsplit=1)[0]
    if name in ("model", "messages") or name not in body:
        return
    if name == path:
        del body[name]
        return
    # It copies what it is given, so only the field itself: the body is the caller's.
    paths = importlib.import_module("litellm.litellm_core_utils.dot_notation_indexing")
    body[name] = paths.delete_nested_value({name: body[name]}, path).get(name)


def drops(target: Target, *, foreign: bool) -> bool:
    """Say whether what the target does not understand is dropped, although it is OpenAI's wire."""
    return target.drop_params is True or (foreign and target.drop_params is not False)


@dataclass(frozen=True, slots=True)
class Words:
    """What a target understands of a body, as far as is known."""

    known: frozenset[str]
    metadata: bool  # a field of that name is brought to it
    others: bool  # so is a field of any name that is not a parameter of a chat's
    limit_tokens: int | None  # the most that the model is known to write

    def brings(self, name: str) -> bool:
        """Say whether a field of this name has a way to the target, understood or not."""
        if name == "metadata":
            return self.metadata
        return self.others or name in OPENAI or name in EXTRAS


@lru_cache(maxsize=TARGETS)
def words_of(litellm: ModuleType, target: Target, *, native: bool) -> Words:
    """Return what the target understands, as LiteLLM knows it."""
    supported = litellm.get_supported_openai_params(
        model=target.model, custom_llm_provider=target.provider
    )
    allowed = target.params.get("allowed_openai_params") or ()
    always = OURS if native else OURS - {"metadata"}
    return Words(
        known=frozenset(
            {*(supported or OPENAI), *allowed, *always, *(("user",) if native else ())}
        ),
        metadata=target.provider in litellm.openai_compatible_providers,
        others=target.provider not in UNMERGED,
        limit_tokens=_output_limit(litellm, target),
    )


def drop(
    words: Words,
    target: Target,
    call: Call,
    body: dict[str, Any],
    *,
    native: bool,
    foreign: bool,
    dropping: bool,
) -> Iterator[str]:
    """Take out of `body`, and name, what the target would not understand; clamp what it would."""
    # LiteLLM refuses to translate what the target has no word for, at home as elsewhere.
    openai_s = dropping or (not native and target.drop_params is not False)
    for name in [name for name in body if name not in words.known]:
        # What is not OpenAI's is the target's to judge, unless it was written for another.
        ours_to_judge = openai_s if name in OPENAI else dropping and foreign
        unheard = ours_to_judge and name in call.body
        says_nothing = body[name] is None or body[name] == DEFAULTS.get(name)
        if unheard or not (native or (words.brings(name) and not says_nothing)):
            del body[name]
            if not says_nothing and name in call.body:
                yield name
    if dropping:
        yield from _clamp(words, target, body)


def _clamp(words: Words, target: Target, body: dict[str, Any]) -> Iterator[str]:
    temperature = body.get("temperature")
    if (
        target.provider in COOL_PROVIDERS
        and isinstance(temperature, int | float)
        and temperature > 1
    ):
        body["temperature"] = 1.0
        yield "temperature"
    limit = words.limit_tokens
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
