"""Every body that goes out is valid by OpenAI's own schemas, whoever answered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.harness import Mobius
from tests.providers import (
    MISSING,
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    FakeProvider,
    ToolCall,
    Usage,
)

# Of OpenAI's published description, what answers to a chat consist of.
SCHEMAS = Path(__file__).with_name("openai_schemas.json")

pytestmark = pytest.mark.e2e

STATUSES = (400, 401, 403, 404, 413, 422, 429, 500, 503, 529)


def config(openai: FakeOpenAI, anthropic: FakeAnthropic) -> dict[str, Any]:
    places = {
        "gpt": ("openai/gpt-4o", openai.base_url, "sk-aaaaaaaaaaaa"),
        "claude": ("anthropic/claude-sonnet-4-5", anthropic.base_url, "sk-bbbbbbbbbbbb"),
    }
    targets: list[dict[str, Any]] = [
        {"model_name": "demo", "model": "openai/demo", "mock_response": "Hello from nowhere"},
        {"model_name": "unset", "model": "openai/gpt-4o", "api_key": "os.environ/NOT_SET_ANYWHERE"},
    ]
    for name, (model, base, key) in places.items():
        # A target that has refused rests, and would spoil the next test: each refusal has its own.
        for own in ("", *(f"-{status}-{way}" for status in STATUSES for way in WAYS)):
            place = {"api_base": base, "api_key": f"{key}{own}"}
            targets.append({"model_name": f"{name}{own}", "model": f"{model}{own}", **place})
    return {
        "model_list": [
            {"model_name": target.pop("model_name"), "litellm_params": target} for target in targets
        ],
        "router_settings": {"num_retries": 0},
        "mobius": {
            "laps": 1,
            "breaker": {"failures": 1000},
            "keys": [{"name": "some", "key": "sk-some-models", "models": ["gpt"]}],
        },
        "general_settings": {"master_key": "sk-master-1234"},
    }


WAYS = ("unary", "stream")
HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
TOOLS = (ToolCall("look", '{"a": 1}'), ToolCall("look", '{"b": [2, null]}'))

ANSWERS: dict[str, tuple[Answer, dict[str, Any]]] = {
    "text": (Answer(usage=Usage(30, 20, cached=10, reasoning=5)), {}),
    "cut": (Answer(finish="length"), {"max_tokens": 5}),
    "calls": (Answer(tool_calls=TOOLS), {"tools": [TOOL]}),
    "text and calls": (Answer(text="wait", tool_calls=TOOLS), {"tools": [TOOL]}),
    "thoughts": (Answer(reasoning="hm hm", text="so"), {}),
    "no words": (Answer(text=""), {}),
    "no usage": (Answer(usage=MISSING), {}),
    "refused": (Answer(refusal="no"), {}),
}


class Server:
    """Mobius, two providers, and what OpenAI says about the bodies."""

    def __init__(self, mobius: Mobius, fakes: dict[str, FakeProvider]) -> None:
        self.mobius, self.fakes = mobius, fakes
        published = json.loads(SCHEMAS.read_bytes())
        self._components = {"components": published["components"]}

    def check(self, name: str, body: Any) -> Any:
        """The body, which has no fault by the schema of this name."""
        schema = {"$ref": f"#/components/schemas/{name}", **self._components}
        faults = list(Draft202012Validator(schema).iter_errors(body))
        assert not faults, [f"{fault.json_path}: {fault.message}" for fault in faults]
        return body

    def post(self, key: str = "sk-master-1234", **body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        return self.mobius.http.post(
            "/v1/chat/completions", json={"messages": HELLO, **body}, headers=headers
        )

    def events(self, **body: Any) -> list[Any]:
        """The events of a stream, of which each but an error is a valid chunk."""
        response = self.post(stream=True, **body)
        assert response.status_code == 200, response.text
        lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
        events = [json.loads(line) for line in lines if line != "[DONE]"]
        for event in events:
            kind = "ErrorResponse" if "error" in event else "CreateChatCompletionStreamResponse"
            self.check(kind, event)
        return events


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with (
        FakeOpenAI() as openai,
        FakeAnthropic() as anthropic,
        Mobius(config(openai, anthropic), secrets=("sk-aaaaaaaaaaaa", "sk-bbbbbbbbbbbb")) as mobius,
    ):
        yield Server(mobius, {"gpt": openai, "claude": anthropic})


models = pytest.mark.parametrize("model", ["gpt", "claude"])


@models
@pytest.mark.parametrize("name", ANSWERS)
def test_a_whole_answer_is_a_chat_completion(server: Server, model: str, name: str) -> None:
    answer, body = ANSWERS[name]
    server.fakes[model].script(answer)
    response = server.post(model=model, **body)
    assert response.status_code == 200, response.text
    told = server.check("CreateChatCompletionResponse", response.json())
    (choice,) = told["choices"]
    # Python's SDK has these as attributes whether they are there or not; others do not.
    assert {"index", "finish_reason", "logprobs", "message"} <= choice.keys()
    assert {"role", "content", "refusal"} <= choice["message"].keys()
    assert not any("index" in call for call in choice["message"].get("tool_calls", ()))


@models
@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("usage", [False, True], ids=["plain", "usage"])
def test_a_streamed_answer_is_chunks_of_one_chat_completion(
    server: Server, model: str, name: str, usage: bool
) -> None:
    answer, body = ANSWERS[name]
    server.fakes[model].script(answer)
    events = server.events(model=model, stream_options={"include_usage": usage}, **body)
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    choices = [choice for event in events for choice in event["choices"]]
    assert choices[0]["delta"].get("role", "assistant") == "assistant"
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    # OpenAI's usage chunk comes last and without a choice; nobody gets it who did not ask.
    told = [event for event in events if event.get("usage")]
    assert len(told) <= 1
    assert not (told and not usage)
    assert all(event["choices"] == [] and event is events[-1] for event in told)


def test_several_choices_and_their_probabilities_are_valid(server: Server) -> None:
    wanted: dict[str, Any] = {"model": "gpt", "n": 2, "logprobs": True, "top_logprobs": 0}
    body = server.check("CreateChatCompletionResponse", server.post(**wanted).json())
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    events = server.events(**wanted)
    assert {choice["index"] for event in events for choice in event["choices"]} == {0, 1}


def test_what_nobody_was_asked_for_is_valid_too(server: Server) -> None:
    body = server.check("CreateChatCompletionResponse", server.post(model="demo").json())
    assert body["choices"][0]["message"]["content"] == "Hello from nowhere"
    events = server.events(model="demo", stream_options={"include_usage": True})
    said = [choice["delta"].get("content", "") for e in events for choice in e["choices"]]
    assert "".join(said) == "Hello from nowhere"


@models
def test_an_error_within_a_stream_is_an_error_object(server: Server, model: str) -> None:
    for how in ("reset", "error_event", "ends"):
        server.fakes[model].script(Breaks(after_tokens=2, how=how))
        events = server.events(model=model)
        assert "error" in events[-1]


@models
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("way", WAYS)
def test_a_refusal_is_an_error_object_with_all_its_fields(
    server: Server, model: str, status: int, way: str
) -> None:
    server.fakes[model].script(Fails(status))
    response = server.post(model=f"{model}-{status}-{way}", stream=way == "stream")
    assert response.status_code >= 400
    server.check("ErrorResponse", response.json())
    assert server.fakes[model].steps_left == 0


def test_our_own_refusals_are_error_objects(server: Server) -> None:
    http = server.mobius.http
    refusals = [
        (400, server.post(model="gpt", messages=[])),
        (400, server.post(model="gpt", api_base="http://x")),
        (400, server.post(model=7)),
        (401, server.post(key="sk-nobody", model="gpt")),
        (403, server.post(key="sk-some-models", model="claude")),
        (404, server.post(model="nothing")),
        (503, server.post(model="unset")),
        (404, http.get("/v1/nowhere")),
        (405, http.get("/v1/chat/completions")),
        (400, http.post("/v1/chat/completions", content=b"{", headers={
            "authorization": "Bearer sk-master-1234"})),
    ]  # fmt: skip
    for status, response in refusals:
        assert response.status_code == status, response.text
        server.check("ErrorResponse", response.json())


def test_the_models_are_a_list_of_models(server: Server) -> None:
    headers = {"authorization": "Bearer sk-master-1234"}
    body = server.mobius.http.get("/v1/models", headers=headers).json()
    server.check("ListModelsResponse", body)
    assert {model["id"] for model in body["data"]} >= {"gpt", "claude", "demo"}
    one = server.mobius.http.get("/v1/models/gpt", headers=headers).json()
    server.check("Model", one)
