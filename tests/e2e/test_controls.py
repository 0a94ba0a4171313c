"""
Nobody steers LiteLLM from outside: judged by a second provider, which must never be asked.

The names are those of the installed LiteLLM. Whatever place a client puts one in, either the
request is refused and the name told, or it is JSON like any other that arrives where it belongs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.harness import Mobius
from tests.providers import Entry, FakeAnthropic, FakeOpenAI
from tests.test_controls import litellm_says

pytestmark = pytest.mark.e2e

KEY = "sk-of-the-file-1234"
SECRET = "a-secret-of-the-environment"
CONFIG = """
model_list:
  - model_name: direct
    litellm_params: {{model: openai/gpt-4o, api_key: {key}, api_base: "{openai}"}}
  - model_name: translated
    litellm_params: {{model: groq/llama, api_key: {key}, api_base: "{openai}"}}
  - model_name: claude
    litellm_params: {{model: anthropic/claude-sonnet-4-5, api_key: {key}, api_base: "{anthropic}"}}
mobius:
  breaker: {{failures: 100000}}
"""
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
MODELS = ("direct", "translated", "claude")

# Where a client may put a name. The deeper places are of the provider's business, in lists too.
PLACES: dict[str, Callable[[str, Any], dict[str, Any]]] = {
    "root": lambda name, value: {name: value},
    "nested": lambda name, value: {"unknown": {"deep": {name: value}}},
    "list": lambda name, value: {
        "messages": [*HELLO, {"role": "user", "content": "x", name: value}]
    },
    "part": lambda name, value: {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x", name: value}]}]
    },
    "tool": lambda name, value: {
        "tools": [{"type": "function", "function": {"name": "f", name: value}}]
    },
    "extra_body": lambda name, value: {"extra_body": {name: value}},
    "metadata": lambda name, value: {"metadata": {name: value}},
}


@dataclass
class Place:
    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic
    evil: FakeOpenAI

    def post(self, body: dict[str, Any]) -> httpx.Response:
        return self.mobius.http.post("/v1/chat/completions", json={"messages": HELLO, **body})

    def entry(self, model: str) -> Entry:
        return (self.anthropic if model == "claude" else self.openai).journal.last


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic, FakeOpenAI() as evil:
        config = CONFIG.format(key=KEY, openai=openai.base_url, anthropic=anthropic.base_url)
        env = {"A_SECRET": SECRET}
        with Mobius(config, env=env, secrets=(KEY, SECRET)) as mobius:
            yield Place(mobius, openai, anthropic, evil)
            # Nothing at all ever came of it.
            assert evil.journal.accepted == 0


@pytest.fixture(scope="module")
def names() -> list[str]:
    said = litellm_says()
    return sorted({*said["owned"], *said["taken"], f"{said['prefix']}anything"})


@pytest.mark.parametrize("where", PLACES)
def test_a_name_of_litellm_s_is_refused_or_arrives_as_what_it_is(
    place: Place, names: list[str], where: str
) -> None:
    for name in names:
        if name in ("messages", "model", "stream"):
            continue
        body = PLACES[where](name, place.evil.base_url)
        response = place.post({"model": "direct", **body})
        if response.status_code == 400:
            told = name in _param(response) or _param(response) == where == "extra_body"
            assert told, (where, name, response.text)
            continue
        assert response.status_code == 200, (where, name, response.text)
        entry = place.entry("direct")
        assert {key: entry.json[key] for key in body} == body, (where, name)
        _is_as_the_file_says(entry)
    assert place.evil.journal.accepted == 0


@pytest.mark.parametrize("model", ["translated", "claude"])
@pytest.mark.parametrize("where", PLACES)
def test_what_is_not_refused_does_not_steer_a_translation_either(
    place: Place, names: list[str], model: str, where: str
) -> None:
    passed = 0
    for name in names:
        if name in ("messages", "model", "stream"):
            continue
        body = PLACES[where](name, place.evil.base_url)
        before = len(place.openai.journal), len(place.anthropic.journal)
        response = place.post({"model": model, **body})
        asked = len(place.openai.journal) - before[0], len(place.anthropic.journal) - before[1]
        if sum(asked):
            passed += 1
            assert asked == ((0, 1) if model == "claude" else (1, 0)), (where, name)
            _is_as_the_file_says(place.entry(model))
        else:
            assert response.status_code == 400, (where, name, response.text)
    assert place.evil.journal.accepted == 0
    # An ordinary word is not refused, or nobody could ask anything.
    assert (passed > 0) is (where != "extra_body")


STEERING = (
    "api_base", "base_url", "api_key", "custom_llm_provider", "mock_response", "extra_headers",
    "model_list", "fallbacks", "litellm_params", "vertex_credentials", "aws_role_name",
    "success_callback", "prompt_id", "hf_model_name", "input_cost_per_token", "client",
)  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_values_of_every_kind_are_refused_under_a_name_that_steers(
    place: Place, model: str
) -> None:
    values: list[Any] = [
        {"api_base": place.evil.base_url}, [{"api_base": place.evil.base_url}], 7, True, None, "",
        "os.environ/A_SECRET", {"authorization": "x"},
    ]  # fmt: skip
    before = len(place.openai.journal) + len(place.anthropic.journal)
    for name in STEERING:
        for value in values:
            response = place.post({"model": model, name: value})
            if name == "fallbacks" and value is None:
                continue  # the caller's own word
            assert response.status_code == 400, (name, value, response.text)
            assert _param(response).startswith(name)
            assert SECRET not in response.text
    asked = len(place.openai.journal) + len(place.anthropic.journal) - before
    assert asked == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_value_that_litellm_would_look_up_is_refused_or_a_text(place: Place, model: str) -> None:
    value = "os.environ/A_SECRET"
    text = [{"role": "user", "content": f"what is {value}?"}, {"role": "user", "content": value}]
    bodies: list[dict[str, Any]] = [
        {"messages": text},
        {"user": value},
        {"stop": [value]},
        {"metadata": {"a": value}},
        {"unknown": {"deep": [value]}},
        {"messages": [{"role": "user", "content": "x", "name": value}]},
        {"messages": [{"role": value, "content": "x"}]},
        {"tools": [{"type": "function", "function": {"name": value}}]},
        {"prompt_cache_key": value},
    ]
    for number, body in enumerate(bodies):
        before = len(place.openai.journal) + len(place.anthropic.journal)
        response = place.post({"model": model, **body})
        assert SECRET not in response.text
        if number == 0:
            assert response.status_code == 200
            sent = place.entry(model).body.decode()
            assert value in sent
            assert SECRET not in sent
            continue
        assert response.status_code == 400, (body, response.text)
        assert len(place.openai.journal) + len(place.anthropic.journal) == before


def test_a_name_that_only_looks_like_a_control_is_the_provider_s_business(place: Place) -> None:
    body = {
        "API_BASE": place.evil.base_url, "api-base": place.evil.base_url,
        " api_base": place.evil.base_url, "api_base\u200b": place.evil.base_url,
        "apiBase": place.evil.base_url, "\u0430pi_base": place.evil.base_url,
    }  # fmt: skip
    for model in MODELS:
        assert place.post({"model": model, **body}).status_code == 200
        entry = place.entry(model)
        _is_as_the_file_says(entry)
        if model != "claude":
            assert {name: entry.json[name] for name in body} == body
    assert place.evil.journal.accepted == 0


def test_a_header_of_the_request_does_not_steer_either(place: Place) -> None:
    headers = {
        "api-base": place.evil.base_url, "x-litellm-api-base": place.evil.base_url,
        "x-litellm-api-key": "sk-evil", "api_base": place.evil.base_url,
        "x-litellm-tags": "a", "x-litellm-timeout": "1", "openai-organization": "org-evil",
        "x-forwarded-host": "evil.test", "anthropic-beta": "evil", "x-pass-x-evil": "1",
    }  # fmt: skip
    for model in MODELS:
        response = place.mobius.http.post(
            "/v1/chat/completions", json={"model": model, "messages": HELLO}, headers=headers
        )
        assert response.status_code == 200
        entry = place.entry(model)
        _is_as_the_file_says(entry)
        assert "evil" not in json.dumps(dict(entry.headers))
    assert place.evil.journal.accepted == 0


def _param(response: httpx.Response) -> str:
    param: str = response.json()["error"]["param"] or ""
    return param


def _is_as_the_file_says(entry: Entry) -> None:
    """The right key, and nothing that came with the request among the headers."""
    assert KEY in (entry.headers.get("x-api-key") or entry.headers["authorization"])
    assert entry.json["model"] in ("gpt-4o", "llama", "claude-sonnet-4-5")
