"""A stream is whole, or it says that it is not: broken at every token, in every way.

Each case is a model of its own, so that its provider's journal, its breaker and its metrics are
its own too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

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
from tests.providers import Answer, Breaks, FakeAnthropic, FakeOpenAI, FakeProvider
from tests.providers.steps import BreakKind

pytestmark = pytest.mark.e2e

TOKENS = 60
AT_ONCE = 24
Provider = Literal["openai", "anthropic"]
PROVIDERS: tuple[Provider, ...] = ("openai", "anthropic")
QUICK: tuple[BreakKind, ...] = ("eof", "ends", "reset", "malformed", "error_event")
SLOW: tuple[BreakKind, ...] = ("stall", "drip", "comments")
ODD: tuple[BreakKind, ...] = ("garbage_utf8", "html")
EVERY_CUT = tuple(range(TOKENS + 1))
SOME_CUTS = (0, 1, 30, TOKENS)


@dataclass(frozen=True)
class Case:
    """One stream that breaks."""

    provider: Provider
    how: BreakKind
    cut: int

    @property
    def model(self) -> str:
        """The provider's name for it."""
        return f"{self.how}-{self.cut}"

    @property
    def name(self) -> str:
        """The name that the client asks for."""
        return f"{self.provider}-{self.model}"


CASES = [
    Case(provider, how, cut)
    for provider in PROVIDERS
    for hows, cuts in ((QUICK, EVERY_CUT), (SLOW, SOME_CUTS), (ODD, SOME_CUTS))
    for how in hows
    for cut in cuts
]


@dataclass(frozen=True)
class Campaign:
    """All the cases, as the clients saw them, and whoever else has seen them."""

    heard: dict[Case, Overheard]
    mobius: Mobius
    fakes: dict[Provider, FakeProvider]

    def of(self, provider: Provider, how: BreakKind) -> list[tuple[str, Overheard, Case]]:
        found = [case for case in CASES if (case.provider, case.how) == (provider, how)]
        return [(case.name, self.heard[case], case) for case in found]


@pytest.fixture(scope="module")
def campaign() -> Iterator[Campaign]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic:
        fakes: dict[Provider, FakeProvider] = {"openai": openai, "anthropic": anthropic}
        for case in CASES:
            step = Breaks(case.cut, case.how, tokens=TOKENS)
            fakes[case.provider].always(step, model=case.model)
            fakes[case.provider].always(Answer(tokens=TOKENS), model="spare")
        targets = [
            target(
                f"{case.provider}/{case.model}",
                fakes[case.provider].base_url,
                stream_timeout=2 if case.how in SLOW else 60,
            )
            for case in CASES
        ]
        spares = [target(f"{name}/spare", fakes[name].base_url) for name in PROVIDERS]
        other = {"openai": "anthropic-spare", "anthropic": "openai-spare"}
        config = {
            "model_list": [*targets, *spares],
            "router_settings": {
                "num_retries": 0,
                "fallbacks": [{case.name: [other[case.provider]]} for case in CASES],
            },
            "mobius": {
                "laps": 1,
                "timeouts": {"idle": 2},
                # One failure is enough, and it is remembered to the end of the module.
                "breaker": {"failures": 1, "rest": 3600, "rest_cap": 3600},
            },
        }
        with Mobius(config) as mobius:
            yield Campaign(asyncio.run(_run(mobius.url)), mobius, fakes)


async def _run(url: str) -> dict[Case, Overheard]:
    places = asyncio.Semaphore(AT_ONCE)
    async with Listener(url) as listener:

        async def one(case: Case) -> Overheard:
            if case.how in SLOW:
                return await listener.stream(case.name)
            async with places:
                return await listener.stream(case.name)

        return dict(zip(CASES, await asyncio.gather(*map(one, CASES)), strict=True))


@pytest.mark.parametrize("how", [*QUICK, *SLOW, *ODD])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_before_its_first_content_a_stream_is_answered_by_the_next_target(
    campaign: Campaign, provider: Provider, how: BreakKind
) -> None:
    cases = [(n, heard, TOKENS) for n, heard, case in campaign.of(provider, how) if not case.cut]
    assert failing(cases, check_whole) == []


@pytest.mark.parametrize("how", [*QUICK, *SLOW, *ODD])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_after_content_a_stream_ends_with_exactly_that_and_one_error(
    campaign: Campaign, provider: Provider, how: BreakKind
) -> None:
    cases = [(n, heard, case.cut) for n, heard, case in campaign.of(provider, how) if case.cut]
    assert failing(cases, check_cut) == []
