"""A Mobius with limits, the provider behind it, and what its ledger's file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from tests.e2e.stream_checks import target
from tests.harness import Mobius, wait_until
from tests.providers import FakeOpenAI, Usage
from tests.store.rows import select

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
TOOK = Usage(prompt=60, completion=10)  # what every answer reports
PROMPT_USD, COMPLETION_USD = 1e-6, 2e-6  # for a token
TOOK_NANO_USD = 60 * 1000 + 10 * 2000
NO_KEY = "sk-of-nobody-0123456789"


def secret(name: str) -> str:
    """The key of the caller of that name."""
    return f"sk-{name}-0123456789"


def key(name: str, **facts: Any) -> dict[str, Any]:
    return {"name": name, "key": secret(name), **facts}


def priced(name: str, base: str, **facts: Any) -> dict[str, Any]:
    """A model of this name with a price, and 50 tokens at most for an answer."""
    prices = {"input_cost_per_token": PROMPT_USD, "output_cost_per_token": COMPLETION_USD}
    entry = target("openai/some-gpt", base, name=name, **prices, **facts)
    return {**entry, "model_info": {"max_output_tokens": 50}}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    provider: FakeOpenAI

    @property
    def ledger(self) -> Path:
        return self.mobius.folder / "data" / "mobius.db"

    def client(self, name: str) -> openai.OpenAI:
        return self.mobius.openai(api_key=secret(name))

    def ask(
        self, name: str, model: str = "m", max_tokens: int | None = 10, **more: Any
    ) -> tuple[ChatCompletion, Mapping[str, str]]:
        """The answer to a request of that caller, and its headers."""
        facts: dict[str, Any] = {"model": model, "messages": HI, **more}
        if max_tokens is not None:
            facts["max_tokens"] = max_tokens
        raw = self.client(name).chat.completions.with_raw_response.create(**facts)
        return raw.parse(), raw.headers

    def refuse(
        self,
        name: str,
        model: str = "m",
        kind: type[openai.APIStatusError] | None = None,
        **more: Any,
    ) -> openai.APIStatusError:
        """What the caller is told, of whom nothing reaches the provider."""
        asked = len(self.provider.journal)
        with pytest.raises(kind or openai.RateLimitError) as refused:
            self.ask(name, model, **more)
        assert len(self.provider.journal) == asked
        return refused.value

    def rows(self, where: str = "1") -> list[tuple[Any, ...]]:
        """Outcome, tokens and nano-dollars of the closed rows."""
        columns = "outcome, prompt_tokens, completion_tokens, nano_usd, estimated"
        return select(self.ledger, f"SELECT {columns} FROM attempts WHERE {where}")  # noqa: S608

    def wait_rows(self, where: str, count: int, timeout_s: float = 5.0) -> list[tuple[Any, ...]]:
        return (
            wait_until(
                lambda: rows if len(rows := self.rows(where)) >= count else None, timeout_s, where
            )
            or []
        )
