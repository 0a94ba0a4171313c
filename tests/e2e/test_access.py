"""Who may ask for what, with real keys over a real socket; and a key that is taken back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.stream_checks import Listener, check_envelope, check_whole, said, target
from tests.harness import Mobius, wait_until
from tests.providers import Answer, Fails, FakeAnthropic, FakeOpenAI, Gate

pytestmark = pytest.mark.e2e

IN_FORCE_S = 10.0
MASTER = "sk-master-0123456789"
OPS = "sk-ops-0123456789"
WEB = "sk-web-0123456789"
HASHED = "sk-hashed-0123456789"
EXPIRED = "sk-expired-0123456789"
LASTING = "sk-lasting-0123456789"
NEW = "sk-new-0123456789"
SECRETS = (MASTER, OPS, WEB, HASHED, EXPIRED, LASTING, NEW)
HI: list[Any] = [{"role": "user", "content": "hi"}]
KEYS: list[dict[str, Any]] = [
    {"name": "ops", "key": "os.environ/OPS_KEY"},
    {"name": "web", "key": WEB, "models": ["openai-*"]},
    {"name": "hashed", "key_sha256": hashlib.sha256(HASHED.encode()).hexdigest()},
    {"name": "expired", "key": EXPIRED, "expires": "2020-01-01"},
    {"name": "lasting", "key": LASTING, "expires": "2099-12-31T23:59:59Z"},
]


@dataclass(frozen=True)
class Place:
    """A Mobius with keys, and the providers behind it."""

    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic

    def config(self, keys: list[dict[str, Any]]) -> dict[str, Any]:
        """Two models, each the other's fallback."""
        return {
            "model_list": [
                target("openai/gpt", self.openai.base_url),
                target("anthropic/claude", self.anthropic.base_url),
            ],
            "router_settings": {
                "num_retries": 0,
                "fallbacks": [
                    {"openai-gpt": ["anthropic-claude"]},
                    {"anthropic-claude": ["openai-gpt"]},
                ],
            },
            "general_settings": {"master_key": MASTER},
            "mobius": {
                "laps": 1,
                "keys": keys,
                "breaker": {"failures": 1000, "min_calls": 1000},
            },
        }

    def ask(self, model: str, key: str, **more: Any) -> str:
        """Which model answered."""
        client = self.mobius.openai(api_key=key)
        answer = client.chat.completions.create(model=model, messages=HI, extra_body=more)
        assert answer.choices[0].message.content == said(5)
        return answer.model

    def post(self, headers: dict[str, str]) -> httpx.Response:
        """One request with these headers."""
        body = {"model": "openai-gpt", "messages": HI}
        return self.mobius.http.post("/v1/chat/completions", json=body, headers=headers)


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as openai_fake, FakeAnthropic() as anthropic_fake:
        config = Place(None, openai_fake, anthropic_fake).config(KEYS)  # type: ignore[arg-type]
        with Mobius(config, env={"OPS_KEY": OPS}, secrets=SECRETS) as mobius:
            yield Place(mobius, openai_fake, anthropic_fake)


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.openai, running.anthropic):
        fake.reset_script()
        fake.journal.clear()
    return running


@pytest.mark.parametrize("key", [MASTER, OPS, WEB, HASHED, LASTING])
def test_a_key_opens_in_each_of_the_headers_that_sdks_use(place: Place, key: str) -> None:
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"x-api-key": key},
        {"api-key": key},
    ):
        answer = place.post(headers)
        assert answer.status_code == 200, answer.text
    for entry in place.openai.journal.requests():
        assert entry.headers["authorization"] == "Bearer sk-of-a-fake"
        assert key not in str(entry.headers)


