"""
The direct lane against LiteLLM's own functions on every surface but chat: the provider gets the
same body, and the caller an answer that says the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.types import Call, Json, Lane, Surface, Target
from proxy.upstream.lanes import Providers
from tests.providers import Answer, Breaks, Fails, FakeOpenAI, Resets, Step
from tests.upstream.test_unified import MB, target_of, watched

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

REQUESTS: dict[Surface, dict[str, Json]] = {
    Surface.COMPLETIONS: {
        "plain": {"prompt": "once"},
        "several": {"prompt": ["once", "upon"], "n": 2, "best_of": 3},
        "tokens": {"prompt": [1, 2, 3]},
        "several of tokens": {"prompt": [[1], [2, 3]]},
        "sampling": {"prompt": "a", "temperature": 0, "top_p": 0.5, "seed": 7, "stop": ["x"]},
        "bounds": {"prompt": "a", "max_tokens": 5, "suffix": "b", "echo": True, "logprobs": 2},
        "user": {"prompt": "größer 🙂", "user": "u", "logit_bias": {"50256": -1}},
        "of others": {"prompt": "a", "min_p": 0.1, "guided_json": {}},
    },
    Surface.EMBEDDINGS: {
        "plain": {"input": "a"},
        "several": {"input": ["a", "größer"]},
        "tokens": {"input": [1, 2, 3]},
        "several of tokens": {"input": [[1], [2, 3]]},
        "floats": {"input": "a", "encoding_format": "float"},
        "base64": {"input": ["a", "b"], "encoding_format": "base64"},
        "short": {"input": "a", "dimensions": 2, "user": "u"},
        "of others": {"input": "a", "input_type": "query", "truncate": "END"},
    },
    Surface.MODERATIONS: {"plain": {"input": "a"}, "several": {"input": ["a", "b"]}},
    Surface.IMAGES: {"plain": {"prompt": "a"}, "sized": {"prompt": "a", "n": 2, "size": "256x256"}},
    Surface.RERANK: {},
}
CASES = [(surface, name) for surface, bodies in REQUESTS.items() for name in bodies]
# What LiteLLM writes into a body of its own accord, and it means what is assumed without it.
WRITTEN: dict[Surface, dict[str, Any]] = {Surface.EMBEDDINGS: {"encoding_format": "float"}}
STEPS: dict[str, Step] = {
    "bad request": Fails(400),
    "no key": Fails(401),
    "nothing there": Fails(404),
    "too many": Fails(429),
    "its own error": Fails(500),
    "no connection": Resets(),
}


@dataclass(frozen=True)
class Outcome:
    said: Json | None
    kind: Kind | None
    status: int | None


class Both:
    def __init__(self, provider: FakeOpenAI, runner: asyncio.Runner) -> None:
        self.provider = provider
        self.providers = Providers(SystemClock())
        self._runner = runner
        self._lanes = self.providers.lanes(lambda: MB)

    def ask(
        self, lane: Lane, call: Call, step: Step, provider: str = "openai"
    ) -> tuple[Outcome, Json, str]:
        self.provider.reset_script()
        self.provider.always(step)
        self.provider.journal.clear()
        target = replace(target_of(provider, self.provider.base_url), lane=lane)
        outcome = self.run(target, call)
        (sent,) = self.provider.journal.requests()
        return outcome, sent.json, sent.path

    def run(self, target: Target, call: Call) -> Outcome:
        before = copy.deepcopy(call.body)
        outcome = self._runner.run(self._ask(target, call))
        assert call.body == before, "the next target is asked with it, and the next request perhaps"
        return outcome

    async def _ask(self, target: Target, call: Call) -> Outcome:
        grammar = GRAMMARS[call.surface]
        try:
            reply = await self._lanes.call(target, call, foreign=False, waiting=watched())
            if isinstance(reply, ChunkStream):
                events: list[Json] = []
                async with contextlib.aclosing(reply):
                    async for chunk in reply:
                        events += chunk.events
                return Outcome(_said(grammar.whole(events)), None, None)
            return Outcome(_said(reply.body), None, None)
        except UpstreamFailure as failure:
            return Outcome(None, failure.kind, failure.provider_status)


def _said(body: Json) -> Json:
    """What of an answer the caller acts on; ids, clocks and counts of the fake's are chance."""
    chance = {"id", "created", "usage", "system_fingerprint"}
    return {name: value for name, value in body.items() if name not in chance and value is not None}


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with asyncio.Runner() as runner, FakeOpenAI() as provider:
        subject = Both(provider, runner)
        runner.run(subject.providers.sdk.ready())
        yield subject
        runner.run(subject.providers.aclose())


