"""Nobody steers LiteLLM from outside, and nobody else is refused for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params as chat
from openai.types.responses import response_create_params as responses
from typing_extensions import is_typeddict

from proxy.controls import (
    METADATA_WORDS,
    NAMES,
    NESTED_WORDS,
    ORDINARY,
    ROOT_WORDS,
    check_controls,
    find_control,
)
from proxy.errors import RequestInvalid

# Arguments of LiteLLM's that belong to a model and are therefore a caller's business.
MODEL_PARAMETERS = {"thinking", "include_server_side_tool_invocations"}

# Asked of another process: importing LiteLLM warns, and takes seconds and memory.
ASK_LITELLM = """
import inspect, json, litellm
from litellm.constants import INTERNAL_KWARG_PREFIX
from litellm.types.router import GenericLiteLLMParams, LiteLLM_Params
from litellm.types.utils import all_litellm_params

arguments = {
    name
    for function in (litellm.acompletion, litellm.completion)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
}
deployment = {*GenericLiteLLMParams.model_fields, *LiteLLM_Params.model_fields}
print(json.dumps({
    "owned": sorted(all_litellm_params),
    "taken": sorted(arguments | deployment),
    "prefix": INTERNAL_KWARG_PREFIX,
}))
"""


@cache
def litellm_says() -> dict[str, Any]:
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    asked = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK_LITELLM],
        env={**os.environ, **quiet, "LITELLM_MODE": "PRODUCTION"},
        capture_output=True,
        check=True,
        text=True,
    )
    said: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return said


def fields_of(kind: Any, seen: set[Any] | None = None) -> set[str]:
    """The name of every field in a typed dictionary and in those within it."""
    seen = set() if seen is None else seen
    kind = getattr(kind, "__value__", kind)
    if is_typeddict(kind):
        if kind in seen:
            return set()
        seen.add(kind)
        hints = get_type_hints(kind)
        return set(hints).union(*(fields_of(hint, seen) for hint in hints.values()))
    if get_origin(kind) is not None or isinstance(kind, UnionType):
        return set().union(*(fields_of(part, seen) for part in get_args(kind)))
    return set()


CHAT_KINDS = (chat.CompletionCreateParamsNonStreaming, chat.CompletionCreateParamsStreaming)
CHAT_ROOT = set().union(*(get_type_hints(kind) for kind in CHAT_KINDS))
CHAT_FIELDS = set().union(*(fields_of(kind) for kind in CHAT_KINDS))


def test_the_table_is_what_the_installed_litellm_reads() -> None:
    said = litellm_says()
    ours = (CHAT_ROOT | MODEL_PARAMETERS) - {"metadata"}
    assert {*said["owned"], *said["taken"]} - ours == NAMES
    assert find_control({f"{said['prefix']}anything": 1}) == f"{said['prefix']}anything"


def test_what_need_not_be_looked_at_is_what_openai_s_request_holds() -> None:
    assert CHAT_FIELDS - NESTED_WORDS | {"metadata"} == ORDINARY
    assert not ORDINARY & (NAMES - ROOT_WORDS)


def test_every_control_is_refused_by_name_at_the_root() -> None:
    for name in sorted(NAMES - ROOT_WORDS):
        assert find_control({"model": "m", name: "x"}) == name


def test_every_control_is_refused_by_its_path_within_an_object() -> None:
    for name in sorted(NAMES - NESTED_WORDS):
        assert find_control({"stream_options": {name: 1}}) == f"stream_options.{name}"
        assert find_control({"unknown": {"a": {name: 1}}}) == f"unknown.a.{name}"
        assert find_control({"tools": [{"function": {name: 1}}]}) == f"tools[0].function.{name}"


def test_every_control_is_refused_by_its_path_within_a_list() -> None:
    for name in sorted(NAMES - NESTED_WORDS):
        assert find_control({"messages": [{}, {name: 1}]}) == f"messages[1].{name}"
        body = {"messages": [{"role": "user", "content": [{"type": "text", name: "x"}]}]}
        assert find_control(body) == f"messages[0].content[0].{name}"


def test_every_control_is_refused_by_its_path_within_extra_body() -> None:
    for name in sorted(NAMES - {"metadata"}):
        assert find_control({"extra_body": {name: 1}}) == f"extra_body.{name}"
    for name in ("metadata", "top_k"):
        assert find_control({"extra_body": {name: 1}}) == "extra_body"


def test_every_control_but_an_ordinary_word_is_refused_as_a_metadata_key() -> None:
    for name in sorted(NAMES - METADATA_WORDS):
        assert find_control({"metadata": {name: "x"}}) == f"metadata.{name}"
    for name in METADATA_WORDS:
        assert find_control({"metadata": {name: "x"}}) is None


def test_the_words_that_are_allowed_below_the_root_say_nothing_of_a_url_or_a_key() -> None:
    assert sorted(NESTED_WORDS & NAMES) == [
        "azure", "cache", "client", "headers", "id", "metadata", "order", "organization", "roles",
        "rpm", "rust", "self", "tags", "timeout", "tpm", "ttl", "verbose", "weight",
    ]  # fmt: skip
    assert {"cache", "fallbacks", "metadata", "num_retries", "timeout"} == ROOT_WORDS & NAMES


@pytest.mark.parametrize(
    "name",
    [
        "aws_anything", "azure_x", "langfuse_x", "litellm_x", "mock_x", "user_api_key_hash",
        "vertex_x", "watsonx_x", "some_api_base", "some_api_key", "extra_body", "extra_query",
        "api_type", "callbacks", "success_callback", "context_window_fallbacks",
    ],
)  # fmt: skip
def test_names_that_no_list_holds_are_refused_too(name: str) -> None:
    assert find_control({name: 1}) == name
    assert find_control({"x": [{name: 1}]}) == f"x[0].{name}"
    assert find_control({"metadata": {name: "1"}}) == f"metadata.{name}"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"user": "os.environ/HOME"}, "user"),
        ({"metadata": {"a": "os.environ/HOME"}}, "metadata.a"),
        ({"stop": ["x", "os.environ/HOME"]}, "stop[1]"),
        ({"messages": [{"name": "os.environ/HOME"}]}, "messages[0].name"),
        (
            {"messages": [{"content": [{"image_url": {"url": "os.environ/HOME"}}]}]},
            "messages[0].content[0].image_url.url",
        ),
    ],
)
def test_a_reference_to_the_environment_is_refused(body: dict[str, Any], path: str) -> None:
    assert find_control(body) == path


def test_a_reference_to_the_environment_is_a_text_like_any_other_in_a_message() -> None:
    text = "os.environ/HOME is how LiteLLM writes it"
    body = {
        "messages": [
            {"role": "user", "content": text},
            {"role": "user", "content": [{"type": "text", "text": text}]},
            {"role": "assistant", "tool_calls": [{"function": {"arguments": text}}]},
        ],
        "tools": [{"function": {"description": text, "parameters": {"default": text}}}],
    }
    assert find_control(body) is None


def test_a_place_for_schemas_is_one_only_where_schemas_are() -> None:
    assert find_control({"parameters": {"api_key": 1}}) == "parameters.api_key"
    assert find_control({"x": {"schema": {"api_key": 1}}}) == "x.schema.api_key"


def test_responses_have_their_schemas_and_words_elsewhere() -> None:
    schema = {"type": "object", "properties": {"api_key": {"type": "string"}, "timeout": {}}}
    body = {
        "input": [
            {"type": "function_call_output", "call_id": "c", "output": "os.environ/X"},
            {"type": "custom_tool_call", "call_id": "c", "name": "n", "input": "os.environ/X"},
        ],
        "instructions": "os.environ/X",
        "text": {"format": {"type": "json_schema", "name": "s", "schema": schema}},
        "tools": [{"type": "function", "name": "f", "parameters": schema, "strict": True}],
        "prompt": {"id": "pmpt_1", "variables": {"api_key": "a", "name": "b"}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    assert find_control(body) is None
    assert find_control({"text": {"api_key": "a"}}) == "text.api_key"
    assert find_control({"prompt": {"api_base": "a"}}) == "prompt.api_base"
    assert find_control({"input": [{"api_base": "a"}]}) == "input[0].api_base"


def test_the_refusal_names_the_field_and_not_its_value() -> None:
    with pytest.raises(RequestInvalid) as refused:
        check_controls({"extra_headers": {"authorization": "sk-secret"}})
    assert refused.value.param == "extra_headers"
    assert "`extra_headers`" in refused.value.message
    assert "secret" not in refused.value.message


def test_an_endless_name_is_cut() -> None:
    with pytest.raises(RequestInvalid) as refused:
        check_controls({"aws_" + "x" * 100_000: 1})
    assert len(refused.value.message) < 400


def test_every_field_of_openai_s_requests_is_let_through_where_it_stands() -> None:
    for name in CHAT_ROOT:
        assert find_control({name: 1}) is None
    nested = CHAT_FIELDS | fields_of(responses.ResponseCreateParamsNonStreaming)
    for name in nested:
        assert find_control({"tools": [{name: 1}]}) is None


def test_parameters_that_only_some_models_know_are_let_through() -> None:
    known_elsewhere = ["thinking", "top_k", "min_p", "repetition_penalty", "reasoning", "provider"]
    body = {name: {"type": "enabled", "order": ["x"], "cache": 1} for name in known_elsewhere}
    assert find_control(body) is None
    blocks = [{"type": "thinking", "thinking": "hm", "signature": "x"}]
    content = [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    message = {"role": "assistant", "content": content, "thinking_blocks": blocks}
    assert find_control({"messages": [message]}) is None


WORDS = st.sampled_from(["api_key", "metadata", "headers", "city", "url", "base_url", "timeout"])
TEXT = st.text(max_size=20) | st.just("os.environ/OPENAI_API_KEY") | st.just('{"api_key": 1}')
SCHEMA = st.recursive(
    st.fixed_dictionaries({"type": st.sampled_from(["string", "number"]), "description": TEXT}),
    lambda inner: st.fixed_dictionaries(
        {
            "type": st.just("object"),
            "properties": st.dictionaries(WORDS, inner, max_size=3),
            "required": st.lists(WORDS, max_size=2),
            "additionalProperties": st.booleans(),
        }
    ),
    max_leaves=6,
)
TOOL = st.fixed_dictionaries(
    {
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": WORDS, "parameters": SCHEMA},
            optional={"description": TEXT, "strict": st.booleans()},
        ),
    }
) | st.fixed_dictionaries(
    {
        "type": st.just("custom"),
        "custom": st.fixed_dictionaries({"name": WORDS, "description": TEXT}),
    }
)
PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.just({"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}),
    st.just({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
    st.just({"type": "file", "file": {"file_id": "f1", "filename": "a.pdf"}}),
)
MESSAGE = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user"]), "content": TEXT | st.lists(PART, max_size=3)},
        optional={"name": st.sampled_from(["alice", "bob"])},
    ),
    st.fixed_dictionaries(
        {
            "role": st.just("assistant"),
            "content": st.none() | TEXT,
            "refusal": st.none() | TEXT,
            "audio": st.none() | st.just({"id": "audio_1"}),
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {
                        "id": st.just("call_1"),
                        "type": st.just("function"),
                        "function": st.fixed_dictionaries({"name": WORDS, "arguments": TEXT}),
                    }
                ),
                max_size=2,
            ),
        }
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "tool_call_id": st.just("call_1"), "content": TEXT}
    ),
)
FORMAT = st.just({"type": "json_object"}) | st.fixed_dictionaries(
    {
        "type": st.just("json_schema"),
        "json_schema": st.fixed_dictionaries(
            {"name": WORDS, "schema": SCHEMA, "strict": st.booleans(), "description": TEXT}
        ),
    }
)
LOCATION = {"type": "approximate", "approximate": {"country": "DE", "timezone": "Europe/Berlin"}}
REQUEST = st.fixed_dictionaries(
    {"model": st.just("gpt-4o"), "messages": st.lists(MESSAGE, min_size=1, max_size=6)},
    optional={
        "tools": st.lists(TOOL, max_size=3),
        "tool_choice": st.just({"type": "function", "function": {"name": "api_key"}}),
        "response_format": FORMAT,
        "functions": st.lists(st.fixed_dictionaries({"name": WORDS, "parameters": SCHEMA})),
        "prediction": st.fixed_dictionaries({"type": st.just("content"), "content": TEXT}),
        "audio": st.just({"voice": "alloy", "format": "mp3"}),
        "modalities": st.just(["text", "audio"]),
        "web_search_options": st.just({"search_context_size": "low", "user_location": LOCATION}),
        "metadata": st.dictionaries(
            st.sampled_from(["id", "tags", "order", "user", "ttl", "roles", "trace", "session_id"]),
            st.text(max_size=5),
        ),
        "logit_bias": st.just({"50256": -100}),
        "stream_options": st.just({"include_usage": True, "include_obfuscation": False}),
        "prompt_cache_options": st.just({"ttl": "30m"}),
        "stop": st.just(["\n", "END"]),
        "user": st.just("u-1"),
        "seed": st.integers(),
        "store": st.booleans(),
        "service_tier": st.just("flex"),
        "prompt_cache_key": st.just("k"),
        "safety_identifier": st.just("s"),
        "reasoning_effort": st.just("low"),
    },
)


@given(REQUEST)
def test_an_ordinary_request_is_never_refused(body: dict[str, Any]) -> None:
    assert find_control(body) is None


@given(REQUEST, st.sampled_from(sorted(NAMES - NESTED_WORDS)), st.data())
def test_a_control_hidden_in_an_ordinary_request_is_found(
    body: dict[str, Any], name: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(body["messages"]) - 1))
    body["messages"][place][name] = "x"
    assert find_control(body) == f"messages[{place}].{name}"
