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
