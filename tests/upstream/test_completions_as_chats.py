"""What is left of an older completion that is asked as a chat."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from proxy.facts import ModelFacts
from proxy.types import Call, Surface, Target
from proxy.upstream.completions_as_chats import drop_unheard
from tests.fakes import target

CLAUDE = ("max_tokens", "reasoning_effort", "response_format", "stop", "temperature", "tools")


class Litellm(ModuleType):
    """Knows what one model understands of a chat."""

    def __init__(self, *words: str) -> None:
        super().__init__("litellm")
        self.words = words

    def get_supported_openai_params(self, *, model: str, custom_llm_provider: str) -> list[str]:
        return list(self.words)


def drop(
    body: dict[str, Any],
    *,
    surface: Surface = Surface.COMPLETIONS,
    foreign: bool = True,
    words: tuple[str, ...] = CLAUDE,
    place: Target | None = None,
) -> tuple[dict[str, Any], set[str]]:
    """Return what is left of the body, and what the caller is told."""
    place = place or target("a", provider="anthropic")
    left, call = dict(body), Call("m", False, body, surface=surface)
    told = set(drop_unheard(Litellm(*words), place, call, left, foreign=foreign))
    return left, told


def test_what_the_target_has_no_word_for_is_taken_out_and_named() -> None:
    body = {"model": "m", "prompt": "hi", "max_tokens": 5, "logit_bias": {"1": 1}, "echo": True}
    left, told = drop(body)
    assert left == {"model": "m", "prompt": "hi", "max_tokens": 5}
    assert told == {"logit_bias", "echo"}


def test_nobody_is_told_of_what_would_have_changed_nothing() -> None:
    body = {"echo": False, "suffix": None, "n": 1, "best_of": 1}
    assert drop(body) == ({}, set())


def test_what_is_not_openais_is_the_targets_to_judge_unless_it_was_written_for_another() -> None:
    assert drop({"top_k": 3}, foreign=False) == ({"top_k": 3}, set())
    assert drop({"top_k": 3}, foreign=True) == ({}, {"top_k"})
    allowed = target("a", provider="anthropic", params={"allowed_openai_params": ["top_k"]})
    assert drop({"top_k": 3}, place=allowed) == ({"top_k": 3}, set())


def test_what_is_too_much_for_another_provider_is_clamped() -> None:
    place = target("a", provider="anthropic", facts=ModelFacts(max_output_tokens=10))
    left, told = drop({"temperature": 1.5, "max_tokens": 99}, place=place)
    assert (left, told) == ({"temperature": 1.0, "max_tokens": 10}, {"temperature", "max_tokens"})
    at_home = drop({"temperature": 1.5, "max_tokens": 99}, place=place, foreign=False)
    assert at_home == ({"temperature": 1.5, "max_tokens": 99}, set())


def test_a_target_may_be_sent_everything() -> None:
    place = target("a", provider="anthropic", drop_params=False)
    assert drop({"echo": True, "temperature": 1.5}, place=place) == (
        {"echo": True, "temperature": 1.5},
        set(),
    )


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.EMBEDDINGS, Surface.MESSAGES])
def test_other_surfaces_are_left_alone(surface: Surface) -> None:
    assert drop({"echo": True}, surface=surface) == ({"echo": True}, set())
