"""Anthropic's surface over a longer time: a coding assistant of fifty turns whose answers come from
one provider and the other, readers who leave, streams without their last event, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

from tests.harness import Mobius, total, wait_until
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    NoDone,
    Step,
    ToolCall,
    Usage,
)

pytestmark = pytest.mark.e2e

KEYS = {name: f"sk-{name}-of-the-assistant" for name in ("web", "tight", "poor")}
TURNS = 50
CROWD = 20
ASKED: Any = {"max_tokens": 64, "messages": [{"role": "user", "content": "hello"}]}
TOOLS: Any = [
    {"name": name, "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
    for name in ("read", "write")
]


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    claude: FakeAnthropic
    gpt: FakeOpenAI

    @property
    def client(self) -> anthropic.Anthropic:
        return self.mobius.anthropic(KEYS["web"])


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with (
        FakeAnthropic() as claude,
        FakeOpenAI() as gpt,
        Mobius(_config(claude, gpt), secrets=tuple(KEYS.values())) as mobius,
    ):
        yield Place(mobius, claude, gpt)


def _config(claude: FakeAnthropic, gpt: FakeOpenAI) -> dict[str, Any]:
    def entry(name: str, model: str, base: str) -> dict[str, Any]:
        place = {"model": model, "api_base": base, "api_key": "sk-provider-1234"}
        return {"model_name": name, "litellm_params": place}

    return {
        "model_list": [
            entry("claude", "anthropic/claude-sonnet-4-6", claude.base_url),
            entry("gpt", "openai/gpt-4o", gpt.base_url),
            entry("unheard", "openai/a-model-without-a-price", gpt.base_url),
        ],
        "router_settings": {
            "num_retries": 0,
            "fallbacks": [{"claude": ["gpt"]}, {"gpt": ["claude"]}],
        },
        "mobius": {
            "laps": 1,
            "keys": [
                {"name": "web", "key": KEYS["web"]},
                {"name": "tight", "key": KEYS["tight"], "limits": {"tpm": 2000}},
                {
                    "name": "poor",
                    "key": KEYS["poor"],
                    "limits": {"budget_usd": {"day": 50}, "max_tokens_per_request": 500},
                },
            ],
            "breaker": {"failures": 1000, "min_calls": 1000},
        },
    }


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.claude, running.gpt):
        fake.reset_script()
        fake.journal.clear()
    return running


def test_an_assistant_of_fifty_turns_loses_no_message_no_call_and_no_result(place: Place) -> None:
    messages: list[Any] = [{"role": "user", "content": "make it work"}]
    heard: list[str] = []  # the ids of all calls, in order
    answered: set[str] = set()
    for turn in range(TURNS):
        place.claude.script(_step(turn, fails=turn % 3 == 1))
        place.gpt.script(_step(turn, fails=turn % 7 == 3 and turn % 3 != 1))
        model = "claude" if turn % 2 else "gpt"
        with place.client.messages.stream(
            model=model, max_tokens=64, messages=messages, tools=TOOLS, system="you are a tool"
        ) as stream:
            found = stream.get_final_message()
        assert found.stop_reason == "tool_use"
        uses = [block for block in found.content if block.type == "tool_use"]
        assert [(use.name, use.input) for use in uses] == [
            ("read", {"at": f"a{turn}"}),
            ("write", {"at": f"b{turn}"}),
        ]
        answered.add(found.model)
        heard += [use.id for use in uses]
        results = [_result(use.id, turn) for use in uses]
        messages += [
            {"role": "assistant", "content": [b.to_dict() for b in found.content]},
            {"role": "user", "content": [*results, {"type": "text", "text": f"turn {turn}"}]},
        ]
        for fake in (place.claude, place.gpt):
            fake.reset_script()
    assert answered == {"claude-sonnet-4-6", "gpt-4o"}
    # Each provider in the end has heard everything, in its order and under one name.
    for fake, model in ((place.claude, "claude"), (place.gpt, "gpt")):
        fake.script(Answer(text="done"))
        last = place.client.messages.create(
            model=model, max_tokens=64, messages=messages, tools=TOOLS
        )
        assert last.to_dict()["content"][0]["text"] == "done"  # type: ignore[index]
        said = _said(fake.journal.last.json["messages"])
        assert said["calls"] == said["results"] == heard
        assert said["texts"] == ["make it work", *(f"turn {turn}" for turn in range(TURNS))]


def _step(turn: int, *, fails: bool) -> Step:
    if fails:
        return Fails(500) if turn % 2 else Breaks(after_tokens=0, how="ends")
    calls = [
        ToolCall(name, f'{{"at": "{letter}{turn}"}}', f"call_{turn}_{letter}")
        for name, letter in (("read", "a"), ("write", "b"))
    ]
    return Answer(tool_calls=tuple(calls), tokens=turn % 3, reasoning="so" if turn % 4 else None)


def _result(id: str, turn: int) -> dict[str, Any]:
    content = "x" if turn % 2 else [{"type": "text", "text": "x"}]
    return {"type": "tool_result", "tool_use_id": id, "content": content}


def _said(messages: list[Any]) -> dict[str, list[str]]:
    """What a provider heard of a conversation, in either wire."""
    said: dict[str, list[str]] = {"calls": [], "results": [], "texts": []}
    for message in messages:
        said["calls"] += [call["id"] for call in message.get("tool_calls") or ()]
        content = message["content"]
        if message["role"] == "tool":
            said["results"].append(message["tool_call_id"])
        elif isinstance(content, str) and message["role"] == "user":
            said["texts"].append(content)
        for block in content if isinstance(content, list) else ():
            match block["type"], message["role"]:
                case "tool_use", _:
                    said["calls"].append(block["id"])
                case "tool_result", _:
                    said["results"].append(block["tool_use_id"])
                case "text", "user":
                    said["texts"].append(block["text"])
                case _:
                    pass
    return said


@pytest.mark.parametrize("model", ["claude", "gpt"])
def test_a_reader_who_leaves_ends_the_call(place: Place, model: str) -> None:
    fake = place.claude if model == "claude" else place.gpt
    fake.script(Breaks(tokens=9, after_tokens=3, how="stall"))
    with place.client.messages.stream(model=model, **ASKED) as stream:
        assert next(iter(stream.text_stream))
    wait_until(lambda: fake.journal.last.closed_by == "client", 5, "the end of the call")


@pytest.mark.parametrize("model", ["claude", "gpt"])
def test_a_stream_that_said_why_it_ended_is_complete(place: Place, model: str) -> None:
    for fake in (place.claude, place.gpt):
        fake.script(NoDone())
    raw = place.mobius.http.post(
        "/v1/messages",
        json={"model": model, "stream": True, **ASKED},
        headers={"x-api-key": KEYS["web"]},
    ).text
    assert raw.count("event: message_stop\n") == 1
    assert raw.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert "event: error" not in raw


def test_many_at_once_get_their_own_answers(place: Place) -> None:
    async def ask(client: AsyncAnthropic, number: int) -> str:
        # A text of its own, so that no two are alike.
        asked: Any = [{"role": "user", "content": f"number {number}"}]
        model = ("claude", "gpt")[number % 2]
        async with client.messages.stream(model=model, max_tokens=64, messages=asked) as stream:
            return await stream.get_final_text()

    async def all_of_them() -> list[str]:
        async with AsyncAnthropic(
            base_url=place.mobius.url,
            auth_token=KEYS["web"],
            max_retries=0,
            http_client=DefaultAsyncHttpxClient(trust_env=False),
        ) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(CROWD)))

    for fake in (place.claude, place.gpt):
        fake.always(Answer(tokens=40))
    texts = asyncio.run(all_of_them())
    assert set(texts) == {"".join(f"t{number} " for number in range(40))}


@pytest.mark.parametrize("model", ["claude", "gpt"])
def test_tokens_are_charged_as_they_were_counted_cached_ones_too(place: Place, model: str) -> None:
    for fake in (place.claude, place.gpt):
        fake.always(Answer(usage=Usage(100, 20, cached=60)))
    before = place.mobius.metrics()
    raw = place.client.messages.with_raw_response.create(model=model, **ASKED)
    with place.client.messages.stream(model=model, **ASKED) as stream:
        stream.get_final_message()
    after = place.mobius.metrics()

    def spent(kind: str) -> float:
        name = "mobius_tokens_total"
        return total(after, name, kind=kind) - total(before, name, kind=kind)

    assert {kind: spent(kind) for kind in ("prompt", "prompt_cached", "completion")} == {
        "prompt": 80,
        "prompt_cached": 120,
        "completion": 40,
    }
    assert raw.headers["x-mobius-target"].startswith(f"{model}/")
    assert float(raw.headers["x-mobius-cost-usd"]) > 0
    assert raw.headers["x-mobius-cache"] == "bypass"


def test_a_limit_of_tokens_holds_here_and_is_told(place: Place) -> None:
    place.claude.always(Answer(usage=Usage(900, 600)))
    client = place.mobius.anthropic(KEYS["tight"])
    raw = client.messages.with_raw_response.create(model="claude", **ASKED)
    assert raw.headers["x-ratelimit-remaining-tokens"] == "500"
    with pytest.raises(anthropic.RateLimitError) as full:
        client.messages.create(model="claude", max_tokens=600, messages=ASKED["messages"])
    assert full.value.type == "rate_limit_error"
    # To count is free.
    assert client.messages.count_tokens(model="claude", messages=ASKED["messages"]).input_tokens


def test_an_answer_is_bounded_where_the_caller_s_limit_is_all_that_bounds_it(place: Place) -> None:
    for model, fake in (("claude", place.claude), ("gpt", place.gpt)):
        answer = place.mobius.http.post(
            "/v1/messages",
            json={"model": model, "messages": ASKED["messages"]},
            headers={"x-api-key": KEYS["poor"]},
        )
        assert answer.status_code == 200
        sent = fake.journal.last.json
        bound = {"claude": "max_tokens", "gpt": "max_completion_tokens"}
        assert [name for name in sent if name.startswith("max_")] == [bound[model]]
        assert sent[bound[model]] == 500


def test_a_model_without_a_price_is_counted_for_but_not_asked_under_a_budget(place: Place) -> None:
    client = place.mobius.anthropic(KEYS["poor"])
    with pytest.raises(anthropic.PermissionDeniedError):
        client.messages.create(model="unheard", **ASKED)
    assert client.messages.count_tokens(model="unheard", messages=ASKED["messages"]).input_tokens
