"""The first API through real processes: what goes out, what each provider gets, what it is told.

No two tests that make a target fail share one: what is known of its health outlives a request.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from tests.e2e.quota_place import key, secret
from tests.e2e.stream_checks import said, target
from tests.harness import Mobius, mobius_command, total, wait_until
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    Gate,
    Silent,
    Step,
    ToolCall,
    closed_port,
)

pytestmark = pytest.mark.e2e

HI = [{"role": "user", "content": "hi"}]
SAID = said(5)
RINGS = ("chat", "falls", "breaks", "leaves", "down", "tools", "kept", "in-order")
KINDS: dict[str, tuple[Step, str]] = {
    "unauthorized": (Fails(status=401), "provider_auth_error"),
    "limited": (Fails(status=429, headers={"retry-after": "9"}), "rate_limit_exceeded"),
    "server": (Fails(status=500), "no_target_available"),
    "overloaded": (Fails(status=529), "no_target_available"),
    "silent": (Silent(), "deadline_exceeded"),
    "web-page": (Answer(raw_body=b"<html>", content_type="text/html"), "no_target_available"),
}


@dataclass(frozen=True)
class Place:
    """A Mobius, and the two providers behind each of its groups."""

    mobius: Mobius
    openai: FakeOpenAI
    anthropic: FakeAnthropic

    def post(
        self, path: str, body: object = HI, name: str = "web", **params: Any
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {secret(name)}"}
        return self.mobius.http.post(path, json=body, headers=headers, params=params)

    def logged(self, response: httpx.Response) -> dict[str, Any]:
        """The line of the log about this request, once it is there."""
        id = response.headers["x-request-id"]
        found = (each for each in self.mobius.log.splitlines() if id in each)
        line: dict[str, Any] = json.loads(next(found, "{}"))
        return line

    def generate(self, model: str, **more: Any) -> httpx.Response:
        return self.post("/ai/generate", {"messages": HI, "model": model, **more})

    def stream(self, model: str, **more: Any) -> httpx.Response:
        return self.post("/ai/stream", {"messages": HI, "model": model, **more})


def both(name: str, openai: str, anthropic: str, **params: Any) -> list[dict[str, Any]]:
    """One group, two providers."""
    return [
        target(f"openai/{name}", openai, name=name, **params),
        target(f"anthropic/{name}", anthropic, name=name, **params),
    ]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with FakeOpenAI() as openai, FakeAnthropic() as anthropic, closed_port() as port:
        bases = (openai.base_url, anthropic.base_url)
        quick: dict[str, Any] = {"timeout": 0.3}
        nowhere = f"http://127.0.0.1:{port}/v1"
        config = {
            "model_list": [
                *(each for name in RINGS for each in both(name, *bases)),
                *(each for name in KINDS for each in both(name, *bases, **quick)),
                *both("nowhere", nowhere, nowhere),
                target("openai/refused", openai.base_url, name="refused"),
            ],
            "router_settings": {"routing_strategy": "health-based", "num_retries": 0},
            "litellm_settings": {"cache": True, "cache_params": {"mode": "default_off"}},
            "mobius": {
                "laps": 1,
                "keys": [
                    key("web"),
                    key("counted", limits={"rpm": 1}),
                    key("narrow", models=["kept"]),
                ],
            },
        }
        with Mobius(config, secrets=[secret("web"), "sk-of-a-fake"]) as mobius:
            yield Place(mobius, openai, anthropic)


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of each event; AssertionError where there is anything else but comments."""
    frames = [f for f in response.text.split("\n\n") if f and not f.startswith(":")]
    assert response.text.endswith("\n\n")
    assert all(frame.startswith("data: {") and "\n" not in frame for frame in frames)
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


def line(delta: str, kind: str, finish: str | None, provider: str = "openai") -> dict[str, Any]:
    return {"delta": delta, "type": kind, "provider": provider, "finish_reason": finish}


