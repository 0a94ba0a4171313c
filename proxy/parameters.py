"""
The parameters of a chat completion that LiteLLM has a place for. Pure.

A body may hold them, and the file may hold defaults for them.
"""

from __future__ import annotations

# OpenAI's, as LiteLLM knows them …
OPENAI = frozenset(
    {
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls",
        "prediction", "presence_penalty", "prompt_cache_key", "prompt_cache_retention",
        "reasoning_effort", "response_format", "safety_identifier", "seed", "service_tier", "stop",
        "store", "temperature", "thinking", "tool_choice", "tools", "top_logprobs", "top_p",
        "user", "verbosity", "web_search_options",
    }
)  # fmt: skip
# … and those of other providers, whose place in a request LiteLLM knows.
EXTRAS = frozenset(
    {
        "best_of", "cache_control", "chat_template_kwargs", "container", "context_management",
        "dimensions", "encoding_format", "frequency_penalty_range", "guided_choice",
        "guided_grammar", "guided_json", "guided_regex", "ignore_eos", "include_reasoning",
        "include_server_side_tool_invocations", "length_penalty", "mcp_servers", "min_p",
        "min_tokens", "mirostat", "num_ctx", "num_predict", "reasoning", "reasoning_format",
        "repeat_penalty", "repetition_penalty", "safe_prompt", "safety_settings",
        "search_parameters", "speed", "stop_sequences", "stop_token_ids", "top_a", "top_k",
        "transforms", "typical_p", "use_beam_search",
    }
)  # fmt: skip
