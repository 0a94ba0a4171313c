"""The requests of `/ai/*`: what they may say, and what is asked when they say nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.api.ai_request import streamed_of, whole_of
from proxy.api.parse import Incoming
from proxy.errors import ModelUnknown, RequestInvalid
from proxy.types import Call, Surface
from tests.api.fakes import snapshot

MESSAGES = [{"role": "user", "content": "hi"}]


def incoming(body: object, query: str = "", **ai: str) -> Incoming:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return Incoming(raw, snapshot("chat", "other", ai=ai), query.encode())


def asked(body: object = MESSAGES, query: str = "", **ai: str) -> Call:
    return whole_of(incoming(body, query, **ai))


def refusal(body: object = MESSAGES, query: str = "") -> RequestInvalid:
    with pytest.raises(RequestInvalid) as refused:
        asked(body, query)
    return refused.value


def test_a_list_of_messages_is_a_whole_request() -> None:
    call = asked()
    assert call.body == {
        "messages": MESSAGES,
        "model": "chat",
        "max_tokens": 1000,
        "temperature": 0.7,
        "stream": False,
    }
    assert (call.model, call.stream) == ("chat", False)
    assert (call.surface, call.size_bytes) == (Surface.CHAT, len(orjson.dumps(MESSAGES)))


def test_a_stream_is_asked_for_by_the_address() -> None:
    call = streamed_of(incoming(MESSAGES))
    assert call.stream
    assert call.body["stream"] is True
    assert streamed_of(incoming({"messages": MESSAGES, "stream": True})).stream


def test_the_query_says_the_rest_of_a_bare_list() -> None:
    call = asked(query="max_tokens=7&temperature=1.5&model=other")
    assert (call.body["max_tokens"], call.body["temperature"]) == (7, 1.5)
    assert call.model == "other"


def test_an_object_says_it_itself_and_wins_over_the_query() -> None:
    call = asked({"messages": MESSAGES, "max_tokens": 5, "model": "other"}, "max_tokens=7")
    assert (call.body["max_tokens"], call.model) == (5, "other")


def test_the_rest_of_a_chat_request_goes_the_same_way() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    call = asked({"messages": MESSAGES, "tools": tools, "user": "u", "num_retries": 0, "n": 1})
    assert (call.body["tools"], call.user, call.wishes.num_retries) == (tools, "u", 0)
    assert "num_retries" not in call.body


def test_null_leaves_it_to_the_provider() -> None:
    call = asked({"messages": MESSAGES, "max_tokens": None, "temperature": None, "model": None})
    assert not call.body.keys() & {"max_tokens", "temperature"}
    assert call.model == "chat"


def test_the_newer_name_of_the_bound_stands_in_for_the_older() -> None:
    call = asked({"messages": MESSAGES, "max_completion_tokens": 9})
    assert call.body["max_completion_tokens"] == 9
    assert "max_tokens" not in call.body


@pytest.mark.parametrize("value", [0, -1, 1.5, "7", True, [], 10_000_001])
def test_max_tokens_is_a_whole_number_of_its_range(value: object) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        error = refusal({"messages": MESSAGES, name: value})
        assert error.param == name
        assert error.message == f"`{name}` must be a whole number from 1 to 10000000"


@pytest.mark.parametrize("value", [-0.1, 2.1, "warm", True, {}])
def test_a_temperature_is_a_number_of_its_range(value: object) -> None:
    error = refusal({"messages": MESSAGES, "temperature": value})
    assert error.message == "`temperature` must be a number from 0 to 2"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("max_tokens=-5", "max_tokens"),
        ("max_tokens=1.5", "max_tokens"),
        ("max_tokens=", "max_tokens"),
        ("max_tokens=lots", "max_tokens"),
        ("max_tokens=" + "9" * 30, "max_tokens"),
        ("temperature=nan", "temperature"),
        ("temperature=inf", "temperature"),
        ("temperature=warm", "temperature"),
        ("model=", "model"),
        ("max_token=5", "max_token"),
        ("stream=true", "stream"),
    ],
)
def test_a_query_is_read_as_strictly_as_a_body(query: str, param: str) -> None:
    assert refusal(query=query).param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], "messages"),
        ({}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": {"role": "user", "content": "hi"}}, "messages"),
        (["hi"], "messages[0]"),
        ([*MESSAGES, None], "messages[1]"),
        ([{"content": "hi"}], "messages[0].role"),
        ([*MESSAGES, {"role": "", "content": "hi"}], "messages[1].role"),
        ([{"role": 1, "content": "hi"}], "messages[0].role"),
        ({"messages": MESSAGES, "model": ""}, "model"),
        ({"messages": MESSAGES, "model": 3}, "model"),
        ({"messages": MESSAGES, "n": 2}, "n"),
        ({"messages": MESSAGES, "modalities": ["text", "audio"]}, "modalities"),
        ({"messages": MESSAGES, "api_key": "sk-x"}, "api_key"),
    ],
)
def test_a_body_that_cannot_be_answered_is_refused_by_its_field(body: Any, param: str) -> None:
    assert refusal(body).param == param


@pytest.mark.parametrize("body", [b"", b"{", b'"hi"', b"7", b"null"])
def test_a_body_is_a_list_or_an_object(body: bytes) -> None:
    assert "body" in refusal(body).message


def test_the_body_does_not_contradict_the_address() -> None:
    error = refusal({"messages": MESSAGES, "stream": True})
    assert error.message == "`stream` must be false at this address, or left out"
    with pytest.raises(RequestInvalid, match="`stream` must be true"):
        streamed_of(incoming({"messages": MESSAGES, "stream": False}))


def test_the_model_of_the_file_is_asked_where_none_is_named() -> None:
    assert asked(model="other").model == "other"


def test_a_model_of_the_file_that_is_not_there_says_which_setting_to_change() -> None:
    with pytest.raises(ModelUnknown) as unknown:
        asked(model="gone")
    assert "`gone`" in unknown.value.message
    assert "set `mobius.ai.model` to a `model_name`" in unknown.value.message
    assert unknown.value.status == 404
    # Whoever names a model is not told of it.
    assert asked({"messages": MESSAGES, "model": "chat"}, model="gone").model == "chat"