def test_a_bare_list_is_answered_with_one_flat_object(place: Place) -> None:
    response = place.post("/ai/generate")
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert set(answer) == {
        *("content", "provider", "model", "usage", "latency", "request_id", "finish_reason"),
    }
    assert (answer["content"], answer["provider"], answer["model"]) == (SAID, "openai", "chat")
    assert (answer["usage"]["completion_tokens"], answer["finish_reason"]) == (5, "completed")
    assert 0 < answer["latency"] < 60
    assert answer["request_id"] == response.headers["x-request-id"]
    assert response.headers["x-mobius-target"] == "chat/openai/chat"
    assert response.headers["x-mobius-attempts"] == "chat/openai/chat:200"
    sent = place.openai.journal.requests("chat")[-1].json
    assert sent == {
        "messages": HI,
        "model": "chat",
        "max_tokens": 1000,
        "temperature": 0.7,
        "stream": False,
    }


def test_the_query_and_the_object_say_how_it_is_asked(place: Place) -> None:
    assert place.post("/ai/generate", max_tokens=7, temperature=0).status_code == 200
    sent = place.openai.journal.requests("chat")[-1].json
    assert (sent["max_tokens"], sent["temperature"]) == (7, 0)
    asked = place.generate("in-order", max_tokens=8, temperature=1, seed=3)
    assert asked.headers["x-mobius-target"] == "in-order/openai/in-order"
    sent = place.openai.journal.requests("in-order")[-1].json
    assert (sent["max_tokens"], sent["temperature"], sent["seed"]) == (8, 1, 3)


def test_a_stream_is_lines_of_four_fields_and_nothing_else(place: Place) -> None:
    response = place.post("/ai/stream", max_tokens=7)
    assert response.status_code == 200
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.headers["x-mobius-target"] == "chat/openai/chat"
    *deltas, last = lines(response)
    assert deltas == [line(f"t{number} ", "content.delta", None) for number in range(5)]
    assert last == line("", "content.done", "completed")
    assert response.text.startswith(
        'data: {"delta":"t0 ","type":"content.delta","provider":"openai","finish_reason":null}\n\n'
    )
    assert place.openai.journal.requests("chat")[-1].json["stream"] is True


def test_the_provider_that_answered_is_named_after_a_fallback(place: Place) -> None:
    place.openai.always(Fails(status=500), model="falls")
    answer = place.generate("falls").json()
    assert (answer["content"], answer["provider"]) == (SAID, "anthropic")
    response = place.stream("falls")
    *deltas, last = lines(response)
    assert "".join(each["delta"] for each in deltas) == SAID
    assert {each["provider"] for each in deltas} == {"anthropic"}
    assert last == line("", "content.done", "completed", "anthropic")
    assert place.anthropic.journal.requests("falls")[-1].json["max_tokens"] == 1000


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_an_answer_that_was_cut_says_so(place: Place, finish: str) -> None:
    place.openai.script(Answer(finish=finish), Answer(finish=finish), model="chat")
    assert place.generate("chat").json()["finish_reason"] == finish
    assert lines(place.stream("chat"))[-1] == line("", "content.done", finish)


