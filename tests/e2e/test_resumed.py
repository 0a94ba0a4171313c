"""`on_midstream: continue`, with real processes: a stream that broke is finished, or it says so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import httpx
import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

from proxy.usage import BYTES_PER_TOKEN
from tests.e2e.stream_checks import (
    Listener,
    Overheard,
    Visitor,
    check_cut,
    check_whole,
    failing,
    said,
    target,
)
from tests.harness import Mobius, total, wait_until
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    FakeProvider,
    Gate,
    Step,
    ToolCall,
    Usage,
)
from tests.providers.steps import BreakKind
from tests.store.rows import select

pytestmark = pytest.mark.e2e

TOKENS = 12
CUT = 5
WAIT_S = 1  # for a silent provider
REST = " " + "".join(f"t{number} " for number in range(CUT, TOKENS))  # behind what was trimmed
SEAM = ": resumed"
CLAUDE = "claude-sonnet-4-5"  # LiteLLM's table says that it takes a prefill
Provider: TypeAlias = Literal["openai", "anthropic"]
PROVIDERS: tuple[Provider, ...] = ("openai", "anthropic")
OTHER: dict[Provider, Provider] = {"openai": "anthropic", "anthropic": "openai"}
WAYS: tuple[BreakKind, ...] = ("eof", "ends", "reset", "stall", "malformed", "error_event")


@dataclass(frozen=True)
class Place:
    """A Mobius that goes on, and the providers behind it, each with a first and a second model."""

    mobius: Mobius
    fakes: dict[Provider, FakeProvider]

    def script(self, first: Provider, *steps: Step, second: str = "second") -> None:
        """The first step is what `first` says, the second what the other one is asked for."""
        for fake in self.fakes.values():
            fake.reset_script()
            fake.journal.clear()
        self.fakes[first].script(steps[0], model="first")
        if len(steps) > 1:
            self.fakes[OTHER[first]].script(*steps[1:], model=second)

    def hear(self, model: str, name: str, **more: Any) -> Overheard:
        return asyncio.run(self._hear(model, name, more))

    async def _hear(self, model: str, name: str, more: dict[str, Any]) -> Overheard:
        async with asyncio.timeout(30.0), Listener(self.mobius.url) as listener:
            return await listener.stream(model, name, **more)

    def rows(self, request_id: str, count: int) -> list[tuple[Any, ...]]:
        """Target, outcome, tokens and whether they are a guess, of each attempt of a request."""
        path = self.mobius.folder / "data" / "mobius.db"
        columns = "target, outcome, prompt_tokens, completion_tokens, estimated"
        query = (
            f"SELECT {columns} FROM attempts WHERE request_id = '{request_id}' "  # noqa: S608
            "ORDER BY attempt"
        )

        def found() -> list[tuple[Any, ...]] | None:
            rows = select(path, query)
            return rows if len(rows) >= count else None

        rows = wait_until(found, 5.0, "the rows")
        assert rows is not None
        assert len(rows) == count
        return rows

    def told(self, result: str) -> float:
        return total(self.mobius.metrics(), "mobius_resumed_total", result=result)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as gpts, FakeAnthropic() as anthropic:
        fakes: dict[Provider, FakeProvider] = {"openai": gpts, "anthropic": anthropic}
        models = [
            ("openai/first", gpts),
            ("openai/second", gpts),
            ("anthropic/first", anthropic),
        ]
        models += [("anthropic/second", anthropic), (f"anthropic/{CLAUDE}", anthropic)]
        config = {
            "model_list": [
                *(target(name, fake.base_url) for name, fake in models),
                *(target(f"{p}/{how}", fakes[p].base_url) for p in PROVIDERS for how in WAYS),
                target("openai/first", gpts.base_url, name="prefilled"),
                target("openai/first", gpts.base_url, name="chat"),
            ],
            "litellm_settings": {"cache": True},
            "router_settings": {
                "num_retries": 0,
                "fallbacks": [
                    *(
                        {f"{p}-{model}": [f"{OTHER[p]}-second"]}
                        for p in PROVIDERS
                        for model in ("first", *WAYS)
                    ),
                    {"prefilled": [f"anthropic-{CLAUDE}", "openai-second"]},
                    {"chat": ["anthropic-second"]},
                ],
            },
            "mobius": {
                "on_midstream": "continue",
                "laps": 1,
                "timeouts": {"idle": WAIT_S},
                "breaker": {"failures": 1000, "min_calls": 1000},
            },
        }
        with Mobius(config) as mobius:
            yield Place(mobius, fakes)


def seams(heard: Overheard) -> int:
    return heard.frames.count(SEAM)


@pytest.mark.parametrize("first", PROVIDERS)
def test_a_stream_that_breaks_is_finished_by_the_other_provider(
    place: Place, first: Provider
) -> None:
    fakes = place.fakes
    for how in WAYS:
        fakes[first].script(Breaks(CUT, how, tokens=TOKENS), model=how)
        fakes[OTHER[first]].script(Answer(tokens=TOKENS), model="second")
    heard = asyncio.run(_hear_all(place.mobius.url, first))
    assert failing([(how, heard[how], TOKENS) for how in WAYS], check_whole) == []
    assert {how: seams(heard[how]) for how in WAYS} == dict.fromkeys(WAYS, 1)
    assert {how: len({e["id"] for e in heard[how].events}) for how in WAYS} == dict.fromkeys(
        WAYS, 1
    )
    entries = fakes[OTHER[first]].journal.wait_over(len(WAYS))
    assert {entry.json["messages"][-1]["role"] for entry in entries} == {"user"}
    for how in WAYS:
        broken, ok = place.rows(f"{first}-{how}", 2)
        assert (broken[0], broken[1]) == (f"{first}-{how}/{first}/{how}", "broken")
        assert ok[1] == "ok"


async def _hear_all(url: str, first: Provider) -> dict[BreakKind, Overheard]:
    async with asyncio.timeout(30.0), Listener(url) as listener:
        heard = await asyncio.gather(*(listener.stream(f"{first}-{how}") for how in WAYS))
        return dict(zip(WAYS, heard, strict=True))


@pytest.mark.parametrize("how", ["eof", "error_event"])
def test_a_claude_that_takes_a_beginning_is_asked_for_the_rest_alone(
    place: Place, how: BreakKind
) -> None:
    place.script("openai", Breaks(CUT, how, tokens=TOKENS), Answer(text=REST), second=CLAUDE)
    heard = place.hear("prefilled", f"prefill-{how}", max_tokens=100)
    check_whole(heard, TOKENS)
    assert seams(heard) == 1
    (entry,) = place.fakes["anthropic"].journal.wait_over()
    begun = said(CUT).rstrip()
    assert entry.json["messages"][-1] == {
        "role": "assistant",
        "content": [{"type": "text", "text": begun}],
    }
    assert entry.json["max_tokens"] == 100 - -(-len(begun) // BYTES_PER_TOKEN)


def test_a_beginning_that_is_refused_after_all_is_asked_for_afresh(place: Place) -> None:
    refusal = Fails(
        400,
        body={"type": "error", "error": {"type": "invalid_request_error", "message": "no prefill"}},
    )
    place.script(
        "openai", Breaks(CUT, "eof", tokens=TOKENS), refusal, Answer(tokens=TOKENS), second=CLAUDE
    )
    check_whole(place.hear("prefilled", "refused"), TOKENS)
    assert [row[1] for row in place.rows("refused", 3)] == ["broken", "caller", "ok"]


def test_who_cannot_go_on_is_passed_over(place: Place) -> None:
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Fails(529), second=CLAUDE)
    place.fakes["openai"].script(Answer(tokens=TOKENS), model="second")
    check_whole(place.hear("prefilled", "passed-over"), TOKENS)
    assert [row[1] for row in place.rows("passed-over", 3)] == ["broken", "overloaded", "ok"]


@pytest.mark.parametrize("first", PROVIDERS)
def test_the_books_and_the_usage_say_what_each_provider_sent(place: Place, first: Provider) -> None:
    name, usage = f"{first}-books", Usage(prompt=70, completion=TOKENS)
    place.script(first, Breaks(CUT, "ends", tokens=TOKENS), Answer(tokens=TOKENS, usage=usage))
    heard = place.hear(f"{first}-first", name, stream_options={"include_usage": True})
    check_whole(heard, TOKENS)
    (entry,), (other,) = (place.fakes[p].journal.wait_over() for p in (first, OTHER[first]))
    broken, ok = place.rows(name, 2)
    sent_bytes = sum(len(f"t{number} ") for number in entry.tokens_sent)
    assert entry.tokens_sent == tuple(range(CUT))
    counted = -(-sent_bytes // BYTES_PER_TOKEN)
    assert broken[1:] == ("broken", broken[2], counted, 1)  # nobody has said what the prompt takes
    assert ok[1:] == ("ok", 70, len(other.tokens_sent), 0)
    (told,) = [chunk.usage for chunk in heard.chunks if chunk.usage]
    assert told.prompt_tokens == broken[2] + ok[2]
    assert told.completion_tokens == broken[3] + ok[3]
    assert told.total_tokens == told.prompt_tokens + told.completion_tokens


def test_the_sdk_makes_one_message_of_it(place: Place) -> None:
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Answer(tokens=TOKENS))
    heard = place.hear("openai-first", "one-message")
    state = ChatCompletionStreamState()
    for chunk in heard.chunks:
        state.handle_chunk(chunk)
    (choice,) = state.current_completion_snapshot.choices
    assert (choice.message.role, choice.message.content) == ("assistant", said(TOKENS))
    assert choice.finish_reason == "stop"


def test_the_log_and_the_metrics_tell_it(place: Place) -> None:
    before, fallbacks = place.told("whole"), total(place.mobius.metrics(), "mobius_fallbacks_total")
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Answer(tokens=TOKENS))
    check_whole(place.hear("openai-first", "in-the-log"), TOKENS)
    assert place.told("whole") == before + 1
    assert total(place.mobius.metrics(), "mobius_fallbacks_total") == fallbacks + 1
    lines = [json.loads(line) for line in place.mobius.log.splitlines() if "in-the-log" in line]
    (line,) = [line for line in lines if line.get("request_id") == "in-the-log"]
    assert line["attempts"] == [
        "openai-first/openai/first:200",
        "anthropic-second/anthropic/second:200",
    ]


@pytest.mark.parametrize("how", ["another-text", "less-text"])
def test_where_the_other_one_says_something_else_the_error_is_the_answer(
    place: Place, how: str
) -> None:
    other = (
        Answer(tokens=CUT - 1)
        if how == "less-text"
        else Answer(text="t0 t1 tea for two and two for tea")
    )
    before = place.told("diverged")
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), other)
    heard = place.hear("openai-first", how)
    check_cut(heard, CUT)
    assert seams(heard) == 0
    assert [row[1] for row in place.rows(how, 2)] == ["broken", "cancelled"]
    assert place.told("diverged") == before + 1


def test_where_nobody_else_answers_the_error_is_the_answer(place: Place) -> None:
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Fails(500))
    check_cut(place.hear("openai-first", "nobody"), CUT)


CALL = ToolCall("weather", '{"city": "Paris", "days": 3}', id="call_a", fragments=7)
ASIDE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a-tool": ({"tokens": 3, "tool_calls": (CALL,)}, {}),
    "reasoning": ({"tokens": 9, "reasoning": "Let me think."}, {}),
    "logprobs": ({"tokens": 9}, {"logprobs": True}),
    "two-choices": ({"tokens": 9}, {"n": 2}),
}


@pytest.mark.parametrize("what", ASIDE)
def test_more_than_a_text_is_not_gone_on_with(place: Place, what: str) -> None:
    answer, more = ASIDE[what]
    place.script("openai", Breaks(6, "eof", **answer))
    heard = place.hear("openai-first", what, **more)
    assert heard.error is not None
    assert "error" in json.loads(heard.payloads[-1])
    assert len(place.fakes["anthropic"].journal) == 0
    assert [row[1] for row in place.rows(what, 1)] == ["broken"]


def test_a_resumed_answer_that_ended_is_kept_like_any_other(place: Place) -> None:
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Answer(tokens=TOKENS))
    check_whole(place.hear("openai-first", "kept"), TOKENS)

    def again() -> Overheard | None:
        heard = place.hear("openai-first", "kept")
        return heard if heard.headers.get("x-mobius-cache") == "hit" else None

    heard = again()
    assert heard is not None
    check_whole(heard, TOKENS)
    assert seams(heard) == 0


def test_all_who_share_a_call_get_the_rest(place: Place) -> None:
    gate = Gate()
    broken = Breaks(CUT, "eof", tokens=TOKENS, gate=gate, gate_after_tokens=2)
    place.script("openai", broken, Answer(tokens=TOKENS))

    async def one(client: openai.AsyncOpenAI) -> str:
        text = ""
        async with await client.chat.completions.create(
            model="openai-first", messages=[{"role": "user", "content": "shared"}], stream=True
        ) as stream:
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                waiting.discard(asyncio.current_task())
                if not waiting:
                    gate.open()
        return text

    async def all_of_them() -> list[str]:
        async with asyncio.timeout(30.0), place.mobius.async_openai() as client:
            tasks = [asyncio.create_task(one(client)) for _ in range(3)]
            waiting.update(tasks)
            return await asyncio.gather(*tasks)

    waiting: set[asyncio.Task[Any] | None] = set()
    assert asyncio.run(all_of_them()) == [said(TOKENS)] * 3
    assert [len(fake.journal) for fake in place.fakes.values()] == [1, 1]


def test_one_that_did_not_end_is_not_kept(place: Place) -> None:
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Answer(text="other"))
    check_cut(place.hear("openai-first", "not-kept"), CUT)
    place.script("openai", Answer(tokens=TOKENS))
    heard = place.hear("openai-first", "not-kept")
    check_whole(heard, TOKENS)
    assert heard.headers["x-mobius-cache"] == "miss"


def test_the_small_api_goes_on_as_well(place: Place) -> None:
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), Answer(tokens=TOKENS))
    body = {"messages": [{"role": "user", "content": "hi"}]}
    with httpx.stream("POST", f"{place.mobius.url}/ai/stream", json=body, timeout=30.0) as stream:
        lines = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert "".join(line["delta"] for line in lines) == said(TOKENS)
    assert lines[-1]["type"] == "content.done"


def test_a_client_that_leaves_while_it_goes_on_closes_the_other_one_too(place: Place) -> None:
    gate = Gate()
    second = Answer(tokens=TOKENS, gate=gate, gate_after_tokens=CUT + 2)
    place.script("openai", Breaks(CUT, "eof", tokens=TOKENS), second)
    with Visitor(place.mobius.port, "openai-first", stream=True, content="leaves") as visitor:
        visitor.read_until(f"t{CUT + 1} ".encode())
    place.fakes["anthropic"].journal.wait(lambda journal: journal.last.closed_by == "client")
    place.mobius.wait_until(
        lambda: total(place.mobius.metrics(), "mobius_in_flight_requests") == 0, 10.0, "the end"
    )
    gate.open()
