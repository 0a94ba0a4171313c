"""What a request says about its own handling, through a real process: order, time, session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.harness import Mobius
from tests.providers import Answer, Fails, FakeOpenAI

pytestmark = pytest.mark.e2e

KEYS = {"web": "sk-web-of-the-wishes", "narrow": "sk-narrow-of-the-wishes"}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    fake: FakeOpenAI

    def ask(
        self, headers: dict[str, str] | None = None, key: str = "web", **body: Any
    ) -> httpx.Response:
        body = {"model": "a", "messages": [{"role": "user", "content": "hi"}], **body}
        named = {"authorization": f"Bearer {KEYS[key]}", **(headers or {})}
        return self.mobius.http.post("/v1/chat/completions", json=body, headers=named)

    def asked(self) -> list[str | None]:
        return [entry.json["model"] for entry in self.fake.journal.requests()]


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as fake:

        def entry(name: str, model: str) -> dict[str, Any]:
            place = {"api_base": fake.base_url, "api_key": "sk-provider-1234"}
            return {"model_name": name, "litellm_params": {"model": f"openai/{model}", **place}}

        config = {
            "model_list": [
                *(entry(name, name) for name in "abc"),
                *(entry("many", f"many-{number}") for number in range(4)),
            ],
            "router_settings": {
                "num_retries": 0,
                "fallbacks": [{"a": ["b"]}],
                "routing_strategy": "round-robin",
            },
            "mobius": {
                "laps": 1,
                "breaker": {"failures": 1000, "min_calls": 1000},
                "keys": [
                    {"name": "web", "key": KEYS["web"]},
                    {"name": "narrow", "key": KEYS["narrow"], "models": ["a", "b"]},
                ],
            },
        }
        with Mobius(config, secrets=tuple(KEYS.values())) as mobius:
            yield Place(mobius, fake)


@pytest.fixture
def place(running: Place) -> Place:
    running.fake.reset_script()
    running.fake.journal.clear()
    return running


def test_the_order_of_a_request_is_its_whole_ring(place: Place) -> None:
    place.fake.script(Fails(500), Fails(500))
    answer = place.ask({"x-mobius-order": "c, b, a"})
    assert answer.json()["model"] == "a"
    assert place.asked() == ["c", "b", "a"]
    assert answer.headers["x-mobius-attempts"].count(":500") == 2


@pytest.mark.parametrize("said", [["c"], [{"model": "c"}], [{"a": ["c"]}, {"b": ["a"]}]])
def test_the_fallbacks_of_a_request_are_asked_in_place_of_the_files(
    place: Place, said: list[Any]
) -> None:
    place.fake.script(Fails(500))
    assert place.ask(fallbacks=said).json()["model"] == "c"
    assert place.asked() == ["a", "c"]
    assert "fallbacks" not in place.fake.journal.requests()[0].json


def test_no_fallback_is_none(place: Place) -> None:
    wishes: tuple[dict[str, Any], ...] = (
        {"headers": {"x-mobius-no-fallback": "true"}},
        {"disable_fallbacks": True},
    )
    for wish in wishes:
        place.fake.journal.clear()
        place.fake.script(Fails(500))
        assert place.ask(**wish).status_code == 503
        assert place.asked() == ["a"]


def test_a_request_may_have_less_time(place: Place) -> None:
    wishes: tuple[dict[str, Any], ...] = (
        {"headers": {"x-mobius-timeout": "0.2"}},
        {"headers": {"x-litellm-timeout": "0.2"}},
        {"timeout": 0.2},
    )
    for wish in wishes:
        place.fake.journal.clear()
        place.fake.script(Answer(delay_s=20.0))
        assert place.ask(**wish).json()["model"] == "b"


def test_a_key_goes_nowhere_else_because_a_request_says_so(place: Place) -> None:
    assert place.ask({"x-mobius-order": "a, c"}, key="narrow").status_code == 403
    assert place.ask({"x-mobius-order": "a, nowhere"}).status_code == 404
    assert place.ask({"x-mobius-timeout": "soon"}).json()["error"]["param"] == "x-mobius-timeout"
    assert place.asked() == []


def test_turns_go_round_and_a_session_stays(place: Place) -> None:
    for _ in range(8):
        place.ask(model="many")
    assert sorted(map(str, place.asked())) == sorted([f"many-{n}" for n in range(4)] * 2)
    for session in ("one", "two", "three"):
        place.fake.journal.clear()
        for _ in range(4):
            place.ask({"x-mobius-session": session}, model="many")
        assert len(set(place.asked())) == 1
