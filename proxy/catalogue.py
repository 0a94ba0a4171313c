"""
Which row of LiteLLM's table is a model's: the facts of every model that it names. Pure.

The names are tried as LiteLLM tries them, except that a date or the number of a generation is never
left out of a name: another one may have another price, and a price is better unknown than wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from proxy.facts import (
    FREE,
    FREE_SOUND,
    NOTHING_STATED,
    STRANGER,
    Habits,
    ModelFacts,
    Price,
    Stated,
)
from proxy.pricing import (
    CACHED,
    COMPLETION,
    PROMPT,
    SOUND,
    Row,
    is_known_price,
    is_token_price,
    price_of,
    sound_price_of,
    uplifted,
)

FACTS_KEPT = 4096  # a stranger may ask for endless names under a wildcard
UPLIFT_OF_REGION = "regional_processing_uplift_multiplier"
UPLIFT_OF_ENDPOINT = "regional_endpoint_uplift_multiplier"
LIMITS = frozenset({"max_input_tokens", "max_output_tokens", "max_tokens"})
SUPPORTS = "supports_"
AUDIO_MODES = frozenset({"audio_speech", "audio_transcription"})
DENIED = frozenset(
    {
        "supports_audio_input", "supports_audio_output", "supports_function_calling",
        "supports_response_schema", "supports_vision",
    }
)  # fmt: skip
# In which ways the models of one provider differ in what may be asked of them.
HABITS = frozenset(
    {
        "supports_adaptive_thinking", "supports_forced_tool_use", "supports_legacy_thinking",
        "supports_reasoning", "supports_sampling_params", "thinking_always_on",
    }
)  # fmt: skip
PREFILL = "supports_assistant_prefill"
STATED = LIMITS | DENIED | {PREFILL}  # what `model_info` may say of a model, beside its prices
# Providers whose models the table has under several names of provider.
FAMILIES = {"bedrock": "bedrock", "fireworks_ai": "fireworks_ai", "vertex_ai": "vertex_ai"}
ALSO = {
    "azure_ai": frozenset({"azure", "openai"}),
    "cohere": frozenset({"cohere_chat"}),
}
# Where a last message of the assistant's is all that a Claude needs. Other models want a flag
# beside it, and what a reseller makes of it is not known.
PREFILLED = frozenset({"anthropic", "azure_ai", "bedrock", "bedrock_converse", "vertex_ai"})
# They pass on models of others under their own names.
ANY_PROVIDER = frozenset({"github", "litellm_proxy", "nadir"})
INCLUSIVE = frozenset({"xai"})  # the dearer price begins at the step, not above it
# Fireworks gives this share off what is read from its cache where the table is silent.
FIREWORKS_CACHED_SHARE = 0.5

_FINE_TUNE = re.compile(r"(:[^:]*){3}$")  # of ft:gpt-4o-2024-08-06:org:suffix:id
_VERSION = re.compile(r"-[0-9]{3}$")  # of gemini-2.0-flash-001, and not of claude-opus-4-9
_BEDROCK_ROUTES = re.compile(r"^(?:(?:converse|invoke|chat_completions|openai|mantle)/)+")
_BEDROCK_THROUGHPUT = re.compile(r"(?<=:[0-9]):[0-9]+k$|\[\w+\]$")
_BEDROCK_REGION = re.compile(
    r"^(?:(?:global|us-gov|us|eu|apac|jp|au)\.|[a-z]{2}(?:-[a-z]+)+-[0-9]/)"
)


class PriceTable:
    """The facts of the models in `rows`, which are by name in small letters."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._find = lru_cache(maxsize=FACTS_KEPT)(self._search)

    def find(self, provider: str, model: str, stated: Stated = NOTHING_STATED) -> ModelFacts:
        """Return what is known of a model. What the file states wins, number by number."""
        return self._find(provider, model, stated)

    def _search(self, provider: str, model: str, stated: Stated) -> ModelFacts:
        row, numbers = self._row(provider, stated.base_model or model, stated), dict(stated.numbers)
        if numbers.keys() & {PROMPT, COMPLETION}:
            # What the operator pays is not raised by a region, nor replaced by ranges.
            row = {name: row[name] for name in row if name in STATED or is_token_price(name)}
        elif numbers.keys() & SOUND and row.get("mode") in AUDIO_MODES:
            row = {name: row[name] for name in row if not is_known_price(name)}
        if "max_tokens" in numbers:  # LiteLLM's older name
            row["max_output_tokens"] = numbers["max_tokens"]
        row |= numbers
        if provider == "fireworks_ai" and row.get(CACHED) is None and row.get(PROMPT) is not None:
            row[CACHED] = row[PROMPT] * FIREWORKS_CACHED_SHARE
        return ModelFacts(
            price=FREE if stated.mocked else _price(row, provider, stated.region),
            max_input_tokens=_limit(row.get("max_input_tokens")),
            max_output_tokens=_limit(row.get("max_output_tokens")),
            listed=() if stated.mocked else tuple((n, row[n]) for n in row if is_listed(n)),
            sound=FREE_SOUND if stated.mocked else sound_price_of(row),
            cannot=frozenset(
                name for name in DENIED if row.get(name) is False and not stated.mocked
            ),
            habits=None if stated.mocked else _habits(self._rows.get(model), provider, model),
            prefills=_prefills(row, provider, model, stated),
        )

    def _row(self, provider: str, model: str, stated: Stated) -> dict[str, Any]:
        for name in _spellings(provider, model, stated.region):
            row = self._rows.get(name.lower())
            if row is not None and _fits(row.get("litellm_provider"), provider):
                return dict(row)
        # A base model is the operator's word, and may be another provider's.
        return dict(self._rows.get(model.lower(), {}) if stated.base_model else {})


