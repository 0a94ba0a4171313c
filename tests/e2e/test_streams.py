"""A stream is whole, or it says that it is not: broken at every token, in every way.

Each case is a model of its own, so that its provider's journal, its breaker and its metrics are
its own too.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import openai
import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState

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
from tests.harness import Mobius, wait_until
from tests.harness.metrics import parse
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    FakeProvider,
    Gate,
    NoDone,
    SseStyle,
    ToolCall,
)
from tests.providers.steps import BreakKind

pytestmark = pytest.mark.e2e

TOKENS = 60
AT_ONCE = 16
SURELY_S = 30.0  # nothing takes so long unless it never ends
WAIT_S = 3  # for a silent provider; long enough for a busy machine
FIRST_WRITE_BYTES = 800  # the opening and the first token, and a part of the second
Provider = Literal["openai", "anthropic"]
PROVIDERS: tuple[Provider, ...] = ("openai", "anthropic")
QUICK: tuple[BreakKind, ...] = ("eof", "ends", "reset", "malformed", "error_event")
SLOW: tuple[BreakKind, ...] = ("stall", "drip", "comments")
ODD: tuple[BreakKind, ...] = ("garbage_utf8", "html")
JOINED: tuple[BreakKind, ...] = ("ends", "malformed", "error_event", "garbage_utf8", "html")
EVERY_CUT = tuple(range(TOKENS + 1))
SOME_CUTS = (0, 1, 30, TOKENS)
JOINED_CUTS = (0, 2, 30, TOKENS)


@dataclass(frozen=True)
class Case:
    """One stream that breaks; `joined`: after the first token all of it comes with one write."""

    provider: Provider
    how: BreakKind
    cut: int
    joined: bool = False

    @property
    def model(self) -> str:
        """The provider's name for it."""
        return f"{self.how}-{self.cut}{'-joined' if self.joined else ''}"

    @property
    def name(self) -> str:
        """The name that the client asks for."""
        return f"{self.provider}-{self.model}"

    @property
    def label(self) -> str:
        """Mobius' name for its target."""
        return f"{self.name}/{self.provider}/{self.model}"

    @property
    def step(self) -> Breaks:
        """What its provider does."""
        split = (FIRST_WRITE_BYTES,) if self.joined else None
        return Breaks(self.cut, self.how, tokens=TOKENS, write_split=split)


CASES = [
    Case(provider, how, cut, joined)
    for provider in PROVIDERS
    for hows, cuts, joined in (
        (QUICK, EVERY_CUT, False),
        (SLOW, SOME_CUTS, False),
        (ODD, SOME_CUTS, False),
        (JOINED, JOINED_CUTS, True),
    )
    for how in hows
    for cut in cuts
]
Meanwhile: TypeAlias = Callable[[Overheard], None]
OTHER: dict[Provider, Provider] = {"openai": "anthropic", "anthropic": "openai"}


@dataclass(frozen=True)
class Campaign:
    """All the cases, as the clients saw them, and whoever else has seen them."""

    heard: dict[Case, Overheard]
    mobius: Mobius
    fakes: dict[Provider, FakeProvider]

    def of(
        self, provider: Provider, how: BreakKind, *, whole: bool
    ) -> list[tuple[str, Overheard, int]]:
        """The cases that must have been answered whole, or those that must have been cut."""
        return [
            (case.name, heard, TOKENS if whole else _arrived(case, heard))
            for case, heard in self.heard.items()
            if (case.provider, case.how) == (provider, how) and (case.cut == 0) is whole
        ]


def _arrived(case: Case, heard: Overheard) -> int:
    """How many tokens came through: all that were sent, unless a reset took them back.

    What the provider's kernel has not put on the wire when the RST goes out is never sent, and
    nobody but that kernel knows how much it was.
    """
    arrived = len(heard.text.split())
    return arrived if case.how == "reset" and 0 < arrived < case.cut else case.cut


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        fakes: dict[Provider, FakeProvider] = {"openai": openai, "anthropic": anthropic}
        for fake in fakes.values():
            fake.always(Answer(tokens=TOKENS), model="spare")
        for case in CASES:
            fakes[case.provider].always(case.step, model=case.model)
        with Mobius(_config(fakes)) as mobius:
            yield Campaign(asyncio.run(_run(mobius.url)), mobius, fakes)


