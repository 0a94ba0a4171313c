"""
A conversation goes from OpenAI to Anthropic and back, and nothing that was said is lost.

Forty conversations, each other than the rest, written in OpenAI's form: system and developer
messages, several turns, texts and images in parts, tools that are called one or several at once,
with results. Every text, image, argument and result is unique, so that what arrived at a provider
can be told by itself, whatever form it has there.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import httpx
import pytest

from tests.harness import Mobius
from tests.providers import Answer, Fails, FakeAnthropic, FakeOpenAI, ToolCall

pytestmark = pytest.mark.e2e

Json: TypeAlias = dict[str, Any]
Atom: TypeAlias = tuple[str, ...]  # one thing that was said, and by whom
CONVERSATIONS = 40
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
)


class Writer:
    """Writes one conversation, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311  # nothing secret hangs on it
        self._numbers = count()
        self.seed = seed

    def unique(self, word: str) -> str:
        return f"{word}-{self.seed}-{next(self._numbers)}"

    def some(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def messages(self) -> list[Json]:
        said: list[Json] = []
        if self.some(True, True, False):
            said.append({"role": self.some("system", "developer"), "content": self.unique("rule")})
        for _ in range(self._random.randint(1, 4)):
            said += self._turn()
        return [*said, self.question()]

    def _turn(self) -> list[Json]:
        if self.some(True, False):
            return [self.question(), {"role": "assistant", "content": self.unique("answer")}]
        calls = [self.call() for _ in range(self._random.randint(1, 3))]
        text = self.some(None, self.unique("thought"))
        asked = {"role": "assistant", "content": text, "tool_calls": calls}
        results = [self.result(call) for call in calls]
        end = {"role": "assistant", "content": self.unique("answer")}
        return [self.question(), asked, *results, end]

    def question(self) -> Json:
        if self.some(True, False):
            return {"role": "user", "content": self.unique("question")}
        parts = [self.some(self._text, self._image)() for _ in range(self._random.randint(1, 3))]
        return {"role": "user", "content": [self._text(), *parts]}

    def _text(self) -> Json:
        return {"type": "text", "text": self.unique("part") + self.some("", ' "quoted"\n', " λ🙂")}

    def _image(self) -> Json:
        encoded = base64.b64encode(PNG + self.unique("image").encode()).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}

    def call(self) -> Json:
        arguments = {"of": self.unique("argument"), "deep": [{"n": next(self._numbers)}]}
        function = {"name": self.some("look", "fetch"), "arguments": json.dumps(arguments)}
        return {"id": self.unique("call"), "type": "function", "function": function}

    def result(self, call: Json) -> Json:
        content = self.unique("result")
        parts = [{"type": "text", "text": content}]
        return {
            "role": "tool",
            "tool_call_id": call["id"],
            "content": self.some(content, parts),
        }


TOOLS: list[Json] = [
    {"type": "function", "function": {"name": name, "description": f"to {name}", "parameters": {
        "type": "object", "properties": {"of": {"type": "string"}, "deep": {"type": "array",
            "items": {"type": "object"}}}, "required": ["of"]}}}
    for name in ("look", "fetch")
]  # fmt: skip


def in_openai_s(messages: list[Json]) -> list[Atom]:
    """Return what was said, as OpenAI's form has it; first what the developer said."""
    atoms: list[Atom] = []
    for message in messages:
        role = "system" if message["role"] == "developer" else message["role"]
        content = message.get("content")
        whole: list[Json] = [{"type": "text", "text": content}]
        for part in whole if isinstance(content, str) else content or ():
            if part["type"] == "image_url":
                atoms.append((role, "image", part["image_url"]["url"].partition("base64,")[2]))
            elif role == "tool":
                atoms.append(("tool", message["tool_call_id"], part["text"]))
            else:
                atoms.append((role, "text", part["text"]))
        for call in message.get("tool_calls") or ():
            function = call["function"]
            atoms.append(_call(call["id"], function["name"], json.loads(function["arguments"])))
    return sorted(atoms, key=lambda atom: atom[0] != "system")


def in_anthropic_s(body: Mapping[str, Any]) -> list[Atom]:
    """Return the same of what arrived in Anthropic's form."""
    system = body.get("system") or ()
    blocks = [{"text": system}] if isinstance(system, str) else system
    atoms: list[Atom] = [("system", "text", block["text"]) for block in blocks]
    for message in body["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            atoms.append(_block(message["role"], block))
    return atoms


def _block(role: str, block: Json) -> Atom:
    match block["type"]:
        case "text":
            return (role, "text", block["text"])
        case "image":
            return (role, "image", block["source"]["data"])
        case "tool_use":
            return _call(block["id"], block["name"], block["input"])
        case "tool_result":
            content = block["content"]
            text = content if isinstance(content, str) else "".join(c["text"] for c in content)
            return ("tool", block["tool_use_id"], text)
        case other:
            raise AssertionError(other)


def _call(number: str, name: str, arguments: Json) -> Atom:
    return ("assistant", "call", number, name, json.dumps(arguments, sort_keys=True))


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic

    def ask(self, messages: list[Json], *, first_fails: bool) -> tuple[Json, httpx.Response]:
        """Return what the provider that answered was sent, and the answer."""
        if first_fails:
            self.openai.script(Fails(503))
        body = {"model": "gpt", "messages": messages, "tools": TOOLS, "max_tokens": 64}
        answer = self.mobius.http.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        answered = self.anthropic if first_fails else self.openai
        return answered.journal.requests()[-1].json, answer


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:

        def entry(name: str, model: str, url: str) -> Json:
            place = {"api_base": url, "api_key": "sk-provider-1234"}
            return {"model_name": name, "litellm_params": {"model": model, **place}}

        config = {
            "model_list": [
                entry("gpt", "openai/gpt-4o", openai.base_url),
                entry("claude", "anthropic/claude-sonnet-4-5", anthropic.base_url),
            ],
            "router_settings": {"num_retries": 0, "fallbacks": [{"gpt": ["claude"]}]},
            "mobius": {"laps": 1, "breaker": {"failures": 1000, "min_calls": 1000}},
        }
        with Mobius(config) as mobius:
            yield Place(mobius, openai, anthropic)


@pytest.mark.parametrize("seed", range(CONVERSATIONS))
def test_a_conversation_keeps_all_that_was_said_wherever_it_goes(place: Place, seed: int) -> None:
    writer = Writer(seed)
    messages = writer.messages()
    call = writer.call()
    place.anthropic.script(
        Answer(
            text=writer.unique("claude's"),
            tool_calls=(
                ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"]),
            ),
        )
    )
    sent, answer = place.ask(messages, first_fails=True)
    assert in_anthropic_s(sent) == in_openai_s(messages)
    schemas = [tool["function"]["parameters"] for tool in TOOLS]
    assert [tool["input_schema"] for tool in sent["tools"]] == schemas

    # Claude calls a tool, and the next turn is answered by OpenAI again …
    said = answer.json()["choices"][0]["message"]
    function = call["function"]
    assert in_openai_s([said])[-1] == _call(
        said["tool_calls"][0]["id"], function["name"], json.loads(function["arguments"])
    )
    messages += [said, writer.result(said["tool_calls"][0]), writer.question()]
    sent, answer = place.ask(messages, first_fails=False)
    assert in_openai_s(sent["messages"]) == in_openai_s(messages)

    # … and the one after that by Claude.
    messages += [answer.json()["choices"][0]["message"], writer.question()]
    sent, _ = place.ask(messages, first_fails=True)
    assert in_anthropic_s(sent) == in_openai_s(messages)
