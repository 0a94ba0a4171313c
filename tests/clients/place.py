"""One Mobius with two fake providers behind it, and the tap through which clients ask it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.judge import Judge, check_arrived
from tests.clients.tap import Exchange, Tap
from tests.harness import Mobius
from tests.providers import FakeAnthropic, FakeOpenAI, FakeProvider, Gate, Step

ROOT = Path(__file__).resolve().parents[2]
# Clients have an environment of their own; Mobius runs in the one that `make install` makes.
MOBIUS = (str(ROOT / ".venv/bin/python"), "-m", "proxy")
KEY = "sk-clients-1234"
SPENT = "sk-spent-1234"  # might ask once a day, and has
CROWD = 50
NAMES = {"gpt": "gpt-4o", "vectors": "text-embedding-3-small", "claude": "claude-sonnet-4-5"}
SECRETS = ("sk-of-openai-1234", "sk-of-anthropic-1234")


@dataclass(frozen=True)
class Place:
    """`gpt` and `vectors` are OpenAI's, `claude` Anthropic's, and so is every `odd/` name each."""

    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic
    tap: Tap

    @property
    def url(self) -> str:
        """The `base_url` of a client of OpenAI's."""
        return f"{self.tap.url}/v1"

    @property
    def exchanges(self) -> list[Exchange]:
        return self.tap.exchanges()

    def odd(self, status: int, step: Step, *, claude: bool = False) -> str:
        """A model of which the provider answers so. Each has a target of its own: it may rest."""
        fake = self.anthropic if claude else self.openai
        name = f"{status}-{id(step)}"
        fake.always(step, model=name)
        return f"{'odd-claude' if claude else 'odd'}/{name}"

    def fresh(self) -> None:
        """Nothing was asked, and every provider answers plainly."""
        for fake in self.fakes:
            fake.reset_script()
            fake.journal.clear()
        self.tap.clear()

    def check(self) -> None:
        """All that passed is as it should be, on either side of Mobius."""
        judge, exchanges = Judge(), self.exchanges
        assert exchanges, "nobody asked anything"
        for exchange in exchanges:
            judge.check(exchange)
        ours = ("/v1/chat", "/v1/completions", "/v1/embeddings", "/v1/responses")
        for fake, model, paths in (
            (self.openai, ("gpt", "vectors", "text-", "odd/"), ours),
            (self.anthropic, ("claude", "odd-claude/"), ("/v1/messages",)),
        ):
            same = [
                exchange
                for exchange in exchanges
                if exchange.path.startswith(paths)
                and str(exchange.asked["model"]).startswith(model)
            ]
            entries = [each for each in fake.journal.requests() if each.path.startswith(paths)]
            if not any(exchange.path.startswith(paths) for exchange in exchanges):
                continue  # what came was asked in another's words
            check_arrived(same, entries, provider_name)

    @property
    def fakes(self) -> tuple[FakeProvider, ...]:
        return self.openai, self.anthropic

    def crowded(self, fake: FakeProvider, gate: Gate) -> None:
        """All the streams are open at once; then they may end."""
        fake.journal.wait(lambda journal: journal.open_requests == CROWD)
        gate.open()


def provider_name(model: str) -> str:
    """What the provider calls a model."""
    return NAMES.get(model) or model.split("/", 1)[-1]


@contextlib.contextmanager
def open_place() -> Iterator[Place]:
    with (
        FakeOpenAI() as openai,
        FakeAnthropic() as anthropic,
        Mobius(_config(openai, anthropic), secrets=SECRETS, command=MOBIUS) as mobius,
        Tap(mobius.port) as tap,
    ):
        body = {"model": "gpt", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {SPENT}"}
        mobius.http.post("/v1/chat/completions", json=body, headers=headers).raise_for_status()
        yield Place(mobius, openai, anthropic, tap)


def _config(openai: FakeOpenAI, anthropic: FakeAnthropic) -> dict[str, Any]:
    def entry(name: str, model: str) -> dict[str, Any]:
        fake, key = (openai, SECRETS[0]) if model.startswith("openai/") else (anthropic, SECRETS[1])
        params = {"model": model, "api_base": fake.base_url, "api_key": key}
        return {"model_name": name, "litellm_params": params}

    return {
        "model_list": [
            entry("gpt", f"openai/{NAMES['gpt']}"),
            *(entry(name, f"openai/{NAMES['vectors']}") for name in ("vectors", NAMES["vectors"])),
            entry("claude", f"anthropic/{NAMES['claude']}"),
            entry("odd/*", "openai/*"),
            entry("odd-claude/*", "anthropic/*"),
        ],
        "router_settings": {"num_retries": 0},
        "mobius": {
            "laps": 1,
            "keys": [
                {"name": "clients", "key": KEY},
                {"name": "spent", "key": SPENT, "limits": {"rpd": 1}},
            ],
        },
    }
