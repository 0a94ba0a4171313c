"""Bytes to Call."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.api.parse import MOST_CONTAINERS, MOST_FALLBACKS
from proxy.api.surfaces import BY_SURFACE
from proxy.errors import RequestInvalid
from proxy.types import Call, Surface

MESSAGES = [{"role": "user", "content": "hi"}]


def parse(body: object = None, /, **fields: Any) -> Call:
    if not isinstance(body, bytes):
        body = orjson.dumps(body or {"model": "m", "messages": MESSAGES, **fields})
    return BY_SURFACE[Surface.CHAT].parse(body, 8)


def refusal(body: object = None, /, **fields: Any) -> RequestInvalid:
    with pytest.raises(RequestInvalid) as refused:
        parse(body, **fields)
    return refused.value


def test_what_the_provider_judges_is_left_as_it_was_sent() -> None:
    call = parse(temperature="hot", response_format=7, unknown={"a": [1, None]}, stream_options=3)
    assert call.body["temperature"] == "hot"
    assert call.body["unknown"] == {"a": [1, None]}
    assert call.body["stream_options"] == 3


@pytest.mark.parametrize("model", [None, "", 3, ["m"]])
def test_a_model_is_a_name(model: object) -> None:
    assert refusal(model=model).param == "model"


@pytest.mark.parametrize("messages", [None, [], "hi", {}])
def test_messages_are_a_list_with_one_at_least(messages: object) -> None:
    assert refusal(messages=messages).param == "messages"


def test_a_message_is_an_object() -> None:
    assert refusal(messages=[MESSAGES[0], "hi"]).param == "messages[1]"


@pytest.mark.parametrize(("stream", "streams"), [(True, True), (False, False), (None, False)])
def test_stream_is_true_or_false_and_null_is_false(stream: object, streams: bool) -> None:
    assert parse(stream=stream).stream is streams


@pytest.mark.parametrize("stream", ["true", 1, {}])
def test_stream_is_nothing_else(stream: object) -> None:
    assert refusal(stream=stream).param == "stream"


@pytest.mark.parametrize(
    ("options", "wants"),
    [({"include_usage": True}, True), ({"include_usage": 1}, False), (None, False), ([], False)],
)
def test_the_usage_of_a_stream_is_wanted_when_it_is_asked_for(options: object, wants: bool) -> None:
    assert parse(stream=True, stream_options=options).wants_usage is wants


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cache", "no"),
        ("fallbacks", "claude"),
        ("fallbacks[0]", [{"model": "claude", "api_base": "http://x"}]),
        ("fallbacks[1]", ["claude", {"model": "claude", "messages": []}]),
        ("fallbacks[0]", [""]),
        ("fallbacks[0]", [{}]),
        ("fallbacks[0]", [{"m": "claude"}]),
        ("fallbacks[0]", [{"m": [1]}]),
        ("disable_fallbacks", 1),
        ("num_retries", -1),
        ("num_retries", 11),
        ("num_retries", True),
        ("num_retries", 1.5),
        ("timeout", 0),
        ("timeout", "3"),
        ("timeout", True),
    ],
)
def test_a_wish_of_the_wrong_type_is_named(name: str, value: object) -> None:
    assert refusal(**{name.partition("[")[0]: value}).param == name


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ([], ()),
        (["a", "b", "a"], ("a", "b")),
        ([{"model": "a"}, "b"], ("a", "b")),
        ([{"m": ["a"]}, {"other": ["b"]}, {"m": ["c"]}], ("a", "c")),
        ([{"other": ["b"]}], ()),
        ([{"*": ["a"]}, {"m": ["b"]}], ("b",)),
        ([{"*": ["a"]}, {"other": ["b"]}], ("a",)),
        ([{"model": ["a"]}], ()),  # the fallbacks of a model of that name
    ],
)
def test_fallbacks_may_have_each_form_that_litellms_proxy_knows(
    said: object, meant: tuple[str, ...]
) -> None:
    assert parse(fallbacks=said).wishes.fallbacks == meant


def test_fallbacks_are_few_and_each_is_asked_once() -> None:
    names = [f"m{number}" for number in range(MOST_FALLBACKS)]
    assert parse(fallbacks=[*names, *names]).wishes.fallbacks == tuple(names)
    assert refusal(fallbacks=[*names, "one more"]).param == "fallbacks"


def test_wishes_are_taken_out_of_the_body() -> None:
    call = parse(
        cache={"no-cache": True},
        fallbacks=["a", "b"],
        disable_fallbacks=True,
        num_retries=2,
        timeout=1.5,
    )
    assert call.body == {"model": "m", "messages": MESSAGES}
    assert call.wishes.fallbacks == ("a", "b")
    assert call.wishes.disable_fallbacks
    assert call.wishes.num_retries == 2
    assert call.wishes.timeout_s == 1.5


def test_a_wish_that_is_null_is_none() -> None:
    call = parse(cache=None, fallbacks=None, disable_fallbacks=None, num_retries=None, timeout=None)
    assert call.wishes == parse().wishes
    assert "timeout" not in call.body


def test_a_name_that_would_steer_litellm_is_refused() -> None:
    assert refusal(api_base="http://x").param == "api_base"


def test_of_a_key_given_twice_the_last_counts() -> None:
    call = parse(b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"b"}')
    assert call.model == "b"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"model"',
        b'{"model":"m","messages":[{"content":NaN}]}',
        b'{"model":"m","messages":[{"content":1e999}]}',
        b'{"model":"\xff","messages":[{}]}',
        b'{"model":"\\ud800","messages":[{}]}',
        b'{"model":"m"} trailing',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    assert refusal(raw).status == 400


def test_the_refusal_says_where_and_repeats_nothing() -> None:
    error = refusal(b'{"model": "my secret", ')
    assert "column" in error.message
    assert "secret" not in error.message


def test_nesting_is_limited_without_recursion() -> None:
    assert "nested" in refusal(model="m", messages=MESSAGES, x=nested(8)).message
    assert parse(x=nested(7)).body["x"] == nested(7)
    assert "JSON" in refusal(b"[" * 10_000_000).message
    assert "JSON" in refusal(b'{"a":' * 1_000_000).message


def test_objects_and_lists_are_limited_in_number() -> None:
    fits: list[Any] = [{}] * (MOST_CONTAINERS - 4)  # the body, its messages, the one, and the list
    assert parse(x=fits).body["x"] == fits
    assert "objects and lists" in refusal(model="m", messages=MESSAGES, x=[*fits, {}]).message


@pytest.mark.parametrize("text", ["{[", '"{', "\\{", '\\"[', "\\\\{"])
def test_brackets_within_strings_are_not_counted(text: str) -> None:
    messages = [{"role": "user", "content": text * MOST_CONTAINERS}] * 5
    assert parse(model="m", messages=messages).body["messages"] == messages


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value, {}]
    return value
