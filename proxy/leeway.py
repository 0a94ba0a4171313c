"""
What a provider says is left of its own limits, and what a request takes of them: the words.

These limits are the provider's and are only read. Those that the file sets are in `limits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class ProviderUnit(StrEnum):
    """What a provider counts; closed, so that it may be a metric label."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


@dataclass(frozen=True, slots=True)
class Leeway:
    """What is left under one limit of a provider's, at the moment it says so."""

    unit: ProviderUnit
    remaining: int
    limit: int | None = None  # at least 1
    reset_s: float | None = None  # until all of it is back


class Need(NamedTuple):
    """What requests are estimated to take of a provider's limits; by itself, one small one."""

    requests: int = 1
    prompt_tokens: int = 1
    answer_tokens: int = 0  # as many as it asks for; 0 where it does not say

    def __add__(self, other: Need) -> Need:  # type: ignore[override]  # of sums, not of tuples
        return Need(
            self.requests + other.requests,
            self.prompt_tokens + other.prompt_tokens,
            self.answer_tokens + other.answer_tokens,
        )

    def __sub__(self, other: Need) -> Need:
        return Need(
            self.requests - other.requests,
            self.prompt_tokens - other.prompt_tokens,
            self.answer_tokens - other.answer_tokens,
        )

    def of(self, unit: ProviderUnit) -> int:
        match unit:
            case ProviderUnit.REQUESTS:
                return self.requests
            case ProviderUnit.TOKENS:
                return self.prompt_tokens + self.answer_tokens
            case ProviderUnit.INPUT_TOKENS:
                return self.prompt_tokens
            case ProviderUnit.OUTPUT_TOKENS:
                # Anthropic, "Rate limits": `max_tokens` does not count, what is really said does.
                return self.requests


NOTHING_SENT = Need(0, 0, 0)
