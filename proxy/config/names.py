"""
Which names may stand where, and what is done with each of them.

`known/*.txt` are the names that LiteLLM 1.106.2 knows, one a line, so that a misspelling is found
without importing LiteLLM (2 s); `tests/config/test_known.py` compares them with the installed one.
The tables below say which of them Mobius acts on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from proxy.parameters import EXTRAS, OPENAI
from proxy.redaction import is_secret as is_secret  # noqa: PLC0414  # a question about names too


@cache
def known(section: str) -> frozenset[str]:
    """Return the names LiteLLM knows in a section: `known/<section>.txt`."""
    file = Path(__file__).with_name("known") / f"{section}.txt"
    return frozenset(file.read_text(encoding="utf-8").split())


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SECTIONS = words(
    """
    credential_list environment_variables general_settings include litellm_settings mobius
    model_list router_settings
    """
)

# LiteLLM puts some of these in one section and some in the other, and people either.
SETTINGS = words(
    """
    allowed_fails cache cache_params content_policy_fallbacks context_window_fallbacks cooldown_time
    default_fallbacks drop_params fallbacks model_group_alias num_retries redis_db redis_host
    redis_password redis_port redis_url request_timeout retry_after routing_strategy ssl_verify
    stream_timeout timeout
    """
)

GENERAL = frozenset({"master_key"})
DEPLOYMENT = frozenset({"model_name", "litellm_params", "model_info"})

# litellm_params that Mobius itself acts on.
ACTED = words(
    """
    api_base api_key base_url custom_llm_provider drop_params litellm_credential_name
    max_parallel_requests mock_response model num_retries order request_timeout rpm ssl_verify
    stream_timeout timeout tpm weight
    """
)

# litellm_params that are defaults for the body.
COMPLETION = OPENAI | EXTRAS | {"metadata", "stream_options"}

# litellm_params that LiteLLM acts on when it is called, so they are handed to it as they are …
HANDED = words(
    """
    additional_drop_params allowed_openai_params api_version assistant_continue_message base_model
    bos_token client_id client_secret custom_prompt_dict default_headers deployment_id
    disable_add_transform_inline_image_block enable_prompt_caching ensure_alternating_roles
    eos_token extra_body extra_headers final_prompt_value fireworks_forward_user_id gcs_bucket_name
    gigachat_access_token gigachat_auth_url gigachat_scope headers hf_model_name
    merge_reasoning_content_in_choices mock_timeout model_config organization project
    provider_specific_header region_name roles
    sagemaker_base_url supports_system_message tenant_id tiered_pricing
    use_chat_completions_api use_xai_oauth user_continue_message
    """
)
# … as are all that begin so, credentials of clouds for the most part, and prices.
HANDED_PREFIXES = ("anthropic_", "aws_", "azure_", "databricks_", "oci_", "openai_", "vertex_",
                   "watsonx_", "snowflake_")  # fmt: skip
PRICE_WORDS = ("cost", "uplift")

# What LiteLLM resolves itself at the time of use: a pointer is left as it is written.
POINTERS = frozenset({"anthropic_issuer_signing_key_ref", "anthropic_keycloak_client_secret_ref"})


def is_price(name: str) -> bool:
    return any(word in name for word in PRICE_WORDS)


def is_handed(name: str) -> bool:
    """Say whether a known litellm_param goes to LiteLLM, rather than being LiteLLM's router's."""
    return name in HANDED or name.startswith(HANDED_PREFIXES) or is_price(name)


def nearest(name: str, names: Iterable[str]) -> str | None:
    """
    Return the known name that `name` misspells: within two edits, or one where it is short.

    An edit is a letter more, less or other, or two neighbours swapped. Names as short as `id` are
    near to everything, so for them nothing is.
    """
    best: tuple[int, str] | None = None
    for candidate in names:
        limit = min(best[0] if best else 2, (len(candidate) - 1) // 2)
        if abs(len(candidate) - len(name)) > limit:
            continue
        edits = _edits(name, candidate, limit)
        if edits <= limit and (best is None or (edits, candidate) < best):
            best = (edits, candidate)
    return best[1] if best else None


def _edits(left: str, right: str, limit: int) -> int:
    """Return the optimal string alignment distance, or anything above `limit` when it is above."""
    before: list[int] = []
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, 1):
        before, row, last = row, [i], before
        for j, b in enumerate(right, 1):
            edits = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == right[j - 2] and left[i - 2] == b:
                edits = min(edits, last[j - 2] + 1)
            row.append(edits)
        if min(row) > limit and min(before) >= limit:
            return limit + 1
    return row[-1]
