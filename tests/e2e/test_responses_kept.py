"""Responses that a provider keeps: gone on from, read and deleted where they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response

from tests.harness import Mobius
from tests.harness.redis_server import RedisServer, redis_server
from tests.providers import Answer, Fails, FakeAnthropic, FakeOpenAI, ToolCall

pytestmark = [pytest.mark.e2e, pytest.mark.redis]

KEYS = {
    name: f"sk-{name}-of-the-kept-ones"
    for name in ("web", "other", "ann", "ben", "later", "master")
}
TEAM = {"team": "writers", "cache_scope": "team"}
ABOUT = {"ann": TEAM, "ben": TEAM}
SAID = "t0 t1 t2 t3 t4 "
TOOL: Any = {
    "type": "function",
    "name": "look",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}
NOT_FOUND = {
    "error": {
        "message": "Previous response with id 'resp_old' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
}


@dataclass(frozen=True)
class Place:
    mobius: Mobius
    replica: Mobius
    first: FakeOpenAI
    second: FakeOpenAI
    claude: FakeAnthropic

    def client(self, key: str = "web", *, replica: bool = False) -> OpenAI:
        return (self.replica if replica else self.mobius).openai(KEYS[key])

    @property
    def others(self) -> int:
        """How often anybody but the second was asked."""
        return len(self.first.journal) + len(self.claude.journal)

    def forget(self) -> None:
        for fake in (self.first, self.second, self.claude):
            fake.journal.clear()


def _config(redis: RedisServer | None, *fakes: FakeOpenAI | FakeAnthropic) -> dict[str, Any]:
    def entry(name: str, model: str, fake: FakeOpenAI | FakeAnthropic) -> dict[str, Any]:
        place = {"model": model, "api_base": fake.base_url, "api_key": "sk-provider-1234"}
        return {"model_name": name, "litellm_params": place}

    first, second, *others = fakes
    shared = {"redis_url": redis.url} if redis else {}
    return {
        "model_list": [
            # In turns: without knowing whose it is, every second continuation would go astray.
            entry("m", "openai/gpt-first", first),
            entry("m", "openai/gpt-second", second),
            entry("falls", "openai/gpt-first", first),
            *(entry("claude", "anthropic/claude-sonnet-4-5", claude) for claude in others),
            entry("spare", "openai/gpt-second", second),
        ],
        "router_settings": {
            "num_retries": 0,
            "routing_strategy": "round-robin",
            "fallbacks": [{"falls": [*(["claude"] if others else []), "spare"]}],
            **shared,
        },
        "general_settings": {"master_key": KEYS["master"]},
        "mobius": {
            "laps": 1,
            "breaker": {"failures": 1000, "min_calls": 1000},
            "keys": [
                {"name": name, "key": key, **ABOUT.get(name, {})}
                for name, key in KEYS.items()
                if name != "master"
            ],
        },
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    secrets = tuple(KEYS.values())
    with (
        redis_server() as redis,
        FakeOpenAI() as first,
        FakeOpenAI() as second,
        FakeAnthropic() as claude,
        Mobius(_config(redis, first, second, claude), secrets=secrets) as mobius,
        Mobius(_config(redis, first, second, claude), secrets=secrets) as replica,
    ):
        yield Place(mobius, replica, first, second, claude)


@pytest.fixture
def place(running: Place) -> Place:
    for fake in (running.first, running.second, running.claude):
        fake.reset_script()
    running.forget()
    return running


def made_by_the_spare(place: Place, *, stream: bool = False, **asked: Any) -> str:
    """The id of a response that the second account made, because the others could not."""
    place.first.script(Fails(503))
    place.claude.script(Fails(529))
    response = _ask(place.client(), "falls", stream=stream, input="hello", **asked)
    assert response.model == "gpt-second"
    place.forget()
    return response.id


def _ask(client: OpenAI, model: str, *, stream: bool = False, **asked: Any) -> Response:
    if not stream:
        found: Response = client.responses.create(model=model, **asked)
        return found
    with client.responses.stream(model=model, **asked) as events:
        return events.get_final_response()


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
@pytest.mark.parametrize("replica", [False, True], ids=["here", "at another replica"])
def test_what_goes_on_is_asked_where_it_began(place: Place, stream: bool, replica: bool) -> None:
    id = made_by_the_spare(place, stream=stream)
    client = place.client(replica=replica)
    for _ in range(2):
        found = _ask(client, "falls", stream=stream, input="and?", previous_response_id=id)
        assert found.output_text == SAID
        assert place.second.journal.last.json["previous_response_id"] == id
    # Any model of the same account knows it.
    _ask(client, "spare", input="and?", previous_response_id=id)
    assert place.others == 0


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
def test_a_loop_of_tools_stays_with_the_one_of_two_that_began_it(
    place: Place, stream: bool
) -> None:
    """As an agent does: each turn sends the last id and what the tool has answered."""
    client, whose = place.client(), []
    for _ in range(4):
        for fake in (place.first, place.second):
            fake.script(Answer(tool_calls=(ToolCall("look"),)), Answer(), Answer())
        place.forget()
        asked: dict[str, Any] = {"stream": stream, "tools": [TOOL]}
        first = _ask(client, "m", input="look", **asked)
        (call,) = [item for item in first.output if item.type == "function_call"]
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "seen"}
        then = _ask(client, "m", input=[result], previous_response_id=first.id, **asked)
        last = _ask(client, "m", input="thanks", previous_response_id=then.id, **asked)
        assert (then.output_text, last.output_text) == (SAID, SAID)
        (fake,) = [each for each in (place.first, place.second) if len(each.journal)]
        sent = [entry.json.get("previous_response_id") for entry in fake.journal.requests()]
        assert sent == [None, first.id, then.id]
        whose.append(fake)
        for each in (place.first, place.second):
            each.reset_script()
    assert {*whose} == {place.first, place.second}


def test_it_is_known_after_a_restart_without_a_redis() -> None:
    with FakeOpenAI() as first, FakeOpenAI() as second:
        config = _config(None, first, second)
        with Mobius(config, secrets=tuple(KEYS.values())) as mobius:
            web, other = mobius.openai(KEYS["web"]), mobius.openai(KEYS["other"])
            first.script(Fails(503), Fails(503))
            ids = [_ask(web, "falls", stream=stream, input="hello").id for stream in (False, True)]
            first.journal.clear()
            mobius.kill()
            mobius.start()
            for id in ids:
                _ask(web, "falls", input="and?", previous_response_id=id)
                assert second.journal.last.json["previous_response_id"] == id
            with pytest.raises(openai.BadRequestError):
                _ask(other, "falls", input="and?", previous_response_id=ids[0])
            assert len(first.journal) == 0


def test_an_account_that_fails_has_no_stand_in_and_the_error_says_why(place: Place) -> None:
    id = made_by_the_spare(place)
    place.second.always(Fails(500))
    with pytest.raises(openai.InternalServerError, match=r"spare/openai/gpt-second .* no other"):
        _ask(place.client(), "falls", input="go on", previous_response_id=id)
    # What the provider itself says of the id is told, and nobody else is asked.
    place.second.always(Fails(400, body=NOT_FOUND))
    with pytest.raises(openai.BadRequestError) as found:
        _ask(place.client(), "falls", input="go on", previous_response_id=id)
    assert found.value.code == "previous_response_not_found"
    assert place.others == 0


def test_a_model_without_that_account_is_not_asked(place: Place) -> None:
    id = made_by_the_spare(place)
    with pytest.raises(openai.BadRequestError, match="spare/openai/gpt-second") as found:
        _ask(place.client(), "claude", input="go on", previous_response_id=id)
    assert found.value.code == "previous_response_not_found"
    assert place.others == 0


def test_nobody_goes_on_from_or_reads_somebody_else_s(place: Place) -> None:
    id = made_by_the_spare(place)
    for replica in (False, True):
        client = place.client("other", replica=replica)
        with pytest.raises(openai.BadRequestError) as found:
            _ask(client, "m", input="what was said?", previous_response_id=id)
        assert found.value.code == "previous_response_not_found"
        for act in (client.responses.retrieve, client.responses.delete, client.responses.cancel):
            with pytest.raises(openai.NotFoundError):
                act(id)
        with pytest.raises(openai.NotFoundError):
            client.responses.input_items.list(id)
    assert place.others + len(place.second.journal) == 0
    assert place.client().responses.retrieve(id).id == id


def test_a_team_that_shares_what_is_kept_goes_on_together(place: Place) -> None:
    place.first.script(Fails(503))
    place.claude.script(Fails(529))
    id = _ask(place.client("ann"), "falls", input="hello").id
    place.forget()
    _ask(place.client("ben"), "falls", input="and then?", previous_response_id=id)
    assert place.second.journal.last.json["previous_response_id"] == id
    with pytest.raises(openai.BadRequestError):
        _ask(place.client(), "falls", input="and then?", previous_response_id=id)
    assert place.others == 0


def test_one_that_nobody_remembers_is_asked_for_at_each_account(place: Place) -> None:
    place.first.script(Fails(400, body=NOT_FOUND))
    asked: dict[str, Any] = {"input": "go on", "previous_response_id": "resp_old"}
    assert _ask(place.client(), "falls", **asked).model == "gpt-second"
    assert len(place.claude.journal) == 0
    # What another account does not know is no fault of it: it is asked next time as well.
    assert _ask(place.client(), "falls", input="hello").model == "gpt-first"
    for fake in (place.first, place.second):
        fake.script(Fails(400, body=NOT_FOUND))
    with pytest.raises(openai.BadRequestError) as found:
        _ask(place.client(), "falls", **asked)
    assert found.value.code == "previous_response_not_found"


def test_a_conversation_is_asked_where_it_is_once_it_is_known(place: Place) -> None:
    gone = {"error": {"message": "Conversation with id 'conv_1' not found.", "type": "x"}}
    gone["error"]["type"] = "invalid_request_error"
    place.first.script(Fails(404, body=gone))
    body = b'{"id": "resp_c", "object": "response", "status": "completed", "output": [], '
    place.second.script(Answer(raw_body=body + b'"model": "x", "conversation": {"id": "conv_1"}}'))
    asked: dict[str, Any] = {"input": "hello", "conversation": "conv_1"}
    _ask(place.client(), "falls", **asked)
    assert len(place.first.journal) == 1
    place.forget()
    _ask(place.client(replica=True), "falls", **asked)
    assert place.others == 0
    with pytest.raises(openai.NotFoundError):
        _ask(place.client("other"), "falls", **asked)


def test_an_item_is_asked_for_where_it_is(place: Place) -> None:
    """As Vercel's AI SDK goes on: by references to what the last response held."""
    place.first.script(Fails(503))
    place.claude.script(Fails(529))
    item = _ask(place.client(), "falls", stream=True, input="hello").output[0]
    place.forget()
    conversation: Any = [
        {"role": "user", "content": "hello"},
        {"type": "item_reference", "id": item.id},
        {"role": "user", "content": "and?"},
    ]
    _ask(place.client(replica=True), "falls", input=conversation)
    assert place.second.journal.last.json["input"] == conversation
    with pytest.raises(openai.NotFoundError):
        _ask(place.client(), "claude", input=conversation)
    assert place.others == 0