def _config(fakes: dict[Provider, FakeProvider]) -> dict[str, object]:
    targets = [
        target(
            f"{case.provider}/{case.model}",
            fakes[case.provider].base_url,
            stream_timeout=WAIT_S if case.how in SLOW and not case.cut else 60,
        )
        for case in CASES
    ]
    spares = [target(f"{name}/spare", fake.base_url) for name, fake in fakes.items()]
    return {
        "model_list": [*targets, *spares],
        "router_settings": {
            "num_retries": 0,
            "fallbacks": [{case.name: [f"{OTHER[case.provider]}-spare"]} for case in CASES],
        },
        "mobius": {
            "laps": 1,
            "timeouts": {"idle": WAIT_S},
            # One failure is enough to open it, and that is seen to the end of the module.
            "breaker": {"failures": 1, "rest": 3600, "rest_cap": 3600},
        },
    }


async def _run(url: str) -> dict[Case, Overheard]:
    places = asyncio.Semaphore(AT_ONCE)
    quick = [case for case in CASES if case.how not in SLOW]
    slow = [case for case in CASES if case.how in SLOW]
    async with Listener(url) as listener:

        async def one(case: Case) -> Overheard:
            hear = listener.stream if case.cut in SOME_CUTS else listener.overhear
            async with places:
                return await hear(case.name)

        heard = await asyncio.gather(*map(one, quick))
        places = asyncio.Semaphore(len(slow))
        heard += await asyncio.gather(*map(one, slow))
        return dict(zip(quick + slow, heard, strict=True))


every_way = pytest.mark.parametrize("how", [*QUICK, *SLOW, *ODD])
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


@every_way
@each_provider
def test_before_its_first_content_a_stream_is_answered_whole_by_the_next_target(
    campaign: Campaign, provider: Provider, how: BreakKind
) -> None:
    assert failing(campaign.of(provider, how, whole=True), check_whole) == []


@every_way
@each_provider
def test_after_content_a_stream_ends_with_exactly_that_and_one_error(
    campaign: Campaign, provider: Provider, how: BreakKind
) -> None:
    assert failing(campaign.of(provider, how, whole=False), check_cut) == []


def test_the_trail_names_every_target_that_was_asked_and_why_it_was_left(
    campaign: Campaign,
) -> None:
    for case, heard in campaign.heard.items():
        other = OTHER[case.provider]
        spare = f"{other}-spare/{other}/spare:200"
        kind = "silent" if case.how in SLOW else "transient"
        if case.provider == "anthropic" and case.how == "error_event":
            kind = "overloaded"  # what it says, in its own words
        wanted = f"{case.label}:200" if case.cut else f"{case.label}:{kind},{spare}"
        assert heard.trail == wanted


def test_every_target_that_broke_is_blamed_once_and_nobody_else(campaign: Campaign) -> None:
    health = campaign.mobius.http.get("/health").json()
    assert {entry["target"] for entry in health["unhealthy_endpoints"]} == {c.label for c in CASES}
    assert all(entry["reason"].startswith("resting") for entry in health["unhealthy_endpoints"])
    attempts = _attempts(campaign.mobius)
    for case in CASES:
        ((outcome, times),) = attempts.pop(case.label)
        assert (outcome == "broken", times) == (case.cut > 0, 1)
    spare = sum(case.cut == 0 for case in CASES)
    assert list(attempts.values()) == [[("ok", spare / 2)]] * 2


def _attempts(mobius: Mobius) -> dict[str, list[tuple[str, float]]]:
    """By target: how its attempts ended, and how many did."""
    page = mobius.http.get("/metrics").text.splitlines()
    assert "mobius_in_flight_requests 0.0" in page
    name = "mobius_attempt_seconds_count"
    # Thousands of targets have a page that takes seconds to parse.
    samples = parse("\n".join(line for line in page if line.startswith(name)) + "\n")
    found: dict[str, list[tuple[str, float]]] = {}
    for (_, labels), value in samples.items():
        facts = dict(labels)
        found.setdefault(facts["target"], []).append((facts["outcome"], value))
    return found


