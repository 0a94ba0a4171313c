"""What readiness is told of the lanes, and which of them a request is asked by."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from proxy.clock import SystemClock
from proxy.types import Lane, Surface, Target
from proxy.upstream.lanes import Providers

OPENAI = Target("a", "g", "openai", "gpt", "i", "c", lane=Lane.DIRECT)
CLAUDE = Target(
    "b", "g", "anthropic", "claude", "i", "c", lane=Lane.TRANSLATED, messages=Lane.DIRECT
)
GEMINI = Target("c", "g", "gemini", "g", "i", "c", lane=Lane.UNIFIED)
IDLE = {"direct": "idle", "translated": "idle", "unified": "idle"}


@pytest.mark.parametrize(
    ("targets", "state"),
    [
        ([], IDLE),
        ([OPENAI], IDLE | {"direct": "ready"}),
        ([CLAUDE], IDLE | {"direct": "ready", "translated": "ready"}),
        ([replace(CLAUDE, messages=Lane.AS_CHAT)], IDLE | {"translated": "ready"}),
    ],
)
def test_a_lane_without_litellm_is_ready_at_once(
    targets: list[Target], state: dict[str, str]
) -> None:
    providers = Providers(SystemClock())
    assert providers.state(targets) == state
    asyncio.run(providers.aclose())


def test_litellm_is_waited_for_only_where_a_target_is_asked_by_it() -> None:
    async def begin() -> tuple[str, str]:
        providers = Providers(SystemClock())
        providers.sdk.start()
        states = [providers.state(each)["unified"] for each in ([OPENAI, CLAUDE], [GEMINI])]
        await providers.aclose()
        return states[0], states[1]

    assert asyncio.run(begin()) == ("idle", "loading")


def test_only_chats_are_translated_without_litellm() -> None:
    by = {surface: CLAUDE.lane_of(surface) for surface in Surface}
    assert {surface for surface in by if by[surface] is Lane.TRANSLATED} == {Surface.CHAT}
    assert by[Surface.MESSAGES] is Lane.DIRECT
    assert by[Surface.COMPLETIONS] is Lane.UNIFIED
