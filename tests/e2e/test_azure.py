"""Azure's official client, pointed at Mobius: deployments are models, and its key is the key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai import AzureOpenAI, DefaultHttpxClient, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.harness import Mobius
from tests.providers import FakeOpenAI

pytestmark = pytest.mark.e2e

KEY = "sk-web-of-azure"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
SAID = "t0 t1 t2 t3 t4 "


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    fake: FakeOpenAI

    def azure(self, **more: Any) -> AzureOpenAI:
        return AzureOpenAI(
            azure_endpoint=self.mobius.url,
            api_key=KEY,
            api_version="2024-10-21",
            max_retries=0,
            http_client=DefaultHttpxClient(trust_env=False),
            **more,
        )


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as fake, Mobius(_config(fake), secrets=(KEY,)) as mobius:
        yield Place(mobius, fake)


def _config(fake: FakeOpenAI) -> dict[str, Any]:
    place = {"api_base": fake.base_url, "api_key": "sk-provider-1234"}
    return {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"openai/{model}", **place}}
            for name, model in (("m", "first"), ("team/m", "second"), ("closed", "third"))
        ],
        "mobius": {"keys": [{"name": "web", "key": KEY, "models": ["m", "team/*"]}]},
    }


@pytest.fixture
def place(running: Place) -> Place:
    running.fake.journal.clear()
    return running


@pytest.mark.parametrize("name", ["m", "team/m"])
def test_every_call_that_names_a_deployment_is_one_to_that_model(place: Place, name: str) -> None:
    with place.azure() as client:
        answer = client.chat.completions.create(model=name, messages=HELLO)
        assert answer.choices[0].message.content == SAID
        chunks = client.chat.completions.create(model=name, messages=HELLO, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SAID
        assert client.completions.create(model=name, prompt="a").choices[0].text == SAID
        assert len(client.embeddings.create(model=name, input=["a", "b"]).data) == 2
        assert client.images.generate(model=name, prompt="a").data
        assert client.audio.speech.create(model=name, voice="alloy", input="a").read()
        assert client.audio.transcriptions.create(model=name, file=b"ID3").text == SAID.strip()
        assert client.audio.translations.create(model=name, file=b"ID3").text == SAID.strip()
    sent = {entry.model for entry in place.fake.journal.requests()}
    assert sent == {"first" if name == "m" else "second"}
    assert {entry.query.get("api-version") for entry in place.fake.journal.requests()} == {None}


def test_calls_that_name_no_deployment_work_too(place: Place) -> None:
    with place.azure() as client:
        made = client.responses.create(model="m", input="a")
        assert made.output_text == SAID
        assert client.responses.retrieve(made.id).id == made.id
        assert "api-version" not in place.fake.journal.last.query
        assert client.moderations.create(model="m", input="a").results
        assert [model.id for model in client.models.list()] == ["m", "team/m"]
        assert client.models.retrieve("team/m").id == "team/m"
    base = f"{place.mobius.url}/openai/v1/"
    http = DefaultHttpxClient(trust_env=False)
    with OpenAI(base_url=base, api_key=KEY, max_retries=0, http_client=http) as newer:
        answer = newer.chat.completions.create(model="m", messages=HELLO)
        assert answer.choices[0].message.content == SAID
        assert newer.responses.create(model="m", input="a").output_text == SAID


def test_the_deployment_of_the_address_wins_over_the_model_of_the_body(place: Place) -> None:
    with place.azure(azure_deployment="m") as client:
        client.chat.completions.create(model="closed", messages=HELLO)
        client.audio.transcriptions.create(model="closed", file=b"ID3")
    path = "/openai/deployments/m/chat/completions?api-version=2024-10-21"
    answer = place.mobius.http.post(path, json={"messages": HELLO}, headers={"api-key": KEY})
    assert answer.status_code == 200
    assert {entry.model for entry in place.fake.journal.requests()} == {"first"}


def test_keys_and_models_are_kept_to(place: Place) -> None:
    with place.azure() as client, pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="closed", messages=HELLO)
    with place.azure() as client, pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-other").chat.completions.create(model="m", messages=HELLO)
    for path, status in (
        ("/openai/deployments//chat/completions", 400),
        ("/openai/deployments/m/messages", 404),
        ("/openai/deployments/m/rerank", 404),
        ("/openai/deployments/m", 404),
        ("/openai/messages", 404),
    ):
        answer = place.mobius.http.post(path, json={"messages": HELLO}, headers={"api-key": KEY})
        assert (answer.status_code, path) == (status, path)
    answer = place.mobius.http.get("/openai/deployments/m/chat/completions")
    assert answer.status_code == 405
    assert len(place.fake.journal) == 0