@pytest.mark.parametrize("replica", [False, True], ids=["here", "at another replica"])
def test_a_response_is_read_listed_cancelled_and_deleted(place: Place, replica: bool) -> None:
    id = made_by_the_spare(place)
    responses = place.client(replica=replica).responses
    found = responses.retrieve(id, include=["reasoning.encrypted_content"])
    assert (found.id, found.output_text) == (id, SAID)
    asked = place.second.journal.last
    assert (asked.method, asked.path) == ("GET", f"/v1/responses/{id}")
    assert "reasoning.encrypted_content" in asked.query.values()
    assert (asked.body, asked.headers["authorization"]) == (b"", "Bearer sk-provider-1234")
    listed = responses.input_items.list(id, limit=3, order="asc")
    assert [item.id for item in listed] == [f"in_{id}"]
    assert place.second.journal.last.query == {"limit": "3", "order": "asc"}
    assert responses.cancel(id).status == "cancelled"
    assert place.second.journal.last.path == f"/v1/responses/{id}/cancel"
    responses.delete(id)
    assert place.second.journal.last.method == "DELETE"
    before = len(place.second.journal)
    with pytest.raises(openai.NotFoundError) as gone:
        responses.retrieve(id)
    assert gone.value.code == "response_not_found"
    assert (len(place.second.journal), place.others) == (before, 0)


