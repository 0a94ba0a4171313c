"""
Which provider a model belongs to, and which variable holds that provider's key by custom.

LiteLLM's rules, read from its files and not asked of it: importing it takes two seconds.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from proxy.config.names import known, words

PRICE_TABLE = "model_prices_and_context_window_backup.json"
NO_KEY = "none"  # sent where an `api_base` stands without a key: LiteLLM wants some text there


@dataclass(frozen=True, slots=True)
class Custom:
    """
    What a provider's users set by custom, in the order LiteLLM looks.

    `homes` are the hosts that may get the key although they stand in the file as `api_base`.
    """

    keys: tuple[str, ...]
    homes: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    needs_base: bool = False


CUSTOMS: Mapping[str, Custom] = {
    "openai": Custom(
        ("OPENAI_API_KEY",), ("api.openai.com",), bases=("OPENAI_BASE_URL", "OPENAI_API_BASE")
    ),
    "text-completion-openai": Custom(("OPENAI_API_KEY",), ("api.openai.com",)),
    "anthropic": Custom(
        ("ANTHROPIC_API_KEY",),
        ("api.anthropic.com",),
        bases=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
    ),
    "azure": Custom(
        ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY"),
        (".openai.azure.com", ".cognitiveservices.azure.com"),
        bases=("AZURE_API_BASE",),
        needs_base=True,
    ),
    "azure_ai": Custom(
        ("AZURE_AI_API_KEY",),
        (".services.ai.azure.com", ".models.ai.azure.com", ".inference.ai.azure.com"),
        bases=("AZURE_AI_API_BASE",),
        needs_base=True,
    ),
    "gemini": Custom(("GEMINI_API_KEY", "GOOGLE_API_KEY"), ("generativelanguage.googleapis.com",)),
    "mistral": Custom(("MISTRAL_API_KEY",), ("api.mistral.ai",)),
    "codestral": Custom(("CODESTRAL_API_KEY",), ("codestral.mistral.ai",)),
    "groq": Custom(("GROQ_API_KEY",), ("api.groq.com",)),
    "cohere": Custom(("COHERE_API_KEY", "CO_API_KEY"), ("api.cohere.ai", "api.cohere.com")),
    "cohere_chat": Custom(("COHERE_API_KEY", "CO_API_KEY"), ("api.cohere.ai", "api.cohere.com")),
    "deepseek": Custom(("DEEPSEEK_API_KEY",), ("api.deepseek.com",)),
    "xai": Custom(("XAI_API_KEY",), ("api.x.ai",)),
    "openrouter": Custom(("OPENROUTER_API_KEY", "OR_API_KEY"), ("openrouter.ai",)),
    "together_ai": Custom(
        ("TOGETHERAI_API_KEY", "TOGETHER_API_KEY", "TOGETHER_AI_API_KEY", "TOGETHER_AI_TOKEN"),
        ("api.together.xyz", "api.together.ai"),
    ),
    "fireworks_ai": Custom(
        ("FIREWORKS_AI_API_KEY", "FIREWORKS_API_KEY", "FIREWORKSAI_API_KEY", "FIREWORKS_AI_TOKEN"),
        ("api.fireworks.ai",),
    ),
    "perplexity": Custom(("PERPLEXITYAI_API_KEY", "PERPLEXITY_API_KEY"), ("api.perplexity.ai",)),
    "cerebras": Custom(("CEREBRAS_API_KEY",), ("api.cerebras.ai",)),
    "sambanova": Custom(("SAMBANOVA_API_KEY",), ("api.sambanova.ai",)),
    "nvidia_nim": Custom(("NVIDIA_NIM_API_KEY",), ("integrate.api.nvidia.com",)),
    "deepinfra": Custom(("DEEPINFRA_API_KEY",), ("api.deepinfra.com",)),
    "huggingface": Custom(("HUGGINGFACE_API_KEY",), (".huggingface.co",)),
    "replicate": Custom(("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"), ("api.replicate.com",)),
    "ai21": Custom(("AI21_API_KEY",), ("api.ai21.com",)),
    "ai21_chat": Custom(("AI21_API_KEY",), ("api.ai21.com",)),
    "voyage": Custom(("VOYAGE_API_KEY",), ("api.voyageai.com",)),
    "moonshot": Custom(("MOONSHOT_API_KEY",), ("api.moonshot.ai",)),
    "dashscope": Custom(("DASHSCOPE_API_KEY",), (".aliyuncs.com",)),
    "novita": Custom(("NOVITA_API_KEY",), ("api.novita.ai",)),
    "nebius": Custom(("NEBIUS_API_KEY",), ("api.studio.nebius.ai",)),
    "minimax": Custom(("MINIMAX_API_KEY",), ("api.minimax.io", "api.minimaxi.com")),
    "databricks": Custom(
        ("DATABRICKS_API_KEY",),
        (".databricks.com", ".azuredatabricks.net"),
        bases=("DATABRICKS_API_BASE",),
        needs_base=True,
    ),
}

# They sign requests with what the machine is, not with a key of ours.
CLOUDS = words(
    """
    bedrock bedrock_mantle oci sagemaker sagemaker_chat sagemaker_nova vertex_ai vertex_ai_beta
    watsonx watsonx_text
    """
)


def split_model(model: str, *, custom: str | None = None) -> tuple[str, str, bool]:
    """
    Return the provider, the provider's name for the model, and whether the provider was certain.

    `custom_llm_provider` wins, then a known prefix, then LiteLLM's price table, else OpenAI.
    """
    prefix, slash, rest = model.partition("/")
    if custom is not None:
        return custom, rest if slash and rest and prefix == custom else model, True
    if slash and rest and prefix in known("providers"):
        return prefix, rest, True
    listed = "openai" if model.startswith("ft:gpt-") else _listed().get(model)
    return listed or "openai", model, listed is not None


def is_home(provider: str, base: str) -> bool:
    """Say whether `base` is the provider's own address, over TLS."""
    custom = CUSTOMS.get(provider)
    try:
        url = urlsplit(base)
        host = url.hostname or ""
    except ValueError:
        return False
    if custom is None or url.scheme != "https":
        return False
    return any(host == home or (home[0] == "." and host.endswith(home)) for home in custom.homes)


@cache
def _listed() -> Mapping[str, str]:
    """Return the provider of each model that LiteLLM's price table names without a prefix."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return MappingProxyType({})
    table = json.loads((Path(spec.origin).parent / PRICE_TABLE).read_bytes())
    return MappingProxyType(
        {
            name: _family(row["litellm_provider"])
            for name, row in table.items()
            if "/" not in name and row.get("litellm_provider") and name != "sample_spec"
        }
    )


def _family(provider: str) -> str:
    """Return the provider behind a row of the table, which says `vertex_ai-language-models`."""
    if provider == "bedrock_converse":
        return "bedrock"
    return (
        provider.removesuffix("-embedding-models") if provider[:9] != "vertex_ai" else "vertex_ai"
    )
