"""What a client sends is what the provider gets, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params as params

from proxy.controls import find_control
from tests.harness import Mobius
from tests.providers import Fails, FakeAnthropic, FakeOpenAI

pytestmark = pytest.mark.e2e

KEY, AZURE_KEY, ENV_KEY = "sk-of-the-file-1234", "azure-of-the-file", "sk-of-the-environment"
ways = pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
places = pytest.mark.parametrize("model", ["direct", "azure", "own"])

CONFIG = """
model_list:
  - model_name: direct
    litellm_params: {{model: openai/gpt-4o, api_key: {key}, api_base: "{openai}"}}
  - model_name: azure
    litellm_params:
      model: azure/my-deployment
      api_key: {azure_key}
      api_base: "{azure}"
      api_version: "2024-10-21"
  - model_name: own
    litellm_params: {{model: openai/org/model-7b, api_base: "{openai}"}}
  - model_name: own-azure
    litellm_params: {{model: azure/x, api_base: "{azure}", api_version: "2024-10-21"}}
  - model_name: told
    litellm_params:
      model: openai/gpt-4o
      api_key: {key}
      api_base: "{openai}"
      temperature: 0.2
      max_tokens: 50
      stream_options: {{include_usage: true}}
      extra_body: {{added: {{by: the file}}, top_k: 5}}
      extra_headers: {{x-added: by the file}}
      additional_drop_params: [user, top_k]
      organization: org-of-the-file
  - model_name: translated
    litellm_params: {{model: groq/llama, api_key: {key}, api_base: "{openai}"}}
  - model_name: dropping
    litellm_params:
      model: anthropic/claude-sonnet-4-5
      api_key: {key}
      api_base: "{anthropic}"
      drop_params: true
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_key: {key}, api_base: "{anthropic}"}}
  - model_name: backup
    litellm_params: {{model: openai/backup, api_key: {key}, api_base: "{openai}"}}
router_settings:
  num_retries: 0
  fallbacks: [{{claude: [backup]}}, {{direct: [dropping]}}]
mobius:
  breaker: {{failures: 1000}}
