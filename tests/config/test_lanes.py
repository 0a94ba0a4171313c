"""The lanes of a target, by its provider and what the file says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.types import Lane, Surface
from tests.config.loading import load_text, targets


@pytest.mark.parametrize(
    ("params", "wish", "lane"),
    [
        ("model: anthropic/c, api_key: os.environ/K", "", Lane.DIRECT),
        ("model: anthropic/c, api_key: os.environ/K, api_base: 'http://x/v1'", "", Lane.DIRECT),
        ("model: anthropic/c, api_key: os.environ/K", "anthropic: unified", Lane.TRANSLATED),
        ("model: anthropic/c, api_key: os.environ/K", "m: unified", Lane.TRANSLATED),
        ("model: anthropic/c, mock_response: hi", "", Lane.TRANSLATED),
        ("model: anthropic/c, api_key: os.environ/K, api_base: 'http://x?a'", "", Lane.TRANSLATED),
        ("model: openai/g, api_key: os.environ/K", "", Lane.TRANSLATED),
        ("model: bedrock/anthropic.c", "", Lane.TRANSLATED),
    ],
)
def test_messages_go_to_anthropic_directly_and_to_all_others_as_a_chat(
    tmp_path: Path, params: str, wish: str, lane: Lane
) -> None:
    text = f"model_list:\n  - {{model_name: m, litellm_params: {{{params}}}}}\n"
    text += f"mobius: {{lanes: {{{wish}}}}}\n"
    [target] = targets(load_text(tmp_path, text, {"K": "sk-1"}).snapshot, "m")
    assert target.lane_of(Surface.MESSAGES) is target.lane_of(Surface.COUNT_TOKENS) is lane
    chat = Lane.DIRECT if params.startswith("model: openai") else Lane.UNIFIED
    assert target.lane_of(Surface.CHAT) is chat


@pytest.mark.parametrize(
    ("info", "lane"),
    [
        ("{}", Lane.DIRECT),
        ("{supported_endpoints: [/v1/chat/completions]}", Lane.TRANSLATED),
        ("{supported_endpoints: [chat/completions, /v1/embeddings]}", Lane.TRANSLATED),
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
    assert snapshot.needs_litellm() is (lane is Lane.TRANSLATED)


def test_responses_of_another_provider_are_chats(tmp_path: Path) -> None:
    text = "model_list:\n  - {model_name: m, litellm_params: {model: anthropic/c, api_key: k}}\n"
    [target] = targets(load_text(tmp_path, text, {}).snapshot, "m")
    assert target.lane_of(Surface.RESPONSES) is Lane.TRANSLATED
