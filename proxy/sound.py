"""
What is spoken and what is listened to: how much of it a request is, and what that costs. Pure.

As LiteLLM charges it: a text to be spoken by its characters, where the model has a price for them;
a recording by the tokens that its provider reports, else by its seconds. What is charged in neither
way is charged by tokens, which are estimated where nobody reports them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from proxy.facts import ModelFacts
from proxy.pricing import PICO_PER_NANO, bound_nano_usd
from proxy.types import HEARD, Call, Json, Surface, Usage

# OpenAI's pricing page: a minute of speech of gpt-4o-mini-tts is $0.015 at $12 a million tokens, so
# 1,250 tokens. Read aloud, a minute is some 900 characters.
TOKENS_PER_CHARACTER = 1.4
TOKENS_PER_CHARACTER_MOST = 8  # of somebody who speaks very slowly
TOKENS_PER_S = 10  # OpenAI's guide "Audio": a token for every 100 ms of what is said
LONGEST_S = 1_000_000.0  # no provider takes a recording as long: more is a mistake
SURFACES = frozenset({Surface.SPEECH, *HEARD})


class Aside(NamedTuple):
    """What is set aside for one attempt."""

    prompt_tokens: int
    completion_tokens: int
    nano_usd: int


def is_priced(call: Call, facts: ModelFacts) -> bool:
    """Say whether it is known what the call costs."""
    if call.surface in HEARD and facts.sound.second is not None:
        return True
    return _by_characters(call, facts) or facts.price is not None


def is_wordless(call: Call, facts: ModelFacts) -> bool:
    """Say whether what is spoken, or heard, takes no tokens there."""
    return call.surface in SURFACES and not takes_tokens(call, facts)


def takes_tokens(call: Call, facts: ModelFacts) -> bool:
    """Say whether tokens are charged; of what has no price nobody knows, and none are counted."""
    return facts.price is not None and not _by_characters(call, facts)


def aside_for(
    call: Call, facts: ModelFacts, prompt_tokens: int, *, prompt_most: int, default_tokens: int
) -> Aside:
    """Return what an answer to the call takes at most; `prompt_most` bounds the prompt's tokens."""
    if not takes_tokens(call, facts):
        return Aside(0, 0, _nano(_pico_most(call, facts)))
    tokens = facts.max_output_tokens or default_tokens
    if call.surface is Surface.SPEECH:
        tokens = _characters(call) * TOKENS_PER_CHARACTER_MOST
    nano = 0 if facts.price is None else bound_nano_usd(facts.price, prompt_most, tokens)
    return Aside(prompt_tokens, tokens, max(nano, _nano(_pico_most(call, facts))))


def counted(call: Call, facts: ModelFacts, ours: Usage, *, heard_s: float | None) -> Usage:
    """
    Return our own count of an answer, `ours` as it is for text, with what is sound in it.

    Where no tokens are charged it is exact if what is charged is.
    """
    if call.surface not in SURFACES:
        return ours
    if not takes_tokens(call, facts):
        by_second = call.surface in HEARD and facts.sound.second is not None
        exact = _by_characters(call, facts) or (by_second and heard_s is not None)
        return Usage(estimated=not exact)
    if call.surface is Surface.SPEECH:
        tokens = round(_characters(call) * TOKENS_PER_CHARACTER)
        return ours._replace(completion_tokens=tokens, audio_completion_tokens=tokens)
    tokens = math.ceil(_likely_s(call) * TOKENS_PER_S)
    return ours._replace(prompt_tokens=tokens, audio_prompt_tokens=tokens)


def cost_nano_usd(
    call: Call, facts: ModelFacts, *, reported: bool, heard_s: float | None
) -> int | None:
    """
    Return what an answered call costs that is not charged by tokens; None for any other.

    `reported`: the provider has told the tokens. `heard_s` are the seconds by its own word.
    """
    if _by_characters(call, facts):
        return _nano(_characters(call) * (facts.sound.character or 0))
    per_second = facts.sound.second
    if call.surface not in HEARD or per_second is None or (reported and facts.price is not None):
        return None
    return _nano(round((_likely_s(call) if heard_s is None else heard_s) * per_second))


def heard_s(said: Json) -> float | None:
    """Return how long a recording was, where an answer or an event says so and can be believed."""
    usage = said.get("usage")
    seconds = usage.get("seconds") if isinstance(usage, Mapping) else None
    for value in (seconds, said.get("duration")):
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            continue
        try:
            found = float(value)
        except ValueError:
            continue
        if 0 <= found <= LONGEST_S:
            return found
    return None


def _by_characters(call: Call, facts: ModelFacts) -> bool:
    return call.surface is Surface.SPEECH and facts.sound.character is not None


def _characters(call: Call) -> int:
    text = call.body.get("input")
    return len(text) if isinstance(text, str) else 0


def _likely_s(call: Call) -> float:
    return call.upload.length.likely_s if call.upload is not None else 0.0


def _pico_most(call: Call, facts: ModelFacts) -> int:
    if _by_characters(call, facts):
        return _characters(call) * (facts.sound.character or 0)
    if call.surface in HEARD and call.upload is not None:
        return math.ceil(call.upload.length.most_s * (facts.sound.second or 0))
    return 0


def _nano(pico: int) -> int:
    return (pico + PICO_PER_NANO // 2) // PICO_PER_NANO