"""


@dataclass
class Place:
    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic

    def post(self, body: dict[str, Any]) -> httpx.Response:
        """What comes back, after the exchange has ended."""
        # As text: a client's own way to write JSON must not matter.
        text = json.dumps(body, ensure_ascii=False).encode()
        response = self.mobius.http.post("/v1/chat/completions", content=text)
        assert response.status_code == 200, response.text
        return response

    def sent(self, body: dict[str, Any]) -> Any:
        """What reached the provider for it."""
        self.post(body)
        return self.openai.journal.last.json


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    env = {
        "OPENAI_API_KEY": ENV_KEY, "AZURE_API_KEY": ENV_KEY, "AZURE_OPENAI_API_KEY": ENV_KEY,
        "AZURE_OPENAI_AD_TOKEN": ENV_KEY, "AZURE_AD_TOKEN": ENV_KEY, "ANTHROPIC_API_KEY": ENV_KEY,
        "GROQ_API_KEY": ENV_KEY, "OPENAI_ORG_ID": "org-of-the-environment",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_ORGANIZATION": "org-of-the-environment",
    }  # fmt: skip
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        config = CONFIG.format(
            key=KEY,
            azure_key=AZURE_KEY,
            openai=openai.base_url,
            azure=f"http://127.0.0.1:{openai.port}",
            anthropic=anthropic.base_url,
        )
        secrets = (KEY, AZURE_KEY, ENV_KEY)
        with Mobius(config, env=env, secrets=secrets) as mobius:
            yield Place(mobius, openai, anthropic)


# One value for every field of OpenAI's request; a test compares with the official SDK.
MESSAGES: list[dict[str, Any]] = [
    {"role": "developer", "content": "be nice", "name": "dev"},
    {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": 'größer ≥ 😀 \u2028 \x7f \\ " </script>'},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
            {
                "type": "image_url",
                "image_url": {"url": "https://nowhere.invalid/x.png", "detail": "low"},
            },
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "file", "file": {"file_id": "file-1"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "audio": {"id": "audio-1"},
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1.0}'}},
            {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "free text"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "one"},
    {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "two"}]},
    {"role": "function", "name": "old", "content": None},
    {"role": "assistant", "content": "", "function_call": {"name": "old", "arguments": "{}"}},
    {"role": "user", "content": ""},
]
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": ["integer", "null"], "default": None}, "b": {"enum": [1, 1.5]}},
    "required": [],
    "additionalProperties": False,
}
FULL: dict[str, Any] = {
    "messages": MESSAGES,
    "audio": {"voice": "alloy", "format": "mp3"},
    "frequency_penalty": 0,
    "function_call": {"name": "old"},
    "functions": [{"name": "old", "description": "", "parameters": SCHEMA}],
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "max_completion_tokens": 4096,
    "max_tokens": None,
    "metadata": {"trace": "1", "tags": "a,b", "user": "u"},
    "modalities": ["text", "audio"],
    "moderation": {"policy": "low"},
    "n": 2,
    "parallel_tool_calls": False,
    "prediction": {"type": "content", "content": [{"type": "text", "text": "maybe"}]},
    "presence_penalty": -1.5,
    "prompt_cache_key": "k",
    "prompt_cache_options": {"ttl": "30m"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "minimal",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "strict": True, "schema": SCHEMA},
    },
    "safety_identifier": "s",
    "seed": 9007199254740993,
    "service_tier": "flex",
    "stop": ["\n", "END", ""],
    "store": False,
    "stream_options": None,
    "temperature": 1e-07,
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    },
    "tools": [
        {"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "empty"}},
        {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}},
    ],
    "top_logprobs": 0,
    "top_p": 0.30000000000000004,
    "user": "u-1",
    "verbosity": "low",
    "web_search_options": {"search_context_size": "low"},
}  # fmt: skip


def expected(body: dict[str, Any], model: str, *, stream: bool) -> dict[str, Any]:
    whole = {**body, "model": model}
    if stream:
        options = body.get("stream_options") or {}
        whole = {**whole, "stream": True, "stream_options": {**options, "include_usage": True}}
    return whole


PLACED = {"direct": "gpt-4o", "azure": "my-deployment", "own": "org/model-7b"}


def test_the_request_tried_here_has_every_field_of_the_official_sdk() -> None:
    kinds = (params.CompletionCreateParamsNonStreaming, params.CompletionCreateParamsStreaming)
    known = set().union(*(get_type_hints(kind) for kind in kinds))
    assert known - {"model", "stream"} <= FULL.keys()


@ways
@places
def test_a_request_with_every_field_arrives_as_it_was_sent(
    place: Place, model: str, stream: bool
) -> None:
    streamed = {"stream": True} if stream else {}
    sent = place.sent({**FULL, **streamed, "model": model})
    assert sent == expected(FULL, PLACED[model], stream=stream)
    # `1 == 1.0` and `True == 1` for Python, but not for every provider.
    assert _typed(sent) == _typed(expected(FULL, PLACED[model], stream=stream))


@ways
@pytest.mark.parametrize("field", sorted(FULL.keys() - {"messages"}))
def test_a_field_arrives_alone_and_as_a_null(place: Place, field: str, stream: bool) -> None:
    least = {
        "messages": [{"role": "user", "content": "hello"}],
        **({"stream": True} if stream else {}),
    }
    for value in (FULL[field], None):
        body = {**least, field: value}
        sent = place.sent({**body, "model": "direct"})
        assert _typed(sent) == _typed(expected(body, "gpt-4o", stream=stream))


ODD: dict[str, Any] = {
    "unknown_field": {"deep": [{"er": [None, True, 1, 1.5, "x", [], {}]}]},
    "UPPER": 1, "with space": 1, "ünïcode": "ß", "": "no name", "$": 1, "a.b[0]": 1,
    "empty_list": [], "empty_object": {}, "empty_text": "", "zero": 0, "minus_zero": -0.0,
    "big": 2**63 - 1, "bigger": 2**64 - 1, "small": -(2**63), "huge": 1.7976931348623157e308,
    "tiny": 5e-324, "false": False, "null": None, "min_p": 0.1, "top_k": 7,
    "thinking": {"type": "x"}, "reasoning": {"effort": "high"}, "prompt_template": "x",
    "stream_optionz": 1,
}  # fmt: skip


@ways
@places
def test_fields_that_nobody_knows_arrive_too(place: Place, model: str, stream: bool) -> None:
    body = {"messages": MESSAGES, **ODD}
    sent = place.sent({**body, **({"stream": True} if stream else {}), "model": model})
    assert _typed(sent) == _typed(expected(body, PLACED[model], stream=stream))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(st.text(max_size=10) | st.sampled_from(sorted(ODD)), VALUES, max_size=5).filter(
        lambda body: not body.keys() & {"model", "messages", "stream", "stream_options", "cache",
                                        "fallbacks", "num_retries", "timeout", "disable_fallbacks"}
        and find_control(body) is None
    )
)  # fmt: skip
def test_any_other_json_arrives_as_it_was_sent(place: Place, body: dict[str, Any]) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], **body}
    assert _typed(place.sent({**body, "model": "direct"})) == _typed({**body, "model": "gpt-4o"})


@ways
def test_what_was_meant_for_the_gateway_stays_here(place: Place, stream: bool) -> None:
    ours = {
        "cache": {"no-store": True}, "fallbacks": ["backup"], "disable_fallbacks": False,
        "num_retries": 0, "timeout": 30,
    }  # fmt: skip
    body = {"messages": MESSAGES, "temperature": 0.5}
    streamed = {"stream": True} if stream else {}
    sent = place.sent({**body, **streamed, **ours, "model": "direct"})
    assert sent == expected(body, "gpt-4o", stream=stream)


def test_a_stream_s_own_options_are_kept_beside_ours(place: Place) -> None:
    for options in ({"include_usage": False}, {"include_obfuscation": False}, {}):
        body = {"messages": MESSAGES, "stream": True, "stream_options": options}
        sent = place.sent({**body, "model": "direct"})
        assert sent["stream_options"] == {**options, "include_usage": True}


def test_azure_is_asked_at_its_deployment_with_its_key(place: Place) -> None:
    place.sent({"model": "azure", "messages": MESSAGES})
    entry = place.openai.journal.last
    assert entry.path == "/openai/deployments/my-deployment/chat/completions"
    assert entry.query == {"api-version": "2024-10-21"}
    assert entry.headers["api-key"] == AZURE_KEY
    assert ENV_KEY not in str(entry.headers)


@pytest.mark.parametrize("model", ["own", "own-azure"])
def test_an_address_without_a_key_is_not_told_one_of_the_environment(
    place: Place, model: str
) -> None:
    place.sent({"model": model, "messages": MESSAGES})
    told = str(place.openai.journal.last.headers)
    assert ENV_KEY not in told
    assert KEY not in told
    assert "org-of-the-environment" not in told


def test_every_target_is_asked_with_its_own_key(place: Place) -> None:
    for model in ("direct", "told", "translated", "backup"):
        place.sent({"model": model, "messages": MESSAGES[:1]})
        assert place.openai.journal.last.headers["authorization"] == f"Bearer {KEY}"


@ways
def test_the_file_s_defaults_fill_what_the_body_leaves_out(place: Place, stream: bool) -> None:
    least = {"model": "told", "messages": MESSAGES, **({"stream": True} if stream else {})}
    sent = place.sent(least)
    assert (sent["temperature"], sent["max_tokens"]) == (0.2, 50)
    assert ("stream_options" in sent) is stream
    sent = place.sent({**least, "temperature": None, "max_tokens": 7})
    assert (sent["temperature"], sent["max_tokens"]) == (None, 7)
    sent = place.sent({**least, "max_completion_tokens": 9})
    assert (sent.get("max_tokens"), sent["max_completion_tokens"]) == (None, 9)


def test_the_file_adds_fields_and_headers_and_leaves_names_out(place: Place) -> None:
    sent = place.sent({"model": "told", "messages": MESSAGES, "user": "u", "added": 1})
    assert sent["added"] == {"by": "the file"}
    assert "user" not in sent
    headers = place.openai.journal.last.headers
    assert headers["x-added"] == "by the file"
    assert headers["openai-organization"] == "org-of-the-file"


def test_the_file_may_have_a_target_drop_what_it_does_not_know(place: Place) -> None:
    body = {
        "model": "dropping",
        "messages": MESSAGES[-1:],
        "seed": 1,
        "logit_bias": {"1": 1},
        "n": 1,
    }
    response = place.post({**body, "messages": [{"role": "user", "content": "hello"}]})
    assert response.headers["x-mobius-dropped"].split(",") == ["seed", "logit_bias"]
    assert not place.anthropic.journal.last.json.keys() & {"seed", "logit_bias", "n"}


def test_a_header_says_what_a_fallback_would_not_have_understood(place: Place) -> None:
    place.openai.script(Fails(503), model="gpt-4o")
    body = {"seed": 1, "temperature": 1.9, "n": 1, "logprobs": False, "store": False, "unknown": 1}
    response = place.post(
        {"model": "direct", "messages": [{"role": "user", "content": "hello"}], **body}
    )
    assert response.headers["x-mobius-target"].startswith("dropping/anthropic")
    assert response.headers["x-mobius-dropped"].split(",") == ["seed", "unknown", "temperature"]


@ways
def test_the_second_target_of_a_ring_sees_what_the_client_sent(place: Place, stream: bool) -> None:
    place.anthropic.script(Fails(503))
    messages = [message for message in MESSAGES if message["role"] not in ("function",)]
    messages[2] = {"role": "user", "content": messages[2]["content"][:3]}
    messages[3] = {**messages[3], "audio": None, "tool_calls": messages[3]["tool_calls"][:1]}
    body: dict[str, Any] = {
        "messages": [m for m in messages if m.get("tool_call_id") != "c2"],
        "tools": FULL["tools"][:2],
        "tool_choice": "auto",
        "response_format": FULL["response_format"],
        "stop": ["END"],
    }
    tried = len(place.anthropic.journal)
    sent = place.sent({**body, **({"stream": True} if stream else {}), "model": "claude"})
    assert len(place.anthropic.journal) == tried + 1
    assert sent == expected(body, "backup", stream=stream)


def _typed(value: Any) -> Any:
    """JSON in which every number says what it is."""
    if isinstance(value, dict):
        return {name: _typed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    return (type(value).__name__, repr(value)) if isinstance(value, int | float) else value