def test_every_provider_was_asked_once_and_the_spare_only_where_nothing_was_said(
    campaign: Campaign,
) -> None:
    for case in CASES:
        (entry,) = campaign.fakes[case.provider].journal.requests(case.model)
        assert entry.tokens_sent[: case.cut] == tuple(range(case.cut))
    for provider, fake in campaign.fakes.items():
        asked = {_said_by_the_caller(entry.json) for entry in fake.journal.requests("spare")}
        unsaid = {c.name for c in CASES if c.cut == 0 and OTHER[c.provider] == provider}
        assert asked == unsaid
        assert len(fake.journal.requests("spare")) == len(unsaid)
        fake.journal.wait(lambda journal: journal.open_requests == 0)


def _said_by_the_caller(body: dict[str, list[dict[str, object]]]) -> object:
    content = body["messages"][-1]["content"]
    return content[0]["text"] if isinstance(content, list) else content


@dataclass(frozen=True)
class Place:
    """A Mobius whose streams may take their time, and the providers behind it."""

    mobius: Mobius
    fakes: dict[Provider, FakeProvider]

    def hear(
        self, name: str, meanwhile: Meanwhile | None = None, url: str = "", **more: Any
    ) -> Overheard:
        """One stream, to its end; AssertionError when it has none."""
        return asyncio.run(self._hear(name, meanwhile, url or self.mobius.url, more))

    async def _hear(
        self, name: str, meanwhile: Meanwhile | None, url: str, more: dict[str, Any]
    ) -> Overheard:
        async with asyncio.timeout(SURELY_S), Listener(url) as listener:
            hearing = asyncio.create_task(listener.stream(name, **more))
            if meanwhile is not None:
                await asyncio.to_thread(meanwhile, listener.heard(name))
            return await hearing


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        fakes: dict[Provider, FakeProvider] = {"openai": openai, "anthropic": anthropic}
        config = {
            "model_list": [
                target("openai/gpt", openai.base_url),
                target("openai/alone", openai.base_url),
                target("anthropic/claude", anthropic.base_url),
            ],
            "router_settings": {
                "num_retries": 0,
                "fallbacks": [{"openai-gpt": ["anthropic-claude"]}],
            },
            "mobius": {
                "laps": 1,
                "keepalive": 0.1,
                "timeouts": {"idle": 600, "first_token": 600},
                "breaker": {"failures": 1000, "min_calls": 1000},
            },
        }
        with Mobius(config) as mobius:
            yield Place(mobius, fakes)


MODELS: dict[Provider, str] = {"openai": "gpt", "anthropic": "claude"}


@pytest.mark.parametrize("then", ["close", "open"])
@each_provider
def test_a_finish_without_the_mark_of_the_end_is_a_complete_answer(
    place: Place, provider: Provider, then: Literal["close", "open"]
) -> None:
    model = MODELS[provider]
    fake = place.fakes[provider]
    fake.journal.clear()
    fake.script(NoDone(tokens=TOKENS, then=then), model=model)
    # Without a timeout that would end it: it ends by itself, or the test fails.
    check_whole(place.hear(f"{provider}-{model}"), TOKENS)
    (entry,) = fake.journal.wait_over()
    if then == "open":
        fake.journal.wait(lambda journal: journal.last.closed_by == "client")
    else:
        assert entry.finished


@pytest.mark.parametrize("asked", [True, False])
@each_provider
def test_the_usage_is_always_asked_for_and_told_to_those_who_asked(
    place: Place, provider: Provider, asked: bool
) -> None:
    model = MODELS[provider]
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    heard = place.hear(f"{provider}-{model}", **more)
    usages = [chunk.usage for chunk in heard.chunks if chunk.usage]
    if asked:
        (usage,) = usages
        assert (usage.completion_tokens, heard.chunks[-1].choices) == (5, [])
    else:
        assert usages == []
        assert all(chunk.choices for chunk in heard.chunks)
    if provider == "openai":
        assert place.fakes[provider].journal.last.json["stream_options"] == {"include_usage": True}


