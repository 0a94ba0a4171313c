"""Where targets are asked past LiteLLM, and with which headers."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.types import Surface, Target
from proxy.upstream.address import address_of, headers_for
from tests.quiet import imported


def target(**params: Any) -> Target:
    return Target("t", "t", "anthropic", "claude", str(params), "c", params=params)


@pytest.mark.parametrize(
    ("base", "home"),
    [
        (None, "https://api.anthropic.com"),
        ("https://api.anthropic.com", "https://api.anthropic.com"),
        ("https://api.anthropic.com/v1", "https://api.anthropic.com"),
        ("https://x.test/anthropic/", "https://x.test/anthropic"),
        ("https://x.test/anthropic/v1/", "https://x.test/anthropic"),
        ("https://x.test/v1/messages", "https://x.test"),
    ],
)
def test_the_address_has_its_path_once(base: str | None, home: str) -> None:
    place = target(api_base=base) if base else target()
    assert str(address_of(place, Surface.MESSAGES).url) == f"{home}/v1/messages"
    counted = address_of(place, Surface.COUNT_TOKENS).url
    assert str(counted) == f"{home}/v1/messages/count_tokens"


def test_a_key_and_the_token_of_an_account_open_in_their_own_ways() -> None:
    headers = address_of(target(api_key="sk-ant-api-1"), Surface.MESSAGES).headers
    assert headers["x-api-key"] == "sk-ant-api-1"
    assert "authorization" not in headers
    headers = address_of(target(api_key="sk-ant-oat01-1"), Surface.MESSAGES).headers
    assert headers["authorization"] == "Bearer sk-ant-oat01-1"
    assert headers["anthropic-beta"] == "oauth-2025-04-20"
    assert "x-api-key" not in headers


def test_of_the_caller_s_headers_all_betas_and_no_more_than_the_file_leaves_open() -> None:
    said = {"anthropic-beta": "a, b", "anthropic-version": "1"}
    own = {"anthropic-beta": "b,c"}
    headers = headers_for(address_of(target(extra_headers=own), Surface.MESSAGES), said)
    assert headers["anthropic-beta"] == "a,b,c"
    assert headers["anthropic-version"] == "1"
    own = {"Anthropic-Version": "2"}
    headers = headers_for(address_of(target(extra_headers=own), Surface.MESSAGES), said)
    assert headers["anthropic-version"] == "2"


@pytest.mark.parametrize("version", [None, "preview", "latest", "v1", "2025-04-01-preview"])
@pytest.mark.parametrize("base", ["https://x.openai.azure.com", "https://x.test/gate/", "openai"])
def test_azure_s_responses_are_where_litellm_asks_for_them(base: str, version: str | None) -> None:
    base = "https://x.openai.azure.com/openai" if base == "openai" else base
    params = {"api_base": base, "api_key": "k", **({"api_version": version} if version else {})}
    place = Target("t", "t", "azure", "deployed", str(params), "c", params=params)
    found = address_of(place, Surface.RESPONSES)
    config = imported("litellm.llms.azure.responses.transformation").AzureOpenAIResponsesAPIConfig()
    told = config.get_complete_url(api_base=base, litellm_params=dict(params))
    assert str(found.url) == told
    assert found.headers["api-key"] == "k"
    assert "authorization" not in found.headers