def test_calls_of_tools_and_thoughts_stand_beside_the_content(place: Place) -> None:
    step = Answer(tool_calls=(ToolCall("look", '{"a": 1}'),), reasoning="hm")
    place.openai.script(step, step, model="tools")
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    answer = place.generate("tools", tools=tools).json()
    (call,) = answer["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == ("look", '{"a": 1}')
    assert (answer["content"], answer["finish_reason"]) == ("", "tool_calls")
    assert answer["reasoning"] == "hm"
    found = lines(place.stream("tools", tools=tools))
    assert "".join(each["delta"] for each in found) == ""
    assert {each["type"] for each in found} == {
        *("reasoning.delta", "tool_calls.delta", "content.done"),
    }
    pieces = [c["function"] for each in found for c in each.get("tool_calls", ())]
    assert "".join(piece.get("arguments") or "" for piece in pieces) == '{"a": 1}'
    assert found[-1]["finish_reason"] == "tool_calls"


def test_a_stream_that_breaks_ends_with_an_error(place: Place) -> None:
    place.openai.script(Breaks(after_tokens=2, how="eof"), model="breaks")
    response = place.stream("breaks")
    *deltas, last = lines(response)
    assert "".join(each["delta"] for each in deltas) == said(2)
    assert list(last) == ["error"]
    assert isinstance(last["error"], str)


@pytest.mark.parametrize("kind", KINDS)
def test_all_providers_failing_is_a_503_whatever_it_is_they_fail_with(
    place: Place, kind: str
) -> None:
    step, code = KINDS[kind]
    place.openai.always(step, model=kind)
    place.anthropic.always(step, model=kind)
    for response in (place.generate(kind), place.stream(kind)):
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (503, code), error
        assert set(error) == {"message", "type", "param", "code"}
        assert response.headers["content-type"] == "application/json"
        assert "sk-of-a-fake" not in response.text
        logged = wait_until(lambda r=response: place.logged(r))  # type: ignore[misc]
        assert (logged["surface"], logged["status"], logged["outcome"]) == ("ai", 503, code)


def test_no_provider_within_reach_is_a_503(place: Place) -> None:
    response = place.generate("nowhere")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_target_available")
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-should-retry"] == "false"


def test_a_request_that_the_provider_refuses_is_the_callers_own_fault(place: Place) -> None:
    body = {"error": {"message": "no such role", "type": "invalid_request_error", "code": "role"}}
    place.openai.always(Fails(status=400, body=body), model="refused")
    response = place.generate("refused")
    assert (response.status_code, response.json()["error"]["message"]) == (400, "no such role")


def test_a_client_that_leaves_takes_its_call_with_it(place: Place) -> None:
    gate = Gate()
    place.openai.script(Answer(tokens=50, gate=gate, gate_after_tokens=2), model="leaves")
    body = {"messages": HI, "model": "leaves"}
    headers = {"authorization": f"Bearer {secret('web')}"}
    with (
        httpx.Client(base_url=place.mobius.url, trust_env=False) as client,
        client.stream("POST", "/ai/stream", json=body, headers=headers) as response,
    ):
        assert next(response.iter_lines()).startswith("data: {")
    entry = wait_until(
        lambda: next((e for e in place.openai.journal.requests("leaves") if e.over), None)
    )
    gate.open()
    assert entry is not None
    assert (entry.closed_by, entry.finished) == ("client", False)

    def cancelled() -> bool:
        name = "mobius_request_seconds_count"
        return total(place.mobius.metrics(), name, surface="ai", outcome="cancelled") == 1

    wait_until(cancelled)


def test_a_limit_of_the_callers_own_is_a_429(place: Place) -> None:
    assert place.post("/ai/generate", name="counted").status_code == 200
    for path in ("/ai/generate", "/ai/stream"):
        response = place.post(path, name="counted")
        assert (response.status_code, response.json()["error"]["code"]) == (
            *(429, "rate_limit_exceeded"),
        )
        assert 0 < int(response.headers["retry-after"]) <= 60
        assert response.headers["x-ratelimit-limit-requests"] == "1"


def test_an_answer_that_is_kept_is_given_again_in_either_form(place: Place) -> None:
    place.openai.always(Fails(status=500), model="kept")
    cached = {"cache": {"use-cache": True}}
    first = place.generate("kept", **cached)
    again = place.generate("kept", **cached)
    assert (first.headers["x-mobius-cache"], again.headers["x-mobius-cache"]) == ("miss", "hit")
    assert {first.json()["provider"], again.json()["provider"]} == {"anthropic"}
    assert again.json()["content"] == SAID
    assert again.json()["request_id"] != first.json()["request_id"]
    streamed = place.stream("kept", **cached)
    *deltas, last = lines(streamed)
    assert streamed.headers["x-mobius-cache"] == "hit"
    assert "".join(each["delta"] for each in deltas) == SAID
    assert last == line("", "content.done", "completed", "anthropic")
    # It is the answer to a chat, in whatever form that is asked for.
    chat = {"messages": HI, "model": "kept", "max_tokens": 1000, "temperature": 0.7, **cached}
    whole = place.post("/v1/chat/completions", chat)
    assert whole.headers["x-mobius-cache"] == "hit"
    assert whole.json()["choices"][0]["message"]["content"] == SAID
    assert len(place.anthropic.journal.requests("kept")) == 1


@pytest.mark.parametrize("path", ["/ai/generate", "/ai/stream"])
@pytest.mark.parametrize(
    ("body", "query", "param"),
    [
        ([], {}, "messages"),
        ({"messages": "hi"}, {}, "messages"),
        (["hi"], {}, "messages[0]"),
        ([{"content": "hi"}], {}, "messages[0].role"),
        (HI, {"max_tokens": -1}, "max_tokens"),
        (HI, {"temperature": "warm"}, "temperature"),
        ({"messages": HI, "max_tokens": "7"}, {}, "max_tokens"),
        ({"messages": HI, "temperature": 3}, {}, "temperature"),
        ({"messages": HI, "model": 3}, {}, "model"),
    ],
)
def test_a_request_of_another_form_is_a_400_that_names_the_field(
    place: Place, path: str, body: object, query: dict[str, Any], param: str
) -> None:
    response = place.post(path, body, **query)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param)
    assert (error["type"], f"`{param}`" in error["message"]) == ("invalid_request_error", True)