CALLS = (
    ToolCall("weather", '{"city": "Paris", "days": 3}', id="call_a", fragments=7),
    ToolCall("time", '{"zone": "CET"}', id="call_b", fragments=2),
)
ANSWERS: dict[str, tuple[Answer, dict[str, Any]]] = {
    "text": (Answer(tokens=TOKENS), {}),
    "two choices": (Answer(tokens=TOKENS), {"n": 2}),
    "two choices without an end": (NoDone(tokens=TOKENS, then="open"), {"n": 2}),
    "parallel tools": (Answer(tool_calls=CALLS), {}),
    "text and tools": (Answer(tokens=3, tool_calls=CALLS), {"n": 2}),
    "refusal": (Answer(refusal="I would rather not say that."), {}),
    "reasoning": (Answer(tokens=4, reasoning="Let me think about it."), {}),
    "logprobs": (Answer(tokens=9), {"logprobs": True}),
    "length": (Answer(tokens=2, finish="length"), {}),
    "content filter": (Answer(tokens=2, finish="content_filter"), {}),
    "unicode": (Answer(text="naïve 日本語 \U0001f600 \u2028 end", write_split=3), {}),
    "crlf": (Answer(sse_style=SseStyle(newline="\r\n", comments=True, bom=True)), {}),
    "several lines": (Answer(sse_style=SseStyle(multiline=True, extras=True), write_split=7), {}),
    "gzip": (Answer(tokens=TOKENS, gzip=True, write_split=11), {}),
    "one write": (Answer(tokens=TOKENS, write_split=()), {}),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_every_event_comes_through_unchanged(place: Place, kind: str) -> None:
    answer, more = ANSWERS[kind]
    more |= {"stream_options": {"include_usage": True}}
    fake = place.fakes["openai"]
    fake.script(answer, model="gpt")
    heard = place.hear("openai-gpt", **more)
    without_end = replace(answer, then="close") if isinstance(answer, NoDone) else answer
    fake.script(without_end, model="openai-gpt")
    direct = place.hear("openai-gpt", url=f"http://127.0.0.1:{fake.port}", **more)
    assert heard.error is None
    assert _facts(heard) == _facts(direct)
    assert heard.payloads[-1] == "[DONE]"
    said_here, said_there = _final(heard), _final(direct)
    assert said_here == said_there
    assert said_here["usage"]["completion_tokens"] > 0


def _facts(heard: Overheard) -> list[Any]:
    """The chunks but for what depends on who asked, when, and as which request."""
    dumps = [chunk.model_dump(exclude={"id", "created", "model"}) for chunk in heard.chunks]
    for chunk in dumps:
        (chunk.get("usage") or {}).pop("prompt_tokens", None)
        (chunk.get("usage") or {}).pop("total_tokens", None)
    return dumps


def _final(heard: Overheard) -> dict[str, Any]:
    """What the SDK makes of the whole stream."""
    state = ChatCompletionStreamState()
    for chunk in heard.chunks:
        state.handle_chunk(chunk)
    final = state.current_completion_snapshot.model_dump(exclude={"id", "created", "model"})
    for count in ("prompt_tokens", "total_tokens"):
        final["usage"].pop(count)
    return final


def test_tools_of_another_dialect_come_as_the_sdk_expects_them(place: Place) -> None:
    place.fakes["anthropic"].script(Answer(tokens=3, tool_calls=CALLS), model="claude")
    heard = place.hear("anthropic-claude", stream_options={"include_usage": True})
    assert heard.error is None
    (choice,) = _final(heard)["choices"]
    message = choice["message"]
    assert (message["content"], choice["finish_reason"]) == (said(3), "tool_calls")
    found = [(c["id"], c["function"]["name"]) for c in message["tool_calls"]]
    assert found == [("call_a", "weather"), ("call_b", "time")]
    arguments = [json.loads(c["function"]["arguments"]) for c in message["tool_calls"]]
    assert arguments == [json.loads(call.arguments) for call in CALLS]


def test_reasoning_of_another_dialect_comes_as_the_sdk_expects_it(place: Place) -> None:
    place.fakes["anthropic"].script(Answer(tokens=3, reasoning="Let me think."), model="claude")
    heard = place.hear("anthropic-claude", stream_options={"include_usage": True})
    check_whole(heard, 3)
    (choice,) = _final(heard)["choices"]
    assert choice["message"]["reasoning_content"] == "Let me think."


def _opened_after_two_comments(gate: Gate) -> Meanwhile:
    def wait(heard: Overheard) -> None:
        wait_until(lambda: heard.raw.count(b": keepalive\n\n") >= 2, SURELY_S, "two comments")
        assert heard.chunks == []
        gate.open()

    return wait


@pytest.mark.parametrize("opening", [True, False], ids=["role sent", "nothing sent"])
@each_provider
def test_a_waiting_stream_is_kept_alive_by_comments_and_nothing_else(
    place: Place, provider: Provider, opening: bool
) -> None:
    gate = Gate()
    answer = Answer(tokens=TOKENS, gate=gate, gate_after_tokens=0 if opening else None)
    place.fakes[provider].script(answer, model=MODELS[provider])
    name = f"{provider}-{MODELS[provider]}"
    heard = place.hear(name, _opened_after_two_comments(gate))
    check_whole(heard, TOKENS)
    first = next(at for at, frame in enumerate(heard.frames) if frame.startswith("data:"))
    assert first >= 2
    assert set(heard.frames[:first]) == {": keepalive"}


def test_a_failure_after_comments_falls_back(place: Place) -> None:
    gate = Gate()
    place.fakes["openai"].script(Fails(500, gate=gate), model="gpt")
    check_whole(place.hear("openai-gpt", _opened_after_two_comments(gate)), 5)


def test_a_failure_of_the_last_target_after_comments_is_an_error_event(place: Place) -> None:
    gate = Gate()
    place.fakes["openai"].script(Fails(400, gate=gate), model="alone")
    heard = place.hear("openai-alone", _opened_after_two_comments(gate))
    check_cut(heard, 0)
    assert set(heard.frames[:-2]) == {": keepalive"}


@pytest.mark.parametrize("cut", [1, 7, TOKENS])
@each_provider
def test_a_reset_after_a_token_that_has_arrived_takes_nothing_back(
    place: Place, provider: Provider, cut: int
) -> None:
    gate = Gate()
    model = MODELS[provider]
    step = Breaks(cut, "reset", tokens=TOKENS, gate=gate, gate_after_tokens=cut - 1)
    place.fakes[provider].script(step, model=model)

    def open_late(heard: Overheard) -> None:
        wait_until(lambda: cut == 1 or f"t{cut - 2} " in heard.text, SURELY_S, "the others")
        gate.open()

    check_cut(place.hear(f"{provider}-{model}", open_late), cut)


def test_the_synchronous_sdk_raises_where_a_stream_breaks(place: Place) -> None:
    place.fakes["openai"].script(Breaks(3, "eof", tokens=TOKENS), model="alone")
    stream = place.mobius.openai().chat.completions.create(
        model="openai-alone", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    got = [next(stream).choices[0].delta.content or "" for _ in range(4)]
    assert "".join(got) == said(3)
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert caught.value.code == "upstream_error"


@pytest.mark.parametrize("broken", [True, False])
def test_on_the_wire_a_stream_is_plain_http(place: Place, broken: bool) -> None:
    step = Breaks(3, "eof") if broken else Answer(tokens=3)
    place.fakes["openai"].script(step, model="alone")
    with Visitor(place.mobius.port, "openai-alone", stream=True) as visitor:
        head, body = visitor.read_until(b"0\r\n\r\n").split(b"\r\n\r\n", 1)
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["transfer-encoding"] == "chunked"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-mobius-target"] == "openai-alone/openai/alone"
    assert "content-length" not in headers
    assert (b"data: [DONE]\n\n" in body) is not broken
    assert body.count(b'data: {"error":') == broken
