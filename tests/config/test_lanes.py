"""The lanes of a target, by its provider and what the file says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.lanes import TRANSLATED
from proxy.types import ANTHROPIC, Lane, Surface
from proxy.upstream.tongues import TONGUES
from tests.config.loading import load_text, targets


@pytest.mark.parametrize(
    ("params", "wish", "lane"),
    [
        ("model: anthropic/c, api_key: os.environ/K", "", Lane.DIRECT),
        ("model: anthropic/c, api_key: os.environ/K, api_base: 'http://x/v1'", "", Lane.DIRECT),
        ("model: anthropic/c, api_key: os.environ/K", "anthropic: unified", Lane.AS_CHAT),
        ("model: anthropic/c, api_key: os.environ/K", "m: unified", Lane.AS_CHAT),
        ("model: anthropic/c, mock_response: hi", "", Lane.AS_CHAT),
        ("model: anthropic/c, api_key: os.environ/K, api_base: 'http://x?a'", "", Lane.AS_CHAT),
        ("model: openai/g, api_key: os.environ/K", "", Lane.AS_CHAT),
        ("model: bedrock/anthropic.c", "", Lane.AS_CHAT),
    ],
)
def test_messages_go_to_anthropic_directly_and_to_all_others_as_a_chat(
    tmp_path: Path, params: str, wish: str, lane: Lane
) -> None:
    text = f"model_list:\n  - {{model_name: m, litellm_params: {{{params}}}}}\n"
    text += f"mobius: {{lanes: {{{wish}}}}}\n"
    [target] = targets(load_text(tmp_path, text, {"K": "sk-1"}).snapshot, "m")
    assert target.lane_of(Surface.MESSAGES) is target.lane_of(Surface.COUNT_TOKENS) is lane


KEY = "api_key: os.environ/K"
SONNET = f"model: anthropic/claude-sonnet-4-5, {KEY}"


@pytest.mark.parametrize(
    ("params", "wish", "lane", "why"),
    [
        (f"model: openai/g, {KEY}", "", Lane.DIRECT, None),
        (f"model: openai/g, {KEY}", "openai: unified", Lane.UNIFIED, None),
        (f"model: openai/g, {KEY}", "m: translated", Lane.DIRECT, "only LiteLLM translates"),
        (f"model: openai/g, {KEY}, api_version: '1'", "", Lane.UNIFIED, None),
        (SONNET, "", Lane.TRANSLATED, None),
        (f"{SONNET}, api_base: 'http://x'", "", Lane.TRANSLATED, None),
        (f"{SONNET}, extra_headers: {{X-Team: a}}", "", Lane.TRANSLATED, None),
        (f"{SONNET}, input_cost_per_token: 0.1", "", Lane.TRANSLATED, None),
        (f"model: anthropic/*, {KEY}", "", Lane.TRANSLATED, None),
        (SONNET, "anthropic: unified", Lane.UNIFIED, None),
        (SONNET, "m: translated", Lane.TRANSLATED, None),
        (SONNET, "m: direct", Lane.TRANSLATED, "not asked in OpenAI's own format"),
        (f"model: anthropic/claude-of-tomorrow, {KEY}", "", Lane.TRANSLATED, None),
        (f"model: anthropic/gpt-4o, {KEY}", "m: translated", Lane.UNIFIED, "LiteLLM's to read"),
        (
            f"{SONNET}, extra_headers: {{Anthropic-Beta: a}}",
            "m: translated",
            Lane.UNIFIED,
            "anthropic-beta is LiteLLM's to write",
        ),
        (f"{SONNET}, extra_body: {{a: 1}}", "m: translated", Lane.UNIFIED, "extra_body"),
        (f"{SONNET}, api_base: 'http://x?a'", "m: translated", Lane.UNIFIED, "no plain URL"),
        (
            "model: anthropic/claude-sonnet-4-5, api_key: sk-ant-oat01-x",
            "m: translated",
            Lane.UNIFIED,
            "a person's",
        ),
        (f"model: gemini/g, {KEY}", "m: translated", Lane.UNIFIED, "only LiteLLM translates"),
        (f"{SONNET}, mock_response: hi", "", Lane.UNIFIED, None),
    ],
)
def test_chats_go_past_litellm_where_it_is_known_what_it_would_do(
    tmp_path: Path, params: str, wish: str, lane: Lane, why: str | None
) -> None:
    text = f"model_list:\n  - {{model_name: m, litellm_params: {{{params}}}}}\n"
    text += f"mobius: {{lanes: {{{wish}}}}}\n"
    loaded = load_text(tmp_path, text, {"K": "sk-1"})
    [target] = targets(loaded.snapshot, "m")
    assert target.lane_of(Surface.CHAT) is lane
    told = [str(warning) for warning in loaded.warnings if "mobius.lanes" in str(warning)]
    assert bool(told) is (why is not None)
    assert all(why is not None and why in each for each in told)


def test_what_is_no_chat_goes_by_litellm_where_chats_are_translated(tmp_path: Path) -> None:
    text = f"model_list:\n  - {{model_name: m, litellm_params: {{{SONNET}}}}}\n"
    loaded = load_text(tmp_path, text, {"K": "sk-1"})
    [target] = targets(loaded.snapshot, "m")
    others = set(Surface) - ANTHROPIC - {Surface.CHAT, Surface.RESPONSES}
    assert {target.lane_of(surface) for surface in others} == {Lane.UNIFIED}
    assert loaded.snapshot.needs_litellm()


def test_every_tongue_has_its_providers() -> None:
    assert TONGUES.keys() == TRANSLATED


@pytest.mark.parametrize(
    ("info", "lane"),
    [
        ("{}", Lane.DIRECT),
        ("{supported_endpoints: [/v1/chat/completions]}", Lane.AS_CHAT),
        ("{supported_endpoints: [chat/completions, /v1/embeddings]}", Lane.AS_CHAT),
        ("{supported_endpoints: [/v1/chat/completions, /v1/responses]}", Lane.DIRECT),
        ("{supported_endpoints: [/v1/embeddings]}", Lane.DIRECT),
        ("{supported_endpoints: chat}", Lane.DIRECT),
    ],
)
def test_a_server_that_is_said_to_have_chats_only_is_asked_for_responses_by_those(
    tmp_path: Path, info: str, lane: Lane
) -> None:
    params = "{model: openai/g, api_key: os.environ/K, api_base: 'http://x/v1'}"
    text = f"model_list:\n  - {{model_name: m, litellm_params: {params}, model_info: {info}}}\n"
    snapshot = load_text(tmp_path, text, {"K": "sk-1"}).snapshot
    [target] = targets(snapshot, "m")
    assert target.lane_of(Surface.RESPONSES) is lane
    assert target.lane_of(Surface.CHAT) is Lane.DIRECT
    assert snapshot.needs_litellm() is (lane is Lane.AS_CHAT)


def test_responses_of_another_provider_are_chats(tmp_path: Path) -> None:
    text = "model_list:\n  - {model_name: m, litellm_params: {model: anthropic/c, api_key: k}}\n"
    [target] = targets(load_text(tmp_path, text, {}).snapshot, "m")
    assert target.lane_of(Surface.RESPONSES) is Lane.AS_CHAT


@pytest.mark.parametrize(
    ("params", "wish", "lane"),
    [
        ("api_key: k, api_base: 'https://x'", "", Lane.DIRECT),
        ("api_key: k, api_base: 'https://x/openai/v1/', api_version: preview", "", Lane.DIRECT),
        ("api_key: k, api_base: 'https://x'", "azure: unified", Lane.AS_CHAT),
        ("api_key: k, api_base: 'https://x/openai/deployments/g'", "", Lane.AS_CHAT),
        ("api_key: k, api_base: 'https://x', azure_ad_token: t", "", Lane.AS_CHAT),
        ("azure_ad_token: t, api_base: 'https://x'", "", Lane.AS_CHAT),
    ],
)
def test_azure_is_asked_for_responses_itself_where_a_key_opens_the_resource(
    tmp_path: Path, params: str, wish: str, lane: Lane
) -> None:
    text = f"model_list:\n  - {{model_name: m, litellm_params: {{model: azure/g, {params}}}}}\n"
    text += f"mobius: {{lanes: {{{wish}}}}}\n"
    [target] = targets(load_text(tmp_path, text, {}).snapshot, "m")
    assert (target.lane_of(Surface.RESPONSES), target.lane) == (lane, Lane.UNIFIED)
