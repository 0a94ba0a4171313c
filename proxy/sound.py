"""
What is spoken and what is listened to: how much of it a request is, and what that costs. Pure.

As LiteLLM charges it: a text to be spoken by its characters, where the model has a price for them,
else by tokens, of which most are sound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from proxy.facts import ModelFacts
from proxy.pricing import PICO_PER_NANO, bound_nano_usd
from proxy.types import Call, Surface, Usage

# OpenAI's pricing page: a minute of speech of gpt-4o-mini-tts is $0.015 at $12 a million tokens, so
# 1,250 tokens. Read aloud, a minute is some 900 characters.
TOKENS_PER_CHARACTER = 1.4
TOKENS_PER_CHARACTER_MOST = 8  # of somebody who speaks very slowly
# Whose answers are no text that is generated, or whose questions are none.
SURFACES = frozenset({Surface.SPEECH})


class Aside(NamedTuple):
    """What is set aside for one attempt."""

    completion_tokens: int
    nano_usd: int


def is_priced(call: Call, facts: ModelFacts) -> bool:
    """Say whether it is known what the call costs."""
    return _pico(call, facts) is not None or facts.price is not None


def aside_for(call: Call, facts: ModelFacts, prompt_most: int) -> Aside:
    """Return what an answer to the call takes at most; `prompt_most` bounds the prompt's tokens."""
    pico = _pico(call, facts)
    if pico is not None:
        return Aside(0, _nano(pico))
    tokens = characters_of(call) * TOKENS_PER_CHARACTER_MOST
    nano = 0 if facts.price is None else bound_nano_usd(facts.price, prompt_most, tokens)
    return Aside(tokens, nano)


def spoken(call: Call, facts: ModelFacts, usage: Usage) -> Usage:
    """Return an estimated usage with the tokens of what was spoken in it."""
    if call.surface is not Surface.SPEECH or _pico(call, facts) is not None:
        return usage
    tokens = round(characters_of(call) * TOKENS_PER_CHARACTER)
    return replace(usage, completion_tokens=tokens, audio_completion_tokens=tokens)


def cost_nano_usd(call: Call, facts: ModelFacts) -> int | None:
    """Return what an answered call costs that is not charged by tokens; None for any other."""
    pico = _pico(call, facts)
    return None if pico is None else _nano(pico)


def characters_of(call: Call) -> int:
    """Return the length of the text that is to be spoken."""
    text = call.body.get("input")
    return len(text) if isinstance(text, str) else 0


def _pico(call: Call, facts: ModelFacts) -> int | None:
    if call.surface is Surface.SPEECH and facts.sound.character is not None:
        return characters_of(call) * facts.sound.character
    return None


def _nano(pico: int) -> int:
    return (pico + PICO_PER_NANO // 2) // PICO_PER_NANO
