"""Chats with a target of Anthropic's: translated without LiteLLM, and with it where need be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionMessageParam

from tests.e2e.stream_checks import target
from tests.harness import Mobius
from tests.providers import Answer, FakeAnthropic, ToolCall

pytestmark = pytest.mark.e2e

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
LOOK: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {"name": "s", "schema": {"type": "object", "properties": {}}},
}


@dataclass
class Place:
    mobius: Mobius
    anthropic: FakeAnthropic
    client: openai.OpenAI
    lanes_at_start: dict[str, str]

    def agents(self) -> list[str]:
        """Return by what each request came since this was asked last, and forget them."""
        said = [each.headers["user-agent"] for each in self.anthropic.journal.requests()]
        self.anthropic.journal.clear()
        return [agent.partition("/")[0] for agent in said]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeAnthropic() as anthropic:
        entry = target("anthropic/claude-sonnet-4-5", anthropic.base_url, name="claude")
        with Mobius({"model_list": [entry]}) as mobius:
            lanes = mobius.http.get("/health/readiness").json()["lanes"]
            yield Place(mobius, anthropic, mobius.openai(), lanes)


def test_it_is_ready_before_litellm_is(place: Place) -> None:
    assert place.lanes_at_start["translated"] == "ready"
    assert place.lanes_at_start["direct"] == "ready"  # for messages


def test_a_chat_goes_past_litellm_and_an_unusual_one_goes_by_it(place: Place) -> None:
    place.agents()
    for stream in (False, True):
        answer: Any = place.client.chat.completions.create(
            model="claude", messages=HELLO, stream=stream
        )
        chunks = list(answer) if stream else [answer]
        assert chunks[0].model == "claude-sonnet-4-5"
    place.client.chat.completions.create(model="claude", messages=HELLO, response_format=SCHEMA)
    assert place.agents() == ["mobius", "mobius", "litellm"]


def test_tools_are_called_and_answered_over_several_turns(place: Place) -> None:
    call = ToolCall("look", '{"at": "größer"}', id="toolu_1")
    place.anthropic.script(Answer(tool_calls=(call,)), Answer(text="done"))
    with place.client.chat.completions.stream(
        model="claude", messages=HELLO, tools=[LOOK]
    ) as stream:
        asked = stream.get_final_completion()
    (said,) = [choice.message for choice in asked.choices]
    assert asked.choices[0].finish_reason == "tool_calls"
    assert said.tool_calls is not None
    (called,) = said.tool_calls
    assert json.loads(called.function.arguments) == {"at": "größer"}
    history: list[Any] = [
        *HELLO,
        {"role": "assistant", "content": said.content or None, "tool_calls": [called.to_dict()]},
        {"role": "tool", "tool_call_id": called.id, "content": "found"},
    ]
    place.agents()
    answer = place.client.chat.completions.create(model="claude", messages=history, tools=[LOOK])
    assert answer.choices[0].message.content == "done"
    sent = place.anthropic.journal.last.json["messages"]
    assert sent[1]["content"][-1]["input"] == {"at": "größer"}
    assert sent[2]["content"][0]["tool_use_id"] == "toolu_1"
    assert place.agents() == ["mobius"]


def test_what_a_message_costs_is_what_the_provider_counts(place: Place) -> None:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 7}
    place.anthropic.script(Answer(usage=usage))
    answer = place.client.chat.completions.create(model="claude", messages=HELLO)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (15, 7)
    details = answer.usage.prompt_tokens_details
    assert details is not None
    assert details.cached_tokens == 5