def test_a_response_in_background_is_asked_after_where_it_runs(place: Place) -> None:
    place.first.script(Fails(503))
    place.claude.script(Fails(529))
    body = b'{"id": "resp_later", "object": "response", "status": "queued", "output": []}'
    place.second.script(Answer(raw_body=body))
    responses = place.client("later").responses
    asked = responses.create(model="falls", input="hello", background=True, max_output_tokens=1000)
    assert asked.status == "queued"
    # What it will come to is not known yet: it counts as all that it may come to.
    query = "/admin/usage?group_by=key"
    master = {"authorization": f"Bearer {KEYS['master']}"}
    rows = place.mobius.http.get(query, headers=master).json()["rows"]
    (row,) = [row for row in rows if row["key"] == "later"]
    assert (row["completion_tokens"], row["estimated"]) == (1000, 1)
    assert responses.retrieve("resp_later").status == "completed"
    assert responses.cancel("resp_later").status == "cancelled"
    assert place.mobius.http.get(query, headers=master).json()["rows"] == rows


def test_what_the_provider_says_of_a_kept_response_is_told(place: Place) -> None:
    id = made_by_the_spare(place)
    responses = place.client().responses
    for status, error in (
        (404, openai.NotFoundError),
        (400, openai.BadRequestError),
        (401, openai.InternalServerError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ):
        place.second.script(Fails(status), model="responses")
        with pytest.raises(error) as found:
            responses.retrieve(id)
        assert "sk-provider" not in str(found.value)
    assert responses.retrieve(id).id == id


def test_a_stream_that_was_left_is_followed_from_where_it_was(place: Place) -> None:
    id = made_by_the_spare(place)
    response = b'{"id": "resp_x", "object": "response", "status": "completed", "output": []}'
    rest = [
        b'{"type": "response.output_text.delta", "sequence_number": 8, "delta": "so"}',
        b'{"type": "response.completed", "sequence_number": 9, "response": %s}' % response,
    ]
    raw = b"".join(b"data: %s\n\n" % each for each in rest)
    step = Answer(raw_body=raw, content_type="text/event-stream")
    place.second.script(step, replace(step, raw_body=raw[: len(rest[0]) + 8]), model="responses")
    responses = place.client(replica=True).responses
    events = list(responses.retrieve(id, stream=True, starting_after=7))
    assert [event.sequence_number for event in events] == [8, 9]
    asked = place.second.journal.last
    assert (asked.query["stream"], asked.query["starting_after"]) == ("true", "7")
    with pytest.raises(openai.APIError):
        list(responses.retrieve(id, stream=True, starting_after=7))
    with pytest.raises(openai.NotFoundError):
        list(place.client("other").responses.retrieve(id, stream=True))


def test_one_that_is_not_to_be_kept_is_not_remembered(place: Place) -> None:
    id = made_by_the_spare(place, store=False)
    with pytest.raises(openai.NotFoundError):
        place.client().responses.retrieve(id)
    # Its provider has the last word, whoever asks.
    _ask(place.client("other"), "spare", input="go on", previous_response_id=id)
    assert place.second.journal.last.json["previous_response_id"] == id


def test_without_a_model_in_its_file_a_response_is_gone(place: Place) -> None:
    id = made_by_the_spare(place)
    with pytest.raises(openai.NotFoundError):
        place.client().responses.retrieve("resp_of_nobody")
    for path in (f"/v1/responses/{id}/nothing", "/v1/responses/.."):
        found = place.mobius.http.get(path, headers={"authorization": f"Bearer {KEYS['web']}"})
        assert found.status_code == 404, path
