"""OpenAI's Responses through the official SDK, to providers that have them and that have not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types.responses import Response

from tests.harness import Mobius
from tests.providers import (
    Answer,
    Breaks,
    Fails,
    FakeAnthropic,
    FakeOpenAI,
    ToolCall,
    Usage,
    openai_errors,
)

pytestmark = pytest.mark.e2e

KEY = "sk-web-of-the-responses"
SAID = "t0 t1 t2 t3 t4 "
TOOL: Any = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {"a": {"type": "string"}}},
    "strict": False,
}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    native: FakeOpenAI
    anthropic: FakeAnthropic
    chats: FakeOpenAI  # a server of OpenAI's format that has no Responses

    def fake(self, model: str) -> FakeOpenAI | FakeAnthropic:
        if model == "claude":
            return self.anthropic
        return self.chats if model == "old" else self.native

    @property
    def client(self) -> openai.OpenAI:
        return self.mobius.openai(KEY)


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as one, FakeAnthropic() as other, FakeOpenAI(lacks=("responses",)) as chats:

        def entry(name: str, model: str, base: str, **params: Any) -> dict[str, Any]:
            place = {"api_base": base, "api_key": "sk-provider-1234"}
            return {"model_name": name, "litellm_params": {"model": model, **place, **params}}

        config = {
            "model_list": [
                entry("m", "openai/first", one.base_url, temperature=0.5, max_tokens=9, n=1),
                entry("claude", "anthropic/claude-sonnet-4-5", other.base_url),
                entry("far", "openai/far", one.base_url),
                entry("groq", "groq/llama", one.base_url),
                entry("old", "openai/old", chats.base_url),
                entry("found-out", "openai/found-out", chats.base_url),
                {
                    **entry("stated", "openai/stated", chats.base_url),
                    "model_info": {"supported_endpoints": ["/v1/chat/completions"]},
                },
                entry("nothing", "openai/nothing", one.base_url.removesuffix("/v1") + "/else"),
            ],
            "router_settings": {"num_retries": 0, "fallbacks": [{"m": ["claude"]}]},
            "mobius": {
                "laps": 1,
                "keys": [{"name": "web", "key": KEY}],
                "breaker": {"failures": 1000, "min_calls": 1000},
            },
        }
        with Mobius(config, secrets=(KEY,)) as mobius:
            yield Place(mobius, one, other, chats)


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.native, running.anthropic, running.chats):
        fake.reset_script()
        fake.journal.clear()
    return running


def test_a_response_reaches_its_provider_as_it_was_sent(place: Place) -> None:
    asked: dict[str, Any] = {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}],
        "instructions": "be brief",
        "tools": [TOOL],
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "text"}},
        "max_output_tokens": 50,
        "include": ["reasoning.encrypted_content"],
        "store": False,
    }
    found = place.client.responses.create(model="m", **asked)
    assert (found.output_text, found.model) == (SAID, "first")
    sent = place.native.journal.last
    # Of what the file says for chats only what means the same here.
    assert sent.json == {**asked, "model": "first", "temperature": 0.5}
    assert sent.path == "/v1/responses"


@pytest.mark.parametrize("model", ["m", "claude", "old"])
def test_the_events_of_a_stream_come_in_openai_s_order(place: Place, model: str) -> None:
    stream = place.client.responses.create(model=model, input="hi", stream=True)
    events = list(stream)
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == SAID
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == SAID
    assert last.response.usage is not None
    assert kinds.index("response.output_item.added") < kinds.index("response.output_text.delta")


@pytest.mark.parametrize("model", ["m", "claude", "old"])
def test_the_sdk_s_own_reading_of_a_stream_ends_with_the_response(place: Place, model: str) -> None:
    with place.client.responses.stream(model=model, input="hi") as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.output_text == SAID


@pytest.mark.parametrize("model", ["m", "claude", "old"])
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_loop_of_tools_loses_nothing(place: Place, model: str, stream: bool) -> None:
    fake = place.fake(model)
    fake.script(Answer(tool_calls=(ToolCall("look", '{"a": "b"}'),)), Answer())
    conversation: list[Any] = [{"role": "user", "content": "hi"}]
    first = _ask(place, model, conversation, stream)
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, call.arguments.replace(" ", "")) == ("look", '{"a":"b"}')
    conversation += [item.model_dump(exclude_none=True) for item in first.output]
    conversation.append(
        {"type": "function_call_output", "call_id": call.call_id, "output": "seen it"}
    )
    assert _ask(place, model, conversation, stream).output_text == SAID
    sent = str(fake.journal.last.json)
    assert "seen it" in sent
    assert call.call_id in sent


def _ask(place: Place, model: str, conversation: list[Any], stream: bool) -> Response:
    if not stream:
        return place.client.responses.create(model=model, input=conversation, tools=[TOOL])
    with place.client.responses.stream(model=model, input=conversation, tools=[TOOL]) as events:
        return events.get_final_response()


def test_another_provider_answers_when_the_first_fails(place: Place) -> None:
    place.native.script(Fails(500), Fails(503))
    found = place.client.responses.create(model="m", input="hi")
    assert found.output_text == SAID
    stream = place.client.responses.create(model="m", input="hi", stream=True)
    assert [e.type for e in stream][-1] == "response.completed"
    assert len(place.anthropic.journal) == 2


@pytest.mark.parametrize("model", ["far", "claude", "old", "groq"])
@pytest.mark.parametrize("how", ["ends", "reset", "error_event", "malformed"])
def test_a_stream_that_breaks_is_never_cut_silently(place: Place, model: str, how: Any) -> None:
    fake = place.fake(model)
    fake.script(Breaks(2, how=how))
    stream = place.client.responses.create(model=model, input="hi", stream=True)
    with pytest.raises(openai.APIError):
        list(stream)


def test_a_server_without_responses_answers_by_its_chats(place: Place) -> None:
    asked: dict[str, Any] = {"instructions": "be brief", "input": "hi", "max_output_tokens": 50}
    answers = [place.client.responses.create(model="found-out", **asked) for _ in range(2)]
    for found in answers:
        assert (found.output_text, found.model) == (SAID, "found-out")
        # What nobody keeps is not said to be kept.
        assert found.model_extra is not None
        assert found.model_extra.get("store") is False
    # It is looked for once.
    paths = [entry.path for entry in place.chats.journal.requests()]
    assert paths == ["/v1/responses", "/v1/chat/completions", "/v1/chat/completions"]
    sent = place.chats.journal.last.json
    assert [message["content"] for message in sent["messages"]] == ["be brief", "hi"]
    with pytest.raises(openai.NotFoundError):
        place.client.responses.retrieve(answers[0].id)
    for kept in ({"previous_response_id": answers[0].id}, {"conversation": "conv_1"}):
        with pytest.raises(openai.BadRequestError, match="does not keep"):
            place.client.responses.create(model="found-out", input="and?", **kept)
    with pytest.raises(openai.BadRequestError):
        place.client.responses.create(model="found-out", input="hi", background=True)
    reference: Any = [{"type": "item_reference", "id": "msg_1"}]
    with pytest.raises(openai.BadRequestError, match="item_reference"):
        place.client.responses.create(model="found-out", input=reference)


def test_what_the_file_says_of_it_is_not_looked_for(place: Place) -> None:
    assert place.client.responses.create(model="stated", input="hi").output_text == SAID
    assert [e.path for e in place.chats.journal.requests()] == ["/v1/chat/completions"]
    with pytest.raises(openai.BadRequestError, match="no target of 'stated' keeps anything"):
        place.client.responses.create(model="stated", previous_response_id="resp_1")
    assert len(place.chats.journal) == 1


def test_where_there_is_nothing_at_all_that_is_an_error(place: Place) -> None:
    with pytest.raises(openai.APIStatusError) as found:
        place.client.responses.create(model="nothing", input="hi")
    assert found.value.status_code in (404, 503)


def test_what_the_provider_refuses_is_told(place: Place) -> None:
    place.native.script(Fails(400, body=openai_errors.envelope(400, model="first")))
    with pytest.raises(openai.BadRequestError):
        place.client.responses.create(model="far", input="hi")
    with pytest.raises(openai.BadRequestError) as refused:
        place.client.responses.create(model="far", input=[])
    assert refused.value.param == "input"


def test_it_is_charged_with_what_the_provider_counted(place: Place) -> None:
    place.native.always(Answer(usage=Usage(70, 30, cached=20, reasoning=10)))
    raw = place.client.responses.with_raw_response.create(model="far", input="hi")
    assert raw.headers["x-mobius-target"] == "far/openai/far"
    before = _tokens(place)
    list(place.client.responses.create(model="far", input="hi", stream=True))
    after = _tokens(place)
    spent = {kind: after[kind] - before.get(kind, 0.0) for kind in after}
    assert {kind: n for kind, n in spent.items() if n} == {
        "prompt": 50, "prompt_cached": 20, "completion": 20, "reasoning": 10
    }  # fmt: skip


def _tokens(place: Place) -> dict[str, float]:
    found: dict[str, float] = {}
    for (name, labels), value in place.mobius.metrics().items():
        said = dict(labels)
        if name == "mobius_tokens_total" and said["model"] == "far":
            found[said["kind"]] = found.get(said["kind"], 0.0) + value
    return found