def test_whoever_has_no_valid_key_hears_the_same_and_costs_nothing(place: Place) -> None:
    heard = set()
    for headers in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {OPS}"},
        {"authorization": f"Bearer {OPS}x"},
        {"authorization": f"Bearer {hashlib.sha256(HASHED.encode()).hexdigest()}"},
        {"x-api-key": EXPIRED},
        {"api-key": "a" * 5000},
    ):
        answer = place.post(headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert check_envelope(answer.json())["code"] == "invalid_api_key"
        heard.add(answer.text)
    assert len(heard) == 1
    assert len(place.openai.journal) == 0
    with pytest.raises(openai.AuthenticationError):
        place.ask("openai-gpt", EXPIRED)


def test_a_key_asks_only_for_its_models_and_sees_no_others(place: Place) -> None:
    assert place.ask("openai-gpt", WEB) == "gpt"
    for model in ("anthropic-claude", "nobody"):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            place.ask(model, WEB)
        assert (refused.value.code, refused.value.param) == ("model_not_allowed", "model")
    assert [model.id for model in place.mobius.openai(api_key=WEB).models.list()] == ["openai-gpt"]
    names = {model.id for model in place.mobius.openai(api_key=OPS).models.list()}
    assert names == {"openai-gpt", "anthropic-claude"}
    assert len(place.anthropic.journal) == 0


def test_fallbacks_go_only_where_the_key_may_go(place: Place) -> None:
    place.openai.always(Fails(500))
    assert place.ask("openai-gpt", OPS) == "claude"
    with pytest.raises(openai.InternalServerError) as failed:
        place.ask("openai-gpt", WEB)
    assert failed.value.code == "no_target_available"
    with pytest.raises(openai.PermissionDeniedError):
        place.ask("openai-gpt", WEB, fallbacks=["anthropic-claude"])
    assert len(place.anthropic.journal) == 1


def test_only_the_master_key_administers(place: Place) -> None:
    http = place.mobius.http
    for path, method in (("/admin/reload", http.post), ("/admin/explain/openai-gpt", http.get)):
        assert method(path).status_code == 401
        refused = method(path, headers={"authorization": f"Bearer {OPS}"})
        assert refused.status_code == 403
        assert check_envelope(refused.json())["code"] == "admin_key_required"
        assert method(path, headers={"authorization": f"Bearer {MASTER}"}).status_code == 200


def test_probes_and_scrapes_need_no_key_and_health_does(place: Place) -> None:
    http = place.mobius.http
    for path in ("/health/liveness", "/health/readiness", "/metrics"):
        answer = http.get(path)
        assert answer.status_code == 200
        assert not any(secret in answer.text for secret in SECRETS)
    assert http.get("/health").status_code == 401
    assert http.get("/health", headers={"x-api-key": WEB}).status_code == 200


def test_a_key_that_leaves_the_file_opens_nothing_and_cuts_nothing(place: Place) -> None:
    gate = Gate()
    place.openai.script(Answer(tokens=20, gate=gate, gate_after_tokens=10))
    rest = [key for key in KEYS if key["name"] != "web"]

    def revoke() -> None:
        place.openai.journal.wait(lambda j: len(j) and len(j.last.tokens_sent) == 10)
        place.mobius.edit(place.config([*rest, {"name": "new", "key": NEW}]), "rename")
        wait_until(lambda: _refused(place, WEB), IN_FORCE_S, "the refusal")
        asked = len(place.openai.journal)
        assert _refused(place, WEB)
        assert len(place.openai.journal) == asked
        assert place.ask("openai-gpt", NEW) == "gpt"
        assert place.ask("openai-gpt", OPS) == "gpt"
        gate.open()

    async def run() -> None:
        async with Listener(place.mobius.url, api_key=WEB) as listener:
            heard, _ = await asyncio.gather(
                listener.stream("openai-gpt"), asyncio.to_thread(revoke)
            )
            check_whole(heard, 20)

    asyncio.run(run())
    place.mobius.edit(place.config(KEYS), "save")
    wait_until(lambda: not _refused(place, WEB), IN_FORCE_S, "the key's return")
    assert _refused(place, NEW)


def _refused(place: Place, key: str) -> bool:
    return place.post({"authorization": f"Bearer {key}"}).status_code == 401
