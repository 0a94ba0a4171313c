"""
The names by which a client could steer LiteLLM. Pure.

LiteLLM takes its own settings (URLs, keys, providers, prices, callbacks, mocks, templates, files)
from the same dictionary as a caller's request, and resolves `os.environ/NAME` in its values. The
upstream passes it an allow-list of arguments; this is the wall before that one, and the one that
tells the caller. The table is compared with the installed LiteLLM by a test, so an upgrade
cannot add a name unnoticed.

What is not searched: message text, JSON schemas, tool arguments. They are the caller's own words,
and LiteLLM reads no settings there.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeAlias

from proxy.errors import RequestInvalid
from proxy.types import Json


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# `all_litellm_params`, the arguments of `acompletion` and `completion` that are no fields of
# OpenAI's request, and the fields of a deployment's `litellm_params`. `thinking` and
# `include_server_side_tool_invocations` are missing: they are parameters of models.
NAMES = _words("""
_agentic_loop_api_surface _agentic_loop_depth _agentic_loop_fingerprints
_code_interpreter_interception_active _code_interpreter_interception_converted_stream
_code_interpreter_interception_sandbox_key _code_interpreter_interception_session_scoped
_context_compaction_state _headroom_interception_converted_stream _litellm_addressed_response_id
_litellm_strip_stream_usage _router_weights _websearch_interception_converted_stream
_websearch_interception_emit_native_blocks acompletion adaptive_router_config
adaptive_router_default_model aembedding aimg_generation allm_passthrough_route
allow_client_keepalive_override allowed_model_region allowed_openai_params
annotation_cost_per_page annotation_cost_per_page_batches
anthropic_disable_workload_identity_federation anthropic_federation_rule_id
anthropic_federation_workspace_id anthropic_identity_source anthropic_identity_token
anthropic_identity_token_file anthropic_issuer_audience anthropic_issuer_signing_key_ref
anthropic_issuer_subject anthropic_issuer_ttl_seconds anthropic_issuer_url
anthropic_keycloak_auth_method anthropic_keycloak_client_id anthropic_keycloak_client_secret_ref
anthropic_keycloak_scope anthropic_keycloak_token_url anthropic_organization_id
anthropic_service_account_id api_base api_key api_version arize_api_key
arize_error_sampling_rate arize_otlp_protocol arize_space_id arize_space_key
arize_success_sampling_rate assistant_continue_message async_call atext_completion
attempted_targets auto_router_config auto_router_config_path auto_router_default_model
auto_router_embedding_model auto_router_max_input_chars auto_router_model_compression
auto_router_routing_compression aws_access_key_id aws_batch_role_arn aws_bedrock_project_id
aws_bedrock_runtime_endpoint aws_external_id aws_profile_name aws_region_name aws_role_name
aws_secret_access_key aws_session_name aws_session_tags aws_session_token aws_sts_endpoint
aws_web_identity_token azure azure_ad_token azure_ad_token_provider azure_password azure_scope
azure_username base_model base_url bedrock_tags bos_token bucket_name budget_duration cache
cache_creation_input_audio_token_cost cache_creation_input_token_cost
cache_creation_input_token_cost_above_100k_tokens
cache_creation_input_token_cost_above_100k_tokens_batches
cache_creation_input_token_cost_above_1hr
cache_creation_input_token_cost_above_1hr_above_100k_tokens
cache_creation_input_token_cost_above_200k_tokens
cache_creation_input_token_cost_above_200k_tokens_batches
cache_creation_input_token_cost_above_272k_tokens
cache_creation_input_token_cost_above_272k_tokens_batches
cache_creation_input_token_cost_above_272k_tokens_flex
cache_creation_input_token_cost_above_272k_tokens_priority
cache_creation_input_token_cost_above_272k_tokens_ultrafast
cache_creation_input_token_cost_batches cache_creation_input_token_cost_flex
cache_creation_input_token_cost_priority cache_creation_input_token_cost_ultrafast cache_key
cache_read_input_audio_token_cost cache_read_input_image_token_cost cache_read_input_token_cost
cache_read_input_token_cost_above_100k_tokens
cache_read_input_token_cost_above_100k_tokens_batches
cache_read_input_token_cost_above_200k_tokens
cache_read_input_token_cost_above_200k_tokens_batches
cache_read_input_token_cost_above_200k_tokens_priority
cache_read_input_token_cost_above_272k_tokens
cache_read_input_token_cost_above_272k_tokens_batches
cache_read_input_token_cost_above_272k_tokens_flex
cache_read_input_token_cost_above_272k_tokens_priority
cache_read_input_token_cost_above_272k_tokens_ultrafast
cache_read_input_token_cost_above_512k_tokens cache_read_input_token_cost_balanced
cache_read_input_token_cost_batches cache_read_input_token_cost_flex
cache_read_input_token_cost_priority cache_read_input_token_cost_ultrafast caching
caching_groups citation_cost_per_token client client_id client_secret client_side_timeout
complete_response completion_call_id complexity_router_config complexity_router_default_model
configurable_clientside_auth_params context_window_fallback_dict cooldown_time cost_per_query
cost_per_second custom_llm_provider custom_prompt_dict data_residency dd_agent_host
dd_agent_port dd_api_key dd_site default_api_key_rpm_limit default_api_key_tpm_limit
deployment_id disable_add_transform_inline_image_block drop_params enable_json_schema_validation
enable_prompt_caching enable_tag_filtering ensure_alternating_roles eos_token extra_headers
fallback_depth fallbacks fastest_response final_prompt_value fireworks_forward_user_id
force_timeout gcs_bucket_name gcs_path_service_account google_maps_grounding_cost_per_query
guardrails headers hf_model_name humanloop_api_key id input_cost_per_audio_per_second
input_cost_per_audio_per_second_above_128k_tokens input_cost_per_audio_token
input_cost_per_audio_token_batches input_cost_per_character
input_cost_per_character_above_128k_tokens input_cost_per_image
input_cost_per_image_above_128k_tokens input_cost_per_image_token
input_cost_per_image_token_batches input_cost_per_pixel input_cost_per_query
input_cost_per_second input_cost_per_token input_cost_per_token_above_100k_tokens
input_cost_per_token_above_100k_tokens_batches input_cost_per_token_above_128k_tokens
input_cost_per_token_above_200k_tokens input_cost_per_token_above_200k_tokens_batches
input_cost_per_token_above_200k_tokens_priority input_cost_per_token_above_272k_tokens
input_cost_per_token_above_272k_tokens_batches input_cost_per_token_above_272k_tokens_flex
input_cost_per_token_above_272k_tokens_priority input_cost_per_token_above_272k_tokens_ultrafast
input_cost_per_token_above_512k_tokens input_cost_per_token_balanced
input_cost_per_token_batches input_cost_per_token_cache_hit input_cost_per_token_flex
input_cost_per_token_priority input_cost_per_token_ultrafast input_cost_per_video_per_second
input_cost_per_video_per_second_above_128k_tokens
input_cost_per_video_per_second_above_15s_interval
input_cost_per_video_per_second_above_8s_interval input_cost_per_video_token
input_cost_per_video_token_batches itpm keepalive_seconds langfuse_environment langfuse_host
langfuse_prompt_version langfuse_public_key langfuse_secret langfuse_secret_key
langfuse_span_scope langsmith_api_key langsmith_base_url langsmith_project
langsmith_sampling_rate langsmith_tenant_id litellm_call_id litellm_credential_name
litellm_disabled_callbacks litellm_logging_obj litellm_metadata litellm_request_debug
litellm_session_id litellm_system_prompt litellm_trace_id litellm_trusted_callback_vars
log_client_error_tracebacks logger_fn max_agentic_loops max_budget max_fallbacks
max_file_size_mb max_parallel_requests max_retries merge_reasoning_content_in_choices metadata
milvus_db_name milvus_partition_names milvus_text_field mock_response mock_timeout
model_alias_map model_config model_file_id_mapping model_info model_list newrelic_api_key
newrelic_region no-log num_retries ocr_cost_per_credit ocr_cost_per_page
ocr_cost_per_page_batches openai_identity_provider_id openai_identity_token_file
openai_service_account_id order organization otpm output_cost_per_audio_per_second
output_cost_per_audio_token output_cost_per_character
output_cost_per_character_above_128k_tokens output_cost_per_image output_cost_per_image_1024
output_cost_per_image_1536 output_cost_per_image_512 output_cost_per_image_token
output_cost_per_image_token_batches output_cost_per_pixel output_cost_per_reasoning_token
output_cost_per_reasoning_token_flex output_cost_per_reasoning_token_priority
output_cost_per_second output_cost_per_second_1080p output_cost_per_second_2k
output_cost_per_second_480p output_cost_per_second_4k output_cost_per_second_720p
output_cost_per_second_768p output_cost_per_token output_cost_per_token_above_100k_tokens
output_cost_per_token_above_100k_tokens_batches output_cost_per_token_above_128k_tokens
output_cost_per_token_above_200k_tokens output_cost_per_token_above_200k_tokens_batches
output_cost_per_token_above_200k_tokens_priority output_cost_per_token_above_272k_tokens
output_cost_per_token_above_272k_tokens_batches output_cost_per_token_above_272k_tokens_flex
output_cost_per_token_above_272k_tokens_priority
output_cost_per_token_above_272k_tokens_ultrafast output_cost_per_token_above_512k_tokens
output_cost_per_token_balanced output_cost_per_token_batches output_cost_per_token_flex
output_cost_per_token_priority output_cost_per_token_ultrafast output_cost_per_video_per_second
output_cost_per_video_token output_vector_size posthog_api_key posthog_api_url preset_cache_key
prompt_environment prompt_id prompt_label prompt_variables prompt_version
provider_affinity_header provider_specific_header proxy_server_request quality_router_config
quality_router_default_model region_name regional_endpoint_uplift_multiplier
regional_processing_uplift_multiplier_eu regional_processing_uplift_multiplier_us
request_timeout retry_policy retry_strategy roles routing_strategy rpm rust s3_access_key_id
s3_bucket_name s3_bucket_owner s3_encryption_key_id s3_endpoint_url s3_output_bucket_name
s3_region_name s3_secret_access_key search_context_cost_per_query search_tool_name secret_fields
self shared_session signoz_ingestion_endpoint signoz_ingestion_key silent_model ssl_verify
stream_chunk_size stream_response stream_timeout stream_timeout_by_service_tier
supports_system_message tag_regex tags tenant_id text_completion tiered_pricing timeout
timeout_by_service_tier tpm ttl turn_off_message_logging use_chat_completions_api use_client
use_in_pass_through use_litellm_proxy use_xai_oauth user_continue_message valkey_embedding_field
valkey_host valkey_password valkey_port valkey_ssl valkey_text_field vector_store_id verbose
vertex_credentials vertex_location vertex_project wandb_api_key watsonx_region_name
weave_project_id weight
""")

# Read by LiteLLM somewhere, listed nowhere.
_UNLISTED = _words("""
access_token additional_drop_params agentcore_runtime_session_id anthropic-workspace-id
anthropic_workspace_id api_type apikey atranscription bucket_name callbacks
content_policy_fallbacks context_window_fallbacks custom_endpoint deployment_url engine extra_body
extra_query failure_callback fake_stream follow_redirects hidden_params initial_prompt_value
is_vertex_request logging_obj lunary_public_key nvcf_function_id optional_params original_function
polling_url posthog_host router_settings_override slack_webhook_url success_callback
token_endpoint use_ssl user_config workspace_id
""")

_PREFIXES = (
    "_litellm_",  # LiteLLM's INTERNAL_KWARG_PREFIX
    "arize_",
    "aws_",
    "azure_",
    "braintrust_",
    "cache_creation_input_",
    "cache_read_input_",
    "gigachat_",
    "input_cost_per_",
    "langfuse_",
    "langsmith_",
    "litellm_",
    "milvus_",
    "mock_",
    "oci_",
    "output_cost_per_",
    "s3_",
    "sagemaker_",
    "standard_logging_",
    "user_api_key",
    "valkey_",
    "vertex_",
    "watsonx_",
)
_SUFFIXES = ("_ad_token", "_api_base", "_api_key", "_api_url", "_api_version", "_base_url")

# Names of the tables that are refused nowhere but at the root of a request: below it they are
# ordinary words, as fields of OpenAI's own objects or as somebody's metadata keys.
_PLAIN_WORDS = _words("""
azure cache client engine id metadata order organization roles rpm rust self tags timeout tpm ttl
verbose weight
""")
METADATA_WORDS = _PLAIN_WORDS | _words("client_id prompt_id prompt_version tenant_id")
NESTED_WORDS = _PLAIN_WORDS | {"headers"}  # of an MCP server among the tools
# At the root: OpenAI's own field, and what the caller may say about the handling of a request.
ROOT_WORDS = frozenset(
    {"cache", "disable_fallbacks", "fallbacks", "metadata", "num_retries", "timeout"}
)

# The fields of OpenAI's request and of the objects in it: no need to look further at these.
ORDINARY = _words("""
allowed_tools approximate arguments audio city content country custom data definition description
detail file file_data file_id filename format frequency_penalty function function_call functions
grammar image_url include_obfuscation include_usage input input_audio json_schema logit_bias
logprobs max_completion_tokens max_tokens messages metadata modalities mode model moderation n
name output parallel_tool_calls parameters policy prediction presence_penalty
prompt_cache_breakpoint prompt_cache_key prompt_cache_options prompt_cache_retention
reasoning_effort refusal region response_format role safety_identifier schema search_context_size
seed service_tier stop store stream stream_options strict syntax temperature text timezone
tool_call_id tool_calls tool_choice tools top_logprobs top_p type url user user_location verbosity
voice web_search_options
""")

# Where the caller's own words and schemas are, and what they are called there.
_WORDED = frozenset(
    {
        "functions", "input", "messages", "prediction", "prompt", "response_format", "system",
        "text", "tools",
    }
)  # fmt: skip
# Fields of a request that are text as a whole, or a list of texts.
_TEXTS = frozenset({"documents", "input", "instructions", "prompt", "query", "suffix", "system"})
_TEXT = frozenset(
    {
        "arguments",
        "content",
        "description",
        "input",
        "output",
        "reasoning_content",
        "refusal",
        "text",
    }
)
_FREE_FORM = frozenset(
    {"arguments", "input", "input_examples", "input_schema", "parameters", "schema", "variables"}
)
_NONE: frozenset[str] = frozenset()

_REFERENCE = "os.environ/"
_ENTERED = frozenset({dict, list})
_LONGEST_PATH = 200  # characters of a path that are repeated to the caller

Path: TypeAlias = "tuple[Path, str | int] | None"


def check_controls(body: Json) -> None:
    """Return when nothing in a request would steer LiteLLM. Raises RequestInvalid naming it."""
    field = find_control(body)
    if field is not None:
        field = field[:_LONGEST_PATH]
        raise RequestInvalid(
            f"`{field}` is not accepted in a request: the operator of this service sets it",
            param=field,
        )


def find_control(body: Json) -> str | None:
    """Return the path of a field that would steer LiteLLM, the innermost where they nest."""
    for name, value in body.items():
        here: Path = (None, name)
        if name not in ORDINARY and _steers(name, ROOT_WORDS):
            return _spelled(_search(value, here, _NONE, worded=False) or here)
        if value.__class__ is str:
            if value.startswith(_REFERENCE) and name not in _TEXTS:
                return name
            continue
        if value.__class__ not in _ENTERED:
            continue
        words = METADATA_WORDS if name == "metadata" else NESTED_WORDS
        searched = _without_texts(value) if name in _TEXTS else value
        found = _search(searched, here, words, worded=name in _WORDED)
        if found is not None:
            return _spelled(found)
    return None


def _without_texts(value: object) -> object:
    """Return what is left to be searched of a field of texts; a list keeps its places."""
    if isinstance(value, list):
        return [None if isinstance(each, str) else each for each in value]
    return value


def _steers(name: str, words: Collection[str]) -> bool:
    """Say whether LiteLLM would read a setting of this name, `words` aside."""
    if name in words:
        return False
    listed = name in NAMES or name in _UNLISTED
    return listed or name.startswith(_PREFIXES) or name.endswith(_SUFFIXES)


def _search(value: object, here: Path, words: Collection[str], *, worded: bool) -> Path:
    # A stack of our own: the depth of a body is the caller's choice. This runs for every request,
    # so it looks at the keys of a whole object at once, and makes paths only of what it enters.
    text, free_form = (_TEXT, _FREE_FORM) if worded else (_NONE, _NONE)
    stack: list[tuple[object, Path]] = [(value, here)]
    while stack:
        item, path = stack.pop()
        if isinstance(item, dict):
            if not ORDINARY.issuperset(item):
                found = _steering_name(item, path, words)
                if found is not None:
                    return found
            stack += [
                (inner, (path, name))
                for name, inner in item.items()
                if (inner.__class__ in _ENTERED and name not in free_form)
                or (inner.__class__ is str and inner.startswith(_REFERENCE) and name not in text)
            ]
        elif isinstance(item, list):
            stack += [
                (inner, (path, place))
                for place, inner in enumerate(item)
                if inner.__class__ in _ENTERED
                or (inner.__class__ is str and inner.startswith(_REFERENCE))
            ]
        elif isinstance(item, str) and item.startswith(_REFERENCE):
            return path
    return None


def _steering_name(item: dict[str, object], path: Path, words: Collection[str]) -> Path:
    for name, value in item.items():
        if name not in ORDINARY and _steers(name, words):
            here = (path, name)
            return _search(value, here, _NONE, worded=False) or here
    return None


def _spelled(path: Path) -> str:
    """Return the path as a person writes it: `messages[0].api_key`."""
    parts: list[str] = []
    while path is not None:
        path, part = path
        parts.append(f"[{part}]" if isinstance(part, int) else f".{part}")
    return "".join(reversed(parts)).removeprefix(".")