def test_a_key_opens_what_it_may_use(place: Place) -> None:
    assert place.post("/ai/generate", name="nobody").status_code == 401
    refused = place.post("/ai/generate", name="narrow")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert place.generate("invented").status_code == 404


def test_each_provider_is_told_of_with_how_fast_it_answers(place: Place) -> None:
    headers = {"authorization": f"Bearer {secret('web')}"}
    assert place.generate("chat").status_code == 200
    found = place.mobius.http.get("/ai/providers/health", headers=headers).json()
    assert set(found) == {"providers", "targets"}
    assert found["providers"]["openai"]["healthy"] is True
    assert 0 < found["providers"]["openai"]["latency"] < 60
    assert set(found["providers"]) == {"openai", "anthropic"}
    assert found["targets"]["chat/openai/chat"]["healthy"] is True
    resting = found["targets"]["nowhere/openai/nowhere"]
    assert resting["provider"] == "openai"
    assert place.mobius.http.get("/ai/providers/health").status_code == 401


def test_requests_are_counted_as_those_of_this_surface(place: Place) -> None:
    def counted(stream: str) -> float:
        labels = {"surface": "ai", "model": "in-order", "provider": "openai", "outcome": "ok"}
        samples = place.mobius.metrics()
        return total(samples, "mobius_request_seconds_count", stream=stream, **labels)

    before = counted("true")
    assert place.stream("in-order").status_code == 200
    wait_until(lambda: counted("true") == before + 1)


def test_what_goes_in_and_out_is_as_it_is_described(place: Place) -> None:
    described = place.mobius.http.get("/openapi.json").json()

    def check(name: str, value: object) -> None:
        schema = {**described, "$ref": f"#/components/schemas/{name}"}
        Draft202012Validator(schema).validate(value)

    check("AiRequest", HI)
    check("AiRequest", {"messages": HI, "max_tokens": None, "user": "u"})
    step = Answer(tool_calls=(ToolCall("look"),), reasoning="hm", refusal="no")
    place.openai.script(step, step, model="tools")
    for model in ("chat", "tools"):
        check("AiAnswer", place.generate(model).json())
        for each in lines(place.stream(model)):
            check("AiLine", each)
    check("AiLine", {"error": "x"})
    headers = {"authorization": f"Bearer {secret('web')}"}
    found = place.mobius.http.get("/ai/providers/health", headers=headers).json()
    check("ProvidersHealth", found)
    for address in ("/ai/generate", "/ai/stream"):
        responses = described["paths"][address]["post"]["responses"]
        assert {"200", "400", "401", "403", "404", "429", "503"} <= set(responses)
    check("Error", place.post("/ai/generate", []).json())


def test_a_file_without_that_model_says_which_setting_to_change() -> None:
    mock = {"model": "openai/x", "mock_response": "mocked"}
    models = [{"model_name": "only", "litellm_params": mock}]
    with Mobius({"model_list": models}) as mobius:
        response = mobius.http.post("/ai/generate", json=HI)
        assert response.status_code == 404
        assert "set `mobius.ai.model`" in response.json()["error"]["message"]
        mobius.edit({"model_list": models, "mobius": {"ai": {"model": "only"}}})
        answer = wait_until(
            lambda: (
                r.json() if (r := mobius.http.post("/ai/generate", json=HI)).is_success else None
            )
        )
        assert answer is not None
        assert (answer["content"], answer["provider"]) == ("mocked", "openai")
        health = mobius.http.get("/ai/providers/health").json()
        assert health["providers"]["openai"]["healthy"] is True
    wrong = {"model_list": models, "mobius": {"ai": {"model": "onyl"}}}
    done = mobius_command("check", config=wrong)
    assert done.returncode == 1
    assert "mobius.ai.model: there is no model onyl; the nearest name is only" in done.stderr
