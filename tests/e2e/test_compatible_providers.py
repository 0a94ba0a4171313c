"""Providers that speak OpenAI's wire format under other names: no cut answer passes for whole.

LiteLLM reads their streams, each through a class of its own, and takes `[DONE]` for a finish
reason; the base class is not to be relied on for all of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.stream_checks import (
    Listener,
    Overheard,
    check_cut,
    check_whole,
    failing,
    target,
)
from tests.harness import Mobius, total
from tests.providers import Answer, FakeOpenAI, NoDone
from tests.providers.steps import Step

pytestmark = pytest.mark.e2e

TOKENS = 4
PROVIDERS = (
    "openai",
    "custom_openai",
    "hosted_vllm",
    "groq",
    "together_ai",
    "deepseek",
    "mistral",
    "openrouter",
    "fireworks_ai",
    "xai",
    "perplexity",
    "cerebras",
    "nvidia_nim",
)
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@dataclass(frozen=True)
class Place:
    """One fake behind them all."""

    mobius: Mobius
    fake: FakeOpenAI

    def hear(self, provider: str, *steps: Step) -> list[Overheard]:
        """So many streams, one after the other, each to its end."""
        self.fake.script(*steps)
        return asyncio.run(self._hear(f"{provider}-by-{provider}", len(steps)))

    def broken(self, provider: str) -> float:
        """How often its target was blamed for a stream that broke."""
        label = f"{provider}-by-{provider}/{provider}/by-{provider}"
        name = "mobius_attempt_seconds_count"
        return total(self.mobius.metrics(), name, target=label, outcome="broken")

    async def _hear(self, name: str, times: int) -> list[Overheard]:
        async with Listener(self.mobius.url) as listener:
            return [await listener.stream(name, f"{name}-{time}") for time in range(times)]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as fake:
        config = {
            "model_list": [target(f"{name}/by-{name}", fake.base_url) for name in PROVIDERS],
            "router_settings": {"num_retries": 0},
            "mobius": {"laps": 1, "breaker": {"failures": 1000, "min_calls": 1000}},
        }
        with Mobius(config) as mobius:
            yield Place(mobius, fake)


@each_provider
def test_a_stream_with_a_finish_reason_is_whole(place: Place, provider: str) -> None:
    whole, unmarked = place.hear(provider, Answer(tokens=TOKENS), NoDone(tokens=TOKENS))
    check_whole(whole, TOKENS)
    check_whole(unmarked, TOKENS)
    entry = place.fake.journal.last
    assert entry.path.endswith("/chat/completions")
    assert entry.headers["authorization"] == "Bearer sk-of-a-fake"


def _event(**fields: Any) -> bytes:
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **fields}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


def _delta(text: str) -> bytes:
    delta = {"role": "assistant", "content": text}
    return _event(choices=[{"index": 0, "delta": delta, "finish_reason": None}])


USAGE = {"prompt_tokens": 7, "completion_tokens": TOKENS, "total_tokens": 7 + TOKENS}
SPOKEN = b"".join(_delta(f"t{number} ") for number in range(TOKENS))
DONE = b"data: [DONE]\n\n"
# Each ends as a whole answer does, but for the reason why.
ENDS = {
    "the mark": DONE,
    "usage": _event(choices=[], usage=USAGE),
    "usage and the mark": _event(choices=[], usage=USAGE) + DONE,
    "an empty delta with the usage and the mark": _event(
        choices=[{"index": 0, "delta": {}, "finish_reason": None}], usage=USAGE
    )
    + DONE,
    "an empty reason and the mark": _event(choices=[{"index": 0, "delta": {}, "finish_reason": ""}])
    + DONE,
    "nothing": b"",
}


@each_provider
def test_an_end_without_a_finish_reason_is_a_cut_answer(place: Place, provider: str) -> None:
    cases = [(end, split) for end in ENDS for split in ((), (len(SPOKEN),))]
    steps = [Answer(raw_body=SPOKEN + ENDS[end], write_split=split) for end, split in cases]
    broken = place.broken(provider)
    heard = place.hear(provider, *steps)
    told = [(str(case), each, TOKENS) for case, each in zip(cases, heard, strict=True)]
    assert failing(told, check_cut) == []
    assert place.broken(provider) == broken + len(cases)