def call_on(surface: Surface, body: Json, *, stream: bool = False) -> Call:
    asked = {"model": "group", **body, **({"stream": True} if stream else {})}
    return Call("group", stream, asked, surface)


@pytest.mark.parametrize(("surface", "name"), CASES)
def test_the_provider_gets_the_same_request_and_the_caller_the_same_answer(
    both: Both, surface: Surface, name: str
) -> None:
    streams = surface is Surface.COMPLETIONS
    for stream in (False, True) if streams else (False,):
        call = call_on(surface, REQUESTS[surface][name], stream=stream)
        unified, by_litellm, its_path = both.ask(Lane.UNIFIED, call, Answer())
        direct, ours, path = both.ask(Lane.DIRECT, call, Answer())
        assert {**WRITTEN.get(surface, {}), **ours} == {**WRITTEN.get(surface, {}), **by_litellm}
        assert path == its_path
        assert unified == direct
        assert direct.said is not None


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("surface", [Surface.COMPLETIONS, Surface.EMBEDDINGS])
def test_a_failure_is_the_same_failure(both: Both, surface: Surface, name: str) -> None:
    call = call_on(surface, REQUESTS[surface]["plain"])
    unified, _, _ = both.ask(Lane.UNIFIED, call, STEPS[name])
    direct, _, _ = both.ask(Lane.DIRECT, call, STEPS[name])
    assert unified == direct
    assert direct.kind is not None


@pytest.mark.parametrize("how", ["ends", "reset", "error_event"])
@pytest.mark.parametrize("after", [0, 2])
def test_a_stream_that_breaks_breaks_on_both(both: Both, how: Any, after: int) -> None:
    call = call_on(Surface.COMPLETIONS, {"prompt": "a"}, stream=True)
    unified, _, _ = both.ask(Lane.UNIFIED, call, Breaks(after, how=how))
    direct, _, _ = both.ask(Lane.DIRECT, call, Breaks(after, how=how))
    assert unified == direct
    assert direct.kind is (Kind.TRANSIENT if after == 0 else Kind.BROKEN)


def test_a_stream_that_is_translated_ends_as_the_provider_ended_it(both: Both) -> None:
    call = call_on(Surface.COMPLETIONS, {"prompt": "a"}, stream=True)
    direct, _, _ = both.ask(Lane.DIRECT, call, Answer())
    translated, _, _ = both.ask(Lane.UNIFIED, call, Answer(), "text-completion-openai")
    assert translated == direct
    for how in ("ends", "reset"):
        broken = Breaks(2, how=how)
        outcome, _, _ = both.ask(Lane.UNIFIED, call, broken, "text-completion-openai")
        assert outcome.kind is Kind.BROKEN


def test_choices_that_litellm_would_mix_up_are_not_asked_for(both: Both) -> None:
    for body in ({"prompt": "a", "n": 2}, {"prompt": ["a", "b"]}, {"prompt": [[1], [2]]}):
        call = call_on(Surface.COMPLETIONS, body, stream=True)
        both.provider.journal.clear()
        target = target_of("text-completion-openai", both.provider.base_url)
        outcome = both.run(target, call)
        assert outcome.kind is Kind.DIALECT
        assert len(both.provider.journal) == 0


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        (Surface.EMBEDDINGS, {"input": "a"}),
        (Surface.MODERATIONS, {"input": "a"}),
        (Surface.IMAGES, {"prompt": "a"}),
        (Surface.RERANK, {"query": "a", "documents": ["b"]}),
    ],
)
def test_a_provider_without_the_endpoint_is_there_all_the_same(
    both: Both, surface: Surface, body: Json
) -> None:
    both.provider.journal.clear()
    target = target_of("anthropic", both.provider.base_url)
    assert both.run(target, call_on(surface, body)).kind is Kind.DIALECT
    assert len(both.provider.journal) == 0
