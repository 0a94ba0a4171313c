"""Nothing that was said is lost when another provider has to answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conversations import (
    SCHEMA,
    corpus,
    for_anthropic,
    for_openai,
    heard_by_anthropic,
    heard_by_openai,
    meant,
    tools_of,
)
from tests.harness import Mobius
from tests.providers import Answer, Fails, FakeAnthropic, FakeOpenAI, ToolCall

pytestmark = pytest.mark.e2e

CONVERSATIONS = corpus()
KEYS = ("sk-of-openai-1234", "sk-of-anthropic-1234")


@dataclass(frozen=True)
class Place:
    """`gpt` falls back to `claude`, and `claude` to `gpt`."""

    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic

    def post(self, path: str, body: dict[str, Any]) -> None:
        """The request is answered well."""
        response = self.mobius.http.post(path, json=body)
        assert response.status_code == 200, response.text
        assert "error" not in response.text


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        targets = (
            ("gpt", "openai/gpt-4o", openai.base_url, KEYS[0]),
            ("claude", "anthropic/claude-sonnet-4-5", anthropic.base_url, KEYS[1]),
        )
        config: dict[str, Any] = {
            "model_list": [
                {
                    "model_name": name,
                    "litellm_params": {"model": model, "api_base": base, "api_key": key},
                }
                for name, model, base, key in targets
            ],
            "router_settings": {
                "num_retries": 0,
                "fallbacks": [{"gpt": ["claude"]}, {"claude": ["gpt"]}],
            },
            "mobius": {"laps": 1, "breaker": {"failures": 1000, "min_calls": 1000}},
        }
        with Mobius(config, secrets=KEYS) as mobius:
            yield Place(mobius, openai, anthropic)


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.openai, running.anthropic):
        fake.reset_script()
        fake.journal.clear()
    return running


def expected_tools(name: str) -> list[tuple[str, Any]]:
    return [(tool, SCHEMA) for tool in CONVERSATIONS[name].get("tools", ())]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_anthropic_hears_all_that_openai_was_told(place: Place, name: str) -> None:
    conversation = CONVERSATIONS[name]
    place.openai.always(Fails(500))
    for stream in (False, True):
        asked = for_openai(conversation)
        place.post("/v1/chat/completions", {**asked, "model": "gpt", "stream": stream})
        assert heard_by_openai(place.openai.journal.last.json) == meant(conversation)
        told = place.anthropic.journal.last.json
        assert heard_by_anthropic(told) == meant(conversation)
        assert tools_of(told) == expected_tools(name)


@pytest.mark.parametrize(
    "name", [name for name, each in CONVERSATIONS.items() if each.get("only") != "openai"]
)
def test_openai_hears_all_that_anthropic_was_told(place: Place, name: str) -> None:
    conversation = CONVERSATIONS[name]
    place.anthropic.always(Fails(500))
    for stream in (False, True):
        asked = for_anthropic(conversation)
        place.post("/v1/messages", {**asked, "model": "claude", "stream": stream})
        assert heard_by_anthropic(place.anthropic.journal.last.json) == meant(conversation)
        told = place.openai.journal.last.json
        assert heard_by_openai(told) == meant(conversation)
        assert tools_of(told) == expected_tools(name)


def test_the_corpus_is_forty_conversations_that_differ() -> None:
    assert len(CONVERSATIONS) == 40
    assert len({str(meant(each)) for each in CONVERSATIONS.values()}) > 34


def test_a_call_that_the_second_made_goes_on_at_the_first(place: Place) -> None:
    """There and back: the call that Anthropic made is OpenAI's to go on with."""
    asked: dict[str, Any] = {**for_openai(CONVERSATIONS["two tools and a system prompt"])}
    place.openai.script(Fails(500))
    place.anthropic.script(
        Answer(text="both", tool_calls=(ToolCall("weather", '{"city": "Ærø"}'),))
    )
    with place.mobius.openai() as client:
        answer = client.chat.completions.create(model="gpt", **asked)
        message = answer.choices[0].message
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        said = message.model_dump(exclude_none=True)
        result = {"role": "tool", "tool_call_id": call.id, "content": "grey"}
        again = {**asked, "messages": [*asked["messages"], said, result]}
        client.chat.completions.create(model="gpt", **again)
    assert heard_by_openai(place.openai.journal.last.json) == [
        ("system", "text", "be brief"),
        ("user", "text", "hello"),
        ("assistant", "text", "both"),
        ("assistant", "call", call.id, "weather", {"city": "Ærø"}),
        ("result", call.id, "grey"),
    ]
