"""What LiteLLM is handed, and what reaches a provider of another wire format."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.controls import NAMES, find_control
from proxy.errors import UpstreamFailure
from proxy.parameters import EXTRAS, OPENAI
from proxy.retry import Kind
from proxy.types import Json, Target
from proxy.upstream.arguments import Written, write_arguments
from proxy.upstream.fields import NATIVE, OURS
from tests.providers import FakeAnthropic, FakeGemini, FakeOpenAI
from tests.upstream.test_unified import HELLO, KEY, TOOL, Lane, call_of, target_of

# LiteLLM's own, about its types.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
CLAUDE = "claude-sonnet-4-5"
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
# All that we hand to LiteLLM beside what a body may fill and what the file says of the place.
WRITTEN = frozenset(
    {
        "_skip_mcp_handler", "_skip_responses_api_bridge", "drop_params", "extra_body",
        "max_retries", "messages", "model", "stream", "stream_options", "timeout",
    }
)  # fmt: skip
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def lane() -> Iterator[Lane]:
    with Lane() as lane:
        yield lane


@pytest.fixture(scope="module")
def anthropic() -> Iterator[FakeAnthropic]:
    with FakeAnthropic() as fake:
        yield fake


def written(lane: Lane, target: Target, *, foreign: bool = False, **body: Any) -> Written:
    return write_arguments(lane.litellm, target, call_of(body), foreign=foreign)


def with_(target: Target, **changes: Any) -> Target:
    fields = {name: getattr(target, name) for name in Target.__slots__}
    return Target(**{**fields, **changes})


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
FIELDS = st.sampled_from(sorted(NAMES | OPENAI | EXTRAS | OURS - {"messages", "stream"}))
BODIES = st.dictionaries(FIELDS | st.text(max_size=12), JSON_VALUES, max_size=12)
PROVIDERS = ["openai", "azure", "hosted_vllm", "anthropic", "gemini", "mistral", "cohere_chat"]


@given(
    body=BODIES,
    provider=st.sampled_from(PROVIDERS),
    stream=st.booleans(),
    foreign=st.booleans(),
    drop=st.sampled_from([None, True, False]),
    mocked=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_litellm_is_handed_nothing_that_is_not_on_the_list_whatever_a_body_holds(
    lane: Lane,
    *,
    body: Json,
    provider: str,
    stream: bool,
    foreign: bool,
    drop: bool | None,
    mocked: bool,
) -> None:
    mock = {"mock_response": "no"} if mocked else {}
    target = with_(target_of(provider, NOWHERE, **mock), drop_params=drop)
    sent = {**body, "messages": HELLO, "stream": stream}
    arguments = write_arguments(lane.litellm, target, call_of(sent), foreign=foreign).arguments
    assert arguments.keys() <= WRITTEN | OPENAI | EXTRAS | target.params.keys()
    assert {name: arguments.get(name) for name in target.params} == target.params
    assert arguments["model"] == f"{provider}/a-model"
    assert arguments["max_retries"] == 0
    assert arguments.get("stream", False) is stream


def test_no_name_that_a_body_may_fill_would_steer_litellm() -> None:
    assert find_control(dict.fromkeys(OPENAI | EXTRAS)) is None


def test_the_parameters_are_all_that_litellm_knows_of_openai_s(lane: Lane) -> None:
    for provider in ("openai", "azure", "anthropic", "gemini", "mistral", "cohere_chat"):
        for model in ("gpt-4o", "gpt-5", "o3", CLAUDE, "gemini-2.5-pro", "other"):
            names = lane.litellm.get_supported_openai_params(
                model=model, custom_llm_provider=provider
            )
            ours = OPENAI | EXTRAS | OURS | NAMES
            assert set(names) <= ours, (provider, model)


@pytest.mark.parametrize("provider", sorted(NATIVE))
def test_a_body_of_openai_s_format_travels_whole_and_apart_from_what_litellm_reads(
    lane: Lane, provider: str
) -> None:
    body: dict[str, Any] = {
        "temperature": None,
        "metadata": {"a": "b"},
        "unknown": {"deep": [1]},
        "tools": [],
    }
    arguments = written(lane, target_of(provider, NOWHERE), **body).arguments
    assert arguments["extra_body"] == {"messages": HELLO, **body}
    assert not arguments.keys() & {"temperature", "metadata", "unknown", "tools"}


def test_the_usage_is_asked_for_beside_the_caller_s_own_options(lane: Lane) -> None:
    target = target_of("openai", NOWHERE)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({}, {"include_usage": True}),
        ({"stream_options": None}, {"include_usage": True}),
        (
            {"stream_options": {"include_usage": False, "include_obfuscation": False}},
            {"include_usage": True, "include_obfuscation": False},
        ),
        ({"stream_options": "nonsense"}, "nonsense"),  # the provider's to refuse
    ]
    for sent, asked in cases:
        arguments = written(lane, target, stream=True, **sent).arguments
        assert arguments["extra_body"]["stream_options"] == asked


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_default_fills_only_what_the_body_leaves_out(lane: Lane, provider: str) -> None:
    target = with_(target_of(provider, NOWHERE), defaults={"temperature": 0.1, "top_p": 0.2})
    arguments = written(lane, target, top_p=0.9).arguments
    sent = arguments.get("extra_body", arguments)
    assert (sent["temperature"], sent["top_p"]) == (0.1, 0.9)


def test_a_default_yields_to_a_null_in_the_body(lane: Lane) -> None:
    target = with_(target_of("openai", NOWHERE), defaults={"temperature": 0.1})
    assert written(lane, target, temperature=None).arguments["extra_body"]["temperature"] is None


def test_the_two_names_of_the_output_limit_are_one_for_a_default(lane: Lane) -> None:
    target = with_(target_of("openai", NOWHERE), defaults={"max_tokens": 5})
    assert (
        "max_tokens" not in written(lane, target, max_completion_tokens=9).arguments["extra_body"]
    )
    assert written(lane, target).arguments["extra_body"]["max_tokens"] == 5


def test_a_default_for_streams_is_kept_from_what_is_not_streamed(lane: Lane) -> None:
    options = {"include_usage": True}
    target = with_(target_of("openai", NOWHERE), defaults={"stream_options": options})
    assert "stream_options" not in written(lane, target).arguments["extra_body"]
    assert written(lane, target, stream=True).arguments["extra_body"]["stream_options"] == options


def test_the_file_may_have_names_left_out_of_every_request(lane: Lane) -> None:
    names = ["user", "temperature", "messages", "model"]
    for provider in ("openai", "anthropic"):
        target = target_of(provider, NOWHERE, additional_drop_params=names)
        arguments = written(lane, target, user="u", temperature=1, top_p=0.5).arguments
        sent = arguments.get("extra_body", arguments)
        assert not sent.keys() & {"user", "temperature"}
        assert (sent["top_p"], sent["messages"]) == (0.5, HELLO)


def test_the_file_may_have_parts_of_a_field_left_out(lane: Lane) -> None:
    paths = [
        "tools[*].function.strict",
        "response_format.json_schema.strict",
        "messages[0].content",
    ]
    strict = {**TOOL, "function": {**TOOL["function"], "strict": True}}
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}
    for provider in ("openai", "anthropic"):
        target = target_of(provider, NOWHERE, CLAUDE, additional_drop_params=paths)
        body: dict[str, Any] = {"tools": [strict, TOOL], "response_format": copy.deepcopy(schema)}
        arguments = written(lane, target, **body).arguments
        sent = arguments.get("extra_body", arguments)
        assert sent["tools"] == [TOOL, TOOL]
        assert "strict" not in sent["response_format"]["json_schema"]
        assert sent["messages"] == HELLO
        # The next target gets the body as it was sent.
        assert body == {"tools": [strict, TOOL], "response_format": schema}


def test_a_target_s_secrets_are_no_part_of_what_is_shown(lane: Lane) -> None:
    target = target_of("openai", NOWHERE, organization="org-of-the-file")
    result = written(lane, target)
    assert result.secrets == (KEY,)
    assert KEY not in repr(result)
    assert "org-of-the-file" not in repr(result)
    rotated = target_of("openai", NOWHERE, api_key="another-key-1234")
    assert written(lane, rotated).secrets == ("another-key-1234",)


UNHEARD = {"logit_bias": {"1": 2}, "seed": 7, "n": 2, "metadata": {"a": "b"}, "some_field": 1}
# What says the same as saying nothing.
IDLE = {
    "n": 1, "logprobs": False, "frequency_penalty": 0, "presence_penalty": 0.0, "store": False,
    "service_tier": "auto", "modalities": ["text"], "logit_bias": {}, "metadata": {}, "seed": None,
    "top_logprobs": None, "user_location": None,
}  # fmt: skip


def test_on_a_foreign_target_what_it_does_not_know_is_dropped_and_named(lane: Lane) -> None:
    target = target_of("anthropic", NOWHERE, CLAUDE)
    result = written(lane, target, foreign=True, temperature=0.5, **UNHEARD)
    assert set(result.dropped) == UNHEARD.keys()
    assert not result.arguments.keys() & UNHEARD.keys()
    assert result.arguments["temperature"] == 0.5


def test_what_changes_nothing_is_dropped_without_a_word(lane: Lane) -> None:
    target = target_of("anthropic", NOWHERE, CLAUDE)
    for foreign in (True, False):
        result = written(lane, target, foreign=foreign, **IDLE)
        assert result.dropped == ()
        assert not result.arguments.keys() & IDLE.keys()


@pytest.mark.parametrize("drop", [None, True])
def test_at_home_too_an_openai_parameter_it_does_not_know_is_dropped_and_named(
    lane: Lane, drop: bool | None
) -> None:
    target = with_(target_of("anthropic", NOWHERE, CLAUDE), drop_params=drop)
    result = written(lane, target, seed=7, temperature=0.5)
    assert result.dropped == ("seed",)
    assert "seed" not in result.arguments
    assert result.arguments["temperature"] == 0.5
    assert result.arguments.get("drop_params") is drop


def test_the_file_can_forbid_dropping_at_home(lane: Lane) -> None:
    target = with_(target_of("anthropic", NOWHERE, CLAUDE), drop_params=False)
    result = written(lane, target, seed=7)
    assert result.dropped == ()
    assert result.arguments["seed"] == 7


def test_the_file_can_forbid_dropping_and_clamping_on_a_foreign_target(lane: Lane) -> None:
    target = with_(target_of("anthropic", NOWHERE, CLAUDE), drop_params=False)
    result = written(lane, target, foreign=True, seed=7, temperature=1.8)
    assert result.dropped == ()
    assert (result.arguments["seed"], result.arguments["temperature"]) == (7, 1.8)
    assert "drop_params" not in result.arguments


def test_what_has_no_way_to_a_target_is_named_even_at_home(lane: Lane) -> None:
    result = written(lane, target_of("anthropic", NOWHERE), metadata={"a": "b"}, some_field=1)
    assert set(result.dropped) == {"metadata", "some_field"}


def test_what_litellm_does_not_know_reaches_a_compatible_provider_all_the_same(lane: Lane) -> None:
    result = written(lane, target_of("groq", NOWHERE), metadata={"a": "b"}, some_field=1, top_k=3)
    assert result.dropped == ()
    assert result.arguments["extra_body"] == {"metadata": {"a": "b"}, "some_field": 1}
    assert result.arguments["top_k"] == 3


def test_heat_and_length_are_clamped_to_what_a_foreign_target_takes(lane: Lane) -> None:
    target = target_of("anthropic", NOWHERE, CLAUDE)
    result = written(lane, target, foreign=True, temperature=1.8, max_tokens=10**7)
    assert result.dropped == ("temperature", "max_tokens")
    assert result.arguments["temperature"] == 1.0
    assert result.arguments["max_tokens"] == lane.litellm.model_cost[CLAUDE]["max_output_tokens"]
    told = with_(target, info={"max_output_tokens": 100})
    assert written(lane, told, foreign=True, max_tokens=101).arguments["max_tokens"] == 100
    assert written(lane, target, temperature=1.8, max_tokens=10**7).dropped == ()


def test_between_two_places_of_openai_s_format_its_own_fields_are_not_dropped(lane: Lane) -> None:
    target = target_of("azure", NOWHERE, "gpt-4o")
    sent = {"metadata": {"a": "b"}, "user": "u", "temperature": 1.8, "tools": [TOOL], "n": 2}
    result = written(lane, target, foreign=True, **sent)
    assert result.dropped == ()
    assert result.arguments["extra_body"] == {"messages": HELLO, **sent}


def test_secrets_are_every_key_and_token_of_the_place(lane: Lane) -> None:
    target = target_of(
        "bedrock", NOWHERE, aws_secret_access_key="a-secret-1", azure_ad_token="tok-1234"
    )
    assert set(written(lane, target).secrets) == {KEY, "a-secret-1", "tok-1234"}


def test_secrets_are_found_in_headers_and_at_any_depth(lane: Lane) -> None:
    credentials = {"type": "service", "private_key": "PEM-of-it", "inner": [{"a": "deep-in-it"}]}
    target = target_of(
        "openai",
        NOWHERE,
        extra_headers={"x-portal": "portal-pass", "x-short": "on", "x-none": None},
        headers={"Authorization": "Basic dXNlcjpwYXNz"},
        vertex_credentials=credentials,
        extra_body={"upstreams": [{"token": "nested-token", "region": "somewhere-far"}]},
    )
    found = set(written(lane, target).secrets)
    assert {"portal-pass", "dXNlcjpwYXNz", "PEM-of-it", "deep-in-it", "nested-token"} < found
    assert not {"on", "somewhere-far"} & found


CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "developer", "content": "be nice"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "one"},
    {"role": "tool", "tool_call_id": "c2", "content": "two"},
]


@pytest.mark.parametrize("foreign", [False, True], ids=["home", "foreign"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_conversation_reaches_anthropic_in_its_own_words(
    lane: Lane, anthropic: FakeAnthropic, foreign: bool, stream: bool
) -> None:
    body = {
        "messages": copy.deepcopy(CONVERSATION), "tools": [copy.deepcopy(TOOL)], "max_tokens": 77,
        "stop": ["END"], "temperature": 0.3, "tool_choice": "auto", "user": "u-1",
    }  # fmt: skip
    ask = lane.stream if stream else lane.ask
    ask(target_of("anthropic", anthropic.base_url, CLAUDE), foreign=foreign, **body)
    sent = anthropic.journal.last.json
    assert [part["text"] for part in sent["system"]] == ["be brief", "be nice"]
    user, assistant, results = sent["messages"]
    assert [part["type"] for part in user["content"]] == ["text", "image", "image"]
    assert user["content"][1]["source"]["data"] == PNG
    # The provider fetches it, not we.
    assert user["content"][2]["source"] == {"type": "url", "url": "https://example.com/x.png"}
    assert [(part["type"], part["id"], part["input"]) for part in assistant["content"]] == [
        ("tool_use", "c1", {"a": 1}),
        ("tool_use", "c2", {}),
    ]
    assert [(part["tool_use_id"], part["content"]) for part in results["content"]] == [
        ("c1", "one"),
        ("c2", "two"),
    ]
    assert sent["tools"][0]["name"] == "look"
    assert sent["tool_choice"]["type"] == "auto"
    assert (sent["max_tokens"], sent["stop_sequences"], sent["temperature"]) == (77, ["END"], 0.3)
    assert anthropic.journal.last.headers["x-api-key"] == KEY
    # The next target of the ring sees what the caller sent.
    assert body["messages"] == CONVERSATION
    assert body["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"stop": "X"}, {"stop_sequences": ["X"]}),
        ({"max_completion_tokens": 55}, {"max_tokens": 55}),
        ({"top_k": 3}, {"top_k": 3}),
        (
            {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "look"}}},
            {"tool_choice": {"type": "tool", "name": "look"}},
        ),
        (
            {"reasoning_effort": "low", "max_tokens": 5000},
            {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 5000},
        ),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 5000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 5000},
        ),
    ],
    ids=",".join,
)
def test_a_parameter_reaches_anthropic_in_its_own_words(
    lane: Lane, anthropic: FakeAnthropic, body: dict[str, Any], sent: Json
) -> None:
    lane.ask(target_of("anthropic", anthropic.base_url, CLAUDE), **copy.deepcopy(body))
    arrived = anthropic.journal.last.json
    assert {name: arrived.get(name) for name in sent} == sent


def test_a_schema_for_the_answer_reaches_anthropic(lane: Lane, anthropic: FakeAnthropic) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
    lane.ask(target_of("anthropic", anthropic.base_url, CLAUDE), response_format=wanted)
    assert json.dumps(SCHEMA) in json.dumps(anthropic.journal.last.json)


def test_anthropic_is_told_how_long_an_answer_may_be_when_the_caller_does_not_say(
    lane: Lane, anthropic: FakeAnthropic
) -> None:
    lane.ask(target_of("anthropic", anthropic.base_url, CLAUDE))
    assert anthropic.journal.last.json["max_tokens"] > 1000


def test_what_the_file_adds_reaches_every_kind_of_provider(
    lane: Lane, anthropic: FakeAnthropic
) -> None:
    more: dict[str, Any] = {
        "extra_body": {"added": {"by": "the file"}},
        "extra_headers": {"x-added": "by the file"},
    }
    with FakeOpenAI() as openai, FakeGemini() as gemini:
        for provider, fake in (
            ("openai", openai),
            ("groq", openai),
            ("anthropic", anthropic),
            ("gemini", gemini),
        ):
            lane.ask(target_of(provider, fake.base_url, **more))
            entry = fake.journal.last
            assert entry.json["added"] == {"by": "the file"}, provider
            assert entry.headers["x-added"] == "by the file", provider


def test_what_litellm_edits_is_a_copy(lane: Lane) -> None:
    # For Gemini it takes out of a tool what Google does not know.
    parameters = {**SCHEMA, "$schema": "https://json-schema.org/draft/2020-12/schema"}
    tool = {
        "type": "function",
        "function": {"name": "look", "strict": True, "parameters": parameters},
    }
    body = {"messages": copy.deepcopy(CONVERSATION[3:]), "tools": [copy.deepcopy(tool)]}
    with FakeGemini() as gemini:
        lane.ask(target_of("gemini", gemini.base_url, "gemini-2.5-pro"), foreign=True, **body)
        assert len(gemini.journal) == 1
    assert body == {"messages": CONVERSATION[3:], "tools": [tool]}


def test_an_image_that_litellm_would_fetch_is_refused_and_not_fetched(lane: Lane) -> None:
    with FakeOpenAI() as elsewhere, FakeGemini() as gemini:
        parts = [{"type": "image_url", "image_url": {"url": f"{elsewhere.base_url}/x.png"}}]
        with pytest.raises(UpstreamFailure) as failed:
            lane.ask(
                target_of("gemini", gemini.base_url, "gemini-2.5-pro"),
                messages=[{"role": "user", "content": parts}],
            )
        assert failed.value.kind in (Kind.CALLER, Kind.DIALECT)
        assert len(elsewhere.journal) == len(gemini.journal) == 0
        assert elsewhere.journal.accepted == 0
