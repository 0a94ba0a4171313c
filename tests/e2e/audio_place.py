"""Two providers of speech and transcriptions behind one Mobius, for the tests of both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import openai

from tests.harness import Mobius
from tests.providers import FakeOpenAI

KEYS = {name: f"sk-{name}-of-the-sounds" for name in ("web", "poor", "rich")}
WEB = {"authorization": f"Bearer {KEYS['web']}"}
UPLOAD_MB = 2


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    first: FakeOpenAI
    second: FakeOpenAI

    @property
    def client(self) -> openai.OpenAI:
        return self.mobius.openai(KEYS["web"])

    def spent(self, key: str) -> list[dict[str, Any]]:
        """The finished attempts of a key, from the ledger."""
        found = self.mobius.http.get(
            "/admin/usage",
            params={"group_by": "key,model"},
            headers={"authorization": "Bearer sk-master-of-the-sounds"},
        ).json()["rows"]
        return [row for row in found if row["key"] == key]


@contextmanager
def audio_place() -> Iterator[Place]:
    secrets = tuple(KEYS.values())
    with (
        FakeOpenAI() as first,
        FakeOpenAI() as second,
        Mobius(_config(first, second), secrets=secrets) as mobius,
    ):
        yield Place(mobius, first, second)


def _config(first: FakeOpenAI, second: FakeOpenAI) -> dict[str, Any]:
    def entry(name: str, model: str, fake: FakeOpenAI, **params: Any) -> dict[str, Any]:
        place = {"model": model, "api_base": fake.base_url, "api_key": "sk-provider-1234"}
        return {"model_name": name, "litellm_params": {**place, **params}}

    azure = {"api_base": first.base_url.removesuffix("/v1"), "api_version": "2025-04-01-preview"}
    return {
        "model_list": [
            entry("m", "openai/first", first, temperature=0.5),
            entry("spare", "openai/second", second),
            entry("by-litellm", "openai/first", first),
            entry("azure", "azure/first", first, **azure),
            entry("groq", "groq/first", first),
            *(
                entry(name, f"openai/{name}", first)
                for name in ("tts-1", "gpt-4o-mini-tts", "whisper-1", "gpt-4o-transcribe")
            ),
        ],
        "router_settings": {"num_retries": 0, "fallbacks": [{"m": ["spare"]}]},
        "general_settings": {"master_key": "sk-master-of-the-sounds"},
        "mobius": {
            "lanes": {"by-litellm": "unified"},
            "limits": {"upload_mb": UPLOAD_MB},
            "timeouts": {"idle": 1},
            "keys": [
                {"name": "web", "key": KEYS["web"]},
                {"name": "poor", "key": KEYS["poor"], "limits": {"budget_usd": {"total": 0.001}}},
                {"name": "rich", "key": KEYS["rich"], "limits": {"budget_usd": {"total": 10}}},
            ],
            "breaker": {"failures": 1000, "min_calls": 1000},
        },
    }