def is_listed(name: str) -> bool:
    """Say whether people are told of a model what the table or the file has under this name."""
    return name == "mode" or name.startswith(SUPPORTS) or is_known_price(name)


def _habits(row: Row | None, provider: str, model: str) -> Habits | None:
    """Return what the table says; None where it says it in a way that is LiteLLM's to read."""
    if row is None and "/" not in model:
        return STRANGER
    if row is None or row.get("litellm_provider") != provider:
        return None
    limit = _limit(row.get("max_output_tokens"))
    if limit is None or limit == _limit(row.get("max_input_tokens")):
        return None  # else a prompt takes away from what may be written, by LiteLLM's own count
    has, lacks = (frozenset(n for n in HABITS if row.get(n) is said) for said in (True, False))
    return Habits(limit, has, lacks)


def _prefills(row: Row, provider: str, model: str, stated: Stated) -> bool:
    said = row.get(PREFILL) is True
    if any(name == PREFILL for name, _ in stated.numbers):
        return said
    return said and provider in PREFILLED and "claude" in model.lower() and not stated.mocked


def _price(row: Row, provider: str, region: str | None) -> Price | None:
    price = price_of(row, inclusive_steps=provider in INCLUSIVE)
    if price is None or region is None or region == "global":
        return price
    # Google has one for every place that is not global, OpenAI one for each of its regions.
    factor = row.get(f"{UPLIFT_OF_REGION}_{region}") or row.get(UPLIFT_OF_ENDPOINT)
    return uplifted(price, factor) if factor else price


def _spellings(provider: str, model: str, region: str | None) -> Iterator[str]:
    """Yield the names under which the table may have a model, the closest first."""
    provider = "vertex_ai" if provider == "vertex_ai_beta" else provider
    if region:
        yield f"{provider}/{region}/{model}"
    yield f"{provider}/{model}"
    yield model
    for name in _shorter(provider, model):
        yield f"{provider}/{name}"
        yield name


def _shorter(provider: str, model: str) -> Iterator[str]:
    """Yield the names of the same model that say less: no route, no region, no version."""
    if provider.startswith("bedrock"):
        plain = _BEDROCK_ROUTES.sub("", model)
        yield plain
        if plain.startswith("arn:"):
            plain = plain.rpartition("/")[2]
        plain = _BEDROCK_THROUGHPUT.sub("", plain)
        yield plain
        yield _BEDROCK_REGION.sub("", plain)
    elif provider == "fireworks_ai":
        yield f"accounts/fireworks/models/{model}"
        yield f"accounts/fireworks/routers/{model}"
    elif provider == "vertex_ai":
        yield f"meta/{model}"
        yield f"{model}@latest"
        yield _VERSION.sub("", model)
    elif provider == "gemini":
        yield _VERSION.sub("", model)
    elif model.startswith("ft:"):
        yield _FINE_TUNE.sub("", model)


def _fits(listed: str | None, provider: str) -> bool:
    """Say whether a row of the provider `listed` may be a model of `provider`."""
    provider = "vertex_ai" if provider == "vertex_ai_beta" else provider
    if listed is None or listed == provider or provider in ANY_PROVIDER:
        return True
    family = next((name for name in FAMILIES if provider.startswith(name)), None)
    return listed.startswith(family) if family else listed in ALSO.get(provider, ())


def _limit(value: object) -> int | None:
    return int(value) if isinstance(value, int | float) and value > 0 else None
