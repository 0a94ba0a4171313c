"""Who is known to be unable is not asked: by the file's word, by LiteLLM's table, and by length."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from tests.harness import Mobius, mobius_command
from tests.providers import FakeOpenAI, openai_errors

pytestmark = pytest.mark.e2e

KEYS = {
    "web": "sk-web-of-the-able",
    "narrow": "sk-narrow-of-the-able",
    "admin": "sk-master-of-the-able",
}
LACKS = dict.fromkeys(
    (
        "supports_audio_input",
        "supports_function_calling",
        "supports_response_schema",
        "supports_vision",
    ),
    False,
)
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
FORM = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
LONG = "word " * 1_000  # of 4,000 letters: more than 100 tokens, however they are cut


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


ASKED: dict[str, dict[str, Any]] = {
    "images": {"messages": user([IMAGE])},
    "sound": {"messages": user([SOUND])},
    "tools": {"messages": user("hi"), "tools": [TOOL]},
    "a schema for its answer": {"messages": user("hi"), "response_format": FORM},
}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    fake: FakeOpenAI

    def post(
        self, path: str = "/v1/chat/completions", *, key: str = "web", **body: Any
    ) -> httpx.Response:
        named = {"authorization": f"Bearer {KEYS[key]}"}
        plain = {} if "input" in body else {"messages": user("hi")}
        return self.mobius.http.post(path, json={**plain, **body}, headers=named)

    def asked(self) -> list[str | None]:
        return [entry.json["model"] for entry in self.fake.journal.requests()]


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as fake, Mobius(_config(fake), secrets=tuple(KEYS.values())) as mobius:
        yield Place(mobius, fake)


def _config(fake: FakeOpenAI) -> dict[str, Any]:
    def entry(name: str, model: str, **facts: Any) -> dict[str, Any]:
        place = {"api_base": fake.base_url, "api_key": "sk-provider-1234"}
        params = {"model": f"openai/{model}", **place}
        return {"model_name": name, "litellm_params": params, "model_info": facts}

    return {
        "model_list": [
            entry("m", "unable", **LACKS),
            entry("m", "unknown"),
            entry("alone", "alone", **LACKS),
            entry("table", "o3-mini"),  # LiteLLM's table says that it sees nothing
            entry("table", "gpt-4o"),
            entry("stated", "o3-mini", supports_vision=True),
            entry("small", "small", max_input_tokens=100),
            entry("spare", "spare"),
            entry("large", "large", max_input_tokens=100_000),
            entry("strict", "strict"),
            entry("lenient", "lenient"),
        ],
        "router_settings": {
            "num_retries": 0,
            "routing_strategy": "health-based",
            "fallbacks": [{"small": ["spare"]}, {"strict": ["spare"]}],
            "context_window_fallbacks": [{"small": ["large"]}],
            "content_policy_fallbacks": [{"strict": ["lenient"]}],
        },
        "mobius": {
            "laps": 1,
            "breaker": {"failures": 1000, "min_calls": 1000},
            "keys": [
                {"name": "web", "key": KEYS["web"]},
                {"name": "narrow", "key": KEYS["narrow"], "models": ["small", "strict"]},
            ],
        },
        "general_settings": {"master_key": KEYS["admin"]},
    }


@pytest.fixture
def place(running: Place) -> Place:
    running.fake.reset_script()
    running.fake.journal.clear()
    return running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", ASKED)
def test_the_next_is_asked_at_once_where_the_first_is_known_to_be_unable(
    place: Place, what: str, stream: bool
) -> None:
    answer = place.post(model="m", stream=stream, **ASKED[what])
    assert answer.status_code == 200
    assert place.asked() == ["unknown"]
    assert place.post(model="m", stream=stream).status_code == 200
    assert place.asked() == ["unknown", "unable"], "a plain request goes where it always does"


@pytest.mark.parametrize("what", ASKED)
def test_when_nobody_is_able_it_is_a_400_that_says_why(place: Place, what: str) -> None:
    answer = place.post(model="alone", **ASKED[what])
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert what in error["message"]
    assert error["param"] in ASKED[what]
    assert place.asked() == []


def test_the_same_holds_for_a_response(place: Place) -> None:
    seen = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 40}
    answer = place.post("/v1/responses", model="m", input=user([seen]))
    assert (answer.status_code, place.asked()) == (200, ["unknown"])
    assert place.post("/v1/responses", model="alone", input=user([seen])).status_code == 400
    assert place.asked() == ["unknown"]


def test_litellms_table_is_believed_unless_the_file_says_otherwise(place: Place) -> None:
    assert place.post(model="table", **ASKED["images"]).status_code == 200
    assert place.post(model="stated", **ASKED["images"]).status_code == 200
    assert place.asked() == ["gpt-4o", "o3-mini"]


def test_what_is_surely_too_long_goes_to_the_fallbacks_for_that_without_being_refused_first(
    place: Place,
) -> None:
    answer = place.post(model="small", messages=user(LONG))
    assert answer.status_code == 200
    assert place.asked() == ["large"]
    assert place.post(model="small", messages=user("word " * 100)).status_code == 200
    assert place.asked() == ["large", "small"], "what may fit is the provider's to refuse"


def test_a_provider_that_refuses_a_length_is_left_for_the_fallbacks_for_that(place: Place) -> None:
    place.fake.script(openai_errors.context_length_exceeded(), model="small")
    assert place.post(model="small").status_code == 200
    assert place.asked() == ["small", "large"]


def test_a_provider_that_refuses_the_content_is_left_for_the_fallbacks_for_that(
    place: Place,
) -> None:
    place.fake.script(openai_errors.content_policy_violation(), model="strict")
    assert place.post(model="strict").status_code == 200
    assert place.asked() == ["strict", "lenient"]


def test_a_key_is_led_to_no_model_that_it_may_not_use_by_any_of_these(place: Place) -> None:
    client = place.mobius.openai(KEYS["narrow"])
    said: Any = user(LONG)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="small", messages=said)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
    assert place.asked() == []
    place.fake.script(openai_errors.content_policy_violation(), model="strict")
    assert place.post(model="strict", key="narrow").json()["error"]["code"] == (
        "content_policy_violation"
    )
    assert place.asked() == ["strict"]


def test_a_request_may_forbid_all_of_these(place: Place) -> None:
    answer = place.post(model="small", messages=user(LONG), disable_fallbacks=True)
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert place.asked() == []


def test_many_texts_to_embed_are_not_taken_for_one_long_one(place: Place) -> None:
    answer = place.post("/v1/embeddings", model="small", input=["word " * 20] * 100)
    assert answer.status_code == 200
    assert place.asked() == ["small"]


def test_check_shows_the_strategy_and_where_long_requests_go(place: Place) -> None:
    done = mobius_command("check", config=_config(place.fake))
    assert done.returncode == 0, done.stderr
    assert "m/openai/unable  direct [health-based]" in done.stdout
    assert "too long: large/openai/large" in done.stdout
    assert "content refused: lenient/openai/lenient" in done.stdout
