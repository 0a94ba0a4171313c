"""Every surface but chat through the official SDK: asked of the provider as it was sent, answered
as the provider answered, under the same ring, keys, limits and metrics."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from tests.harness import Mobius, total
from tests.providers import Answer, Breaks, Fails, FakeOpenAI, Usage

pytestmark = pytest.mark.e2e

KEYS = {"web": "sk-web-of-the-surfaces", "small": "sk-small-of-the-surfaces"}
WEB = {"authorization": f"Bearer {KEYS['web']}"}
VECTORS = [[0.5 + number, 0.25, 0.25] for number in range(3)]


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    first: FakeOpenAI
    second: FakeOpenAI

    @property
    def client(self) -> openai.OpenAI:
        return self.mobius.openai(KEYS["web"])


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with (
        FakeOpenAI() as first,
        FakeOpenAI() as second,
        Mobius(_config(first, second), secrets=tuple(KEYS.values())) as mobius,
    ):
        yield Place(mobius, first, second)


def _config(first: FakeOpenAI, second: FakeOpenAI) -> dict[str, Any]:
    def entry(name: str, model: str, fake: FakeOpenAI, **params: Any) -> dict[str, Any]:
        place = {"model": model, "api_base": fake.base_url, "api_key": "sk-provider-1234"}
        return {"model_name": name, "litellm_params": {**place, **params}}

    return {
        "model_list": [
            entry("m", "openai/first", first, temperature=0.5),
            entry("spare", "openai/second", second),
            entry("by-litellm", "openai/first", first),
            entry("mistral", "mistral/mistral-embed", first),
            entry("team/gpt", "openai/gpt-4o", first),
        ],
        "router_settings": {"num_retries": 0, "fallbacks": [{"m": ["spare"]}]},
        "mobius": {
            "lanes": {"by-litellm": "unified"},
            "keys": [
                {"name": "web", "key": KEYS["web"]},
                {"name": "small", "key": KEYS["small"], "limits": {"tpm": 300}},
            ],
            "breaker": {"failures": 1000, "min_calls": 1000},
        },
    }


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.first, running.second):
        fake.reset_script()
        fake.journal.clear()
    return running


def test_a_completion_whole_and_streamed(place: Place) -> None:
    asked = {"prompt": ["once", "upon"], "max_tokens": 7, "echo": True, "best_of": 2, "logprobs": 1}
    found = place.client.completions.create(model="m", **asked)  # type: ignore[call-overload]
    assert (found.choices[0].text, found.choices[0].finish_reason) == ("t0 t1 t2 t3 t4 ", "stop")
    assert found.usage is not None
    sent = place.first.journal.last
    # What the file says for text holds here too.
    assert sent.json == {**asked, "model": "first", "temperature": 0.5}
    assert sent.path == "/v1/completions"

    chunks = list(place.client.completions.create(model="m", prompt="once", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "t0 t1 t2 t3 t4 "
    assert chunks[-1].choices[0].finish_reason == "stop"
    options: Any = {"include_usage": True}
    chunks = list(
        place.client.completions.create(
            model="m", prompt="once", stream=True, stream_options=options
        )
    )
    assert (chunks[-1].choices, chunks[-1].usage is not None) == ([], True)


def test_every_choice_of_a_completion_arrives_with_its_logprobs(place: Place) -> None:
    asked: Any = {"model": "m", "prompt": ["once", "upon"], "n": 2, "logprobs": 1}
    whole = place.client.completions.create(**asked)
    assert [(c.index, c.finish_reason) for c in whole.choices] == [(n, "stop") for n in range(4)]
    assert all(c.logprobs and c.logprobs.tokens == [c.text] for c in whole.choices)
    texts, ended = dict.fromkeys(range(4), ""), set[int]()
    for chunk in place.client.completions.create(**asked, stream=True):
        (choice,) = chunk.choices
        texts[choice.index] += choice.text
        assert not choice.text or (choice.logprobs and choice.logprobs.tokens == [choice.text])
        ended |= {choice.index} if choice.finish_reason else set()
    assert set(texts.values()) == {"t0 t1 t2 t3 t4 "}
    assert ended == set(range(4))


def test_a_stream_of_text_that_breaks_is_never_cut_silently(place: Place) -> None:
    place.first.script(Breaks(2, how="ends"))
    stream = place.client.completions.create(model="m", prompt="once", stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_it_falls_back_before_its_first_word(place: Place) -> None:
    place.first.script(Fails(500), Breaks(0, how="ends"))
    found = place.client.completions.create(model="m", prompt="once")
    assert found.model == "second"
    stream = place.client.completions.create(model="m", prompt="once", stream=True)
    assert {chunk.model for chunk in stream} == {"second"}


@pytest.mark.parametrize("model", ["m", "by-litellm"])
def test_vectors_in_both_encodings_and_of_every_kind_of_input(place: Place, model: str) -> None:
    for inputs, count in (("a", 1), (["a", "b", "c"], 3), ([1, 2, 3], 1), ([[1], [2, 3]], 2)):
        found = place.client.embeddings.create(
            model=model, input=inputs, dimensions=3, encoding_format="float"
        )
        assert [each.embedding for each in found.data] == VECTORS[:count]
        assert [each.index for each in found.data] == list(range(count))
        assert place.first.journal.last.json["input"] == inputs
    # Its own default is base64, which it decodes.
    found = place.client.embeddings.create(model=model, input=["a", "b"])
    assert found.data[1].embedding == [1.5, 0.25, 0.25, 0.25]
    raw = place.mobius.http.post(
        "/v1/embeddings",
        json={"model": model, "input": "a", "encoding_format": "base64"},
        headers=WEB,
    ).json()
    vector = base64.b64decode(raw["data"][0]["embedding"])
    assert struct.unpack("<4f", vector) == (0.5, 0.25, 0.25, 0.25)


def test_vectors_of_a_provider_that_is_translated_for(place: Place) -> None:
    found = place.client.embeddings.create(model="mistral", input=["a", "b"])
    assert [each.embedding[0] for each in found.data] == [0.5, 1.5]
    assert place.first.journal.last.json["input"] == ["a", "b"]


def test_moderations_images_and_rerank(place: Place) -> None:
    verdict = place.client.moderations.create(model="m", input=["fine", "harm"])
    assert [each.flagged for each in verdict.results] == [False, True]
    drawn = place.client.images.generate(model="m", prompt="a pixel", n=2)
    assert drawn.data is not None
    assert [each.b64_json for each in drawn.data] == ["iVBORw0KGgo="] * 2
    for path in ("/v1/rerank", "/rerank", "/v2/rerank"):
        ranked = _post(
            place, path, {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1}
        )
        assert ranked["results"] == [{"index": 1, "relevance_score": 1.0}]
    assert place.first.journal.last.json == {
        "model": "first", "query": "q", "documents": ["a", "b"], "top_n": 1
    }  # fmt: skip


def test_a_moderation_needs_no_model_where_the_file_has_openai_s_own(place: Place) -> None:
    answer = place.mobius.http.post(
        "/v1/moderations",
        json={"input": "a"},
        headers=WEB,
    )
    assert answer.status_code == 404
    assert "omni-moderation-latest" in answer.json()["error"]["message"]


def test_what_is_wrong_with_a_body_is_said(place: Place) -> None:
    wrong: dict[str, list[dict[str, Any]]] = {
        "/v1/completions": [{}, {"prompt": 7}, {"prompt": []}],
        "/v1/embeddings": [{}, {"input": ""} | {"stream": True}, {"input": {}}],
        "/v1/moderations": [{"input": []}],
        "/v1/images/generations": [{}, {"prompt": "a", "stream": True}],
        "/v1/rerank": [{"query": "q"}, {"documents": ["a"]}],
    }
    for path, bodies in wrong.items():
        for body in bodies:
            answer = place.mobius.http.post(
                path,
                json={"model": "m", **body},
                headers=WEB,
            )
            assert answer.status_code == 400, (path, body)
            assert answer.json()["error"]["param"] in {
                "prompt", "input", "stream", "query", "documents"
            }  # fmt: skip
    assert len(place.first.journal) == 0


def test_vectors_take_tokens_of_the_prompt_and_none_of_an_answer(place: Place) -> None:
    place.first.always(Answer(usage=Usage(100, 0)))
    client = place.mobius.openai(KEYS["small"])
    headers = client.embeddings.with_raw_response.create(model="m", input="a").headers
    assert headers["x-ratelimit-remaining-tokens"] == "200"
    client.embeddings.create(model="m", input="a")
    # A hundred are left, and it has been learned that such a request takes no less.
    with pytest.raises(openai.RateLimitError):
        client.embeddings.create(model="m", input="a")


def test_models_are_told_of_in_the_form_of_the_sdk_that_asks(place: Place) -> None:
    names = ["m", "spare", "by-litellm", "mistral", "team/gpt"]
    assert [model.id for model in place.client.models.list()] == names
    told = place.client.models.retrieve("team/gpt").model_dump()
    assert (told["owned_by"], told["mode"]) == ("openai", "chat")
    assert (told["max_input_tokens"], told["max_output_tokens"]) == (128_000, 16_384)
    assert (told["input_cost_per_token"], told["supports_vision"]) == (2.5e-6, True)
    with pytest.raises(openai.NotFoundError):
        place.client.models.retrieve("team/none")

    claude = place.mobius.anthropic(KEYS["web"])
    assert [model.id for model in claude.models.list(limit=2)] == names  # page after page
    one = claude.models.retrieve("team/gpt")
    assert (one.type, one.display_name, one.max_tokens) == ("model", "team/gpt", 16_384)
    assert one.created_at.year == 2023
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("none")
    with pytest.raises(anthropic.AuthenticationError):
        place.mobius.anthropic("sk-other").models.list()


def test_each_surface_is_counted_as_what_it_is(place: Place) -> None:
    before = place.mobius.metrics()
    place.client.embeddings.create(model="m", input="a")
    place.client.completions.create(model="m", prompt="a")
    after = place.mobius.metrics()
    for surface in ("embeddings", "completions"):
        name = "mobius_request_seconds_count"
        assert total(after, name, surface=surface) - total(before, name, surface=surface) == 1


def _post(place: Place, path: str, body: dict[str, Any]) -> Any:
    answer = place.mobius.http.post(path, json=body, headers=WEB)
    assert answer.status_code == 200, answer.text
    return answer.json()
