"""How many tokens a request may take, before anybody has counted them."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import estimate
from proxy.estimate import Answers, PromptRates, Size, answers_to, prompt_most, size_of
from proxy.types import Json, Surface

ENCODED = base64.b64encode(b"\0" * 30_000).decode()
NAMES = st.sampled_from(["type", "content", "messages", "image_url", "data", "url", "text", "role"])
ODD = st.recursive(
    st.none()
    | st.integers()
    | st.sampled_from(["image_url", "input_audio", "file", "tool_result"]),
    lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner),
)
PDF = f"data:application/pdf;base64,{ENCODED}"


def said(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def answers(body: dict[str, Any], **known: Any) -> Answers:
    return answers_to(body).within(**{"known": None, "default": 4096, "most": None, **known})


# How large a request is


def test_text_is_as_long_as_its_json() -> None:
    body = {"messages": [{"role": "user", "content": "été"}]}
    assert size_of(body) == Size(len(orjson.dumps(body)))
    assert size_of(body, 1234) == Size(1234)


@pytest.mark.parametrize(
    ("part", "size"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{ENCODED}"}},
            {"images": 1},
        ),
        ({"type": "image_url", "image_url": f"data:image/png;base64,{ENCODED}"}, {"images": 1}),
        ({"type": "image", "source": {"type": "base64", "data": ENCODED}}, {"images": 1}),
        ({"type": "input_audio", "input_audio": {"data": ENCODED}}, {"audio_bytes": 30_000}),
        ({"type": "document", "source": {"data": ENCODED}}, {"file_bytes": 30_000}),
    ],
)
def test_what_is_no_text_never_counts_by_the_length_of_its_base64(
    part: dict[str, Any], size: dict[str, int]
) -> None:
    found = size_of(said(part))
    assert found.text_bytes < 300
    assert {name: getattr(found, name) for name in size} == size
    assert not found.is_text


def test_a_file_counts_by_its_bytes_and_one_elsewhere_by_none() -> None:
    held = size_of(said({"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}))
    assert (held.file_bytes, held.files_elsewhere) == (len(PDF) * 3 // 4, 0)
    named = size_of(said({"type": "file", "file": {"file_id": "file-1"}}))
    assert (named.file_bytes, named.files_elsewhere) == (0, 1)
    linked = size_of(said({"type": "document", "source": {"type": "url", "url": "https://x/y"}}))
    assert linked.files_elsewhere == 1


@pytest.mark.parametrize(
    "named",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
    ],
)
def test_what_a_request_names_that_is_kept_elsewhere_may_fill_the_window(
    named: dict[str, Any],
) -> None:
    found = size_of({"input": "and?", **named})
    assert (found.files_elsewhere, found.is_text) == (1, False)
    assert prompt_most(found, 128_000) == 128_000
    assert prompt_most(found, None) > 1_000_000


@pytest.mark.parametrize("body", [{"prompt": "once"}, {"input": ["a", {}], "conversation": None}])
def test_what_a_request_says_itself_is_all_there_is(body: dict[str, Any]) -> None:
    assert size_of(body).is_text


def test_an_image_in_the_result_of_a_tool_is_an_image() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": ENCODED}}
    found = size_of(
        said({"type": "tool_result", "content": [image, {"type": "text", "text": "x"}]})
    )
    assert found.images == 1


def test_tools_are_seen_under_both_names() -> None:
    assert [size_of({name: [{}]}).tools for name in ("tools", "functions", "others")] == [
        True,
        True,
        False,
    ]


@given(ODD)
def test_no_message_however_odd_is_an_error(messages: object) -> None:
    size = size_of({"messages": messages}, 10)
    assert size.text_bytes >= 0


# How long an answer may be


@pytest.mark.parametrize(
    ("body", "known", "most", "each", "stated"),
    [
        ({}, None, None, 4096, False),
        ({}, 16_384, None, 16_384, False),
        ({}, 16_384, 500, 500, False),
        ({}, None, 500, 500, False),
        ({"max_tokens": 7}, 16_384, None, 7, True),
        ({"max_completion_tokens": 9, "max_tokens": 7}, None, None, 9, True),
        ({"max_tokens": 9000}, None, 500, 500, False),
        ({"max_tokens": None}, None, None, 4096, False),
        ({"max_tokens": 0}, None, None, 4096, False),
        ({"max_tokens": -1}, None, None, 4096, False),
        ({"max_tokens": True}, None, None, 4096, False),
        ({"max_tokens": "50"}, None, None, 4096, False),
        ({"max_tokens": 7.0}, 16_384, None, 7, True),
        ({"max_tokens": 9000.0}, None, 500, 500, False),
        ({"max_tokens": 7.5}, None, None, 4096, False),
        # Another API's name, which no provider of chats heeds.
        ({"max_output_tokens": 1}, None, None, 4096, False),
    ],
)
def test_an_answer_is_as_long_as_the_request_says_or_else_the_model_or_the_file(
    body: dict[str, Any], known: int | None, most: int | None, each: int, stated: bool
) -> None:
    found = answers(body, known=known, most=most)
    assert (found.each_tokens, found.stated) == (each, stated)


def test_every_choice_takes_as_much() -> None:
    assert answers({"max_tokens": 10, "n": 3}).tokens == 30
    assert [answers({"max_tokens": 10, "n": n}).tokens for n in (0, -5, None, "3")] == [10] * 4


def test_a_prediction_that_is_wrong_is_charged_beside_the_answer() -> None:
    prediction = {"type": "content", "content": "x" * 100}
    found = answers({"max_tokens": 10, "prediction": prediction})
    assert found.tokens == 10 + len(orjson.dumps(prediction))


# How long a prompt is


def test_nothing_learned_is_a_guess_on_the_safe_side() -> None:
    rates, size = PromptRates(), Size(1000)
    assert (rates.typical("m", size), rates.high("m", size)) == (251, 501)


def test_a_rate_is_learned_from_what_the_provider_counted() -> None:
    rates, size = PromptRates(), Size(1000)
    for tokens in (*[100] * 99, 300):
        rates.learn("m", size, tokens)
    assert rates.typical("m", size) == 101
    assert rates.high("m", size) == 101
    for _ in range(5):
        rates.learn("m", size, 300)
    assert (rates.typical("m", size), rates.high("m", size)) == (101, 301)
    assert rates.high("another", size) == 501


def test_few_answers_are_not_believed_and_old_ones_are_forgotten() -> None:
    rates, size = PromptRates(), Size(1000)
    for _ in range(estimate.FEWEST - 1):
        rates.learn("m", size, 10)
    assert rates.typical("m", size) == 251
    rates.learn("m", size, 10)
    assert rates.typical("m", size) == 11
    for _ in range(estimate.SAMPLES):
        rates.learn("m", size, 700)
    assert rates.typical("m", size) == 701


def test_an_image_or_a_call_without_a_prompt_teaches_nothing() -> None:
    rates = PromptRates()
    for _ in range(20):
        rates.learn("m", Size(1000, images=1), 900)
        rates.learn("m", Size(1000), 0)
        rates.learn("m", Size(0), 900)
    assert rates.typical("m", Size(1000)) == 251


def test_models_are_forgotten_when_there_are_too_many() -> None:
    rates = PromptRates()
    for number in range(estimate.MODELS + 1):
        for _ in range(estimate.FEWEST):
            rates.learn(str(number), Size(1000), 10)
    assert rates.typical("0", Size(1000)) == 251
    assert rates.typical("1", Size(1000)) == 11


def test_what_is_no_text_has_a_rule_of_its_own() -> None:
    rates = PromptRates()
    size = Size(0, images=2, audio_bytes=20_000, file_bytes=30_000)
    assert rates.typical("m", size) == 1 + 2000 + 100 + 3000


@given(
    st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "ignore")),
    st.integers(1, 500),
)
def test_no_token_of_text_is_shorter_than_a_byte(text: str, messages: int) -> None:
    body = {"messages": [{"role": "user", "content": text}] * messages}
    assert prompt_most(size_of(body), None) >= len(text.encode()) * messages


def test_no_prompt_is_longer_than_the_window_of_its_model() -> None:
    assert prompt_most(Size(10_000_000), 128_000) == 128_000
    assert prompt_most(Size(1000), 128_000) == 1000 + estimate.FRAME_TOKENS
    assert prompt_most(Size(1000, tools=True), None) == 1000 + 100 + estimate.TOOL_TOKENS


def test_a_file_that_is_elsewhere_may_fill_the_window() -> None:
    assert prompt_most(Size(100, files_elsewhere=1), 128_000) == 128_000
    assert prompt_most(Size(100, files_elsewhere=2), None) == 2_000_200


def test_an_image_a_recording_and_a_file_are_bound_by_the_dearest_there_are() -> None:
    assert prompt_most(Size(0, images=1), None) == 50_100
    assert prompt_most(Size(0, audio_bytes=20_000), None) == 300
    assert prompt_most(Size(0, file_bytes=30_000), None) == 30_100


def test_a_response_is_bound_by_a_name_of_its_own() -> None:
    def each(body: Json) -> int:
        found = answers_to(body, Surface.RESPONSES)
        return found.within(known=None, default=9, most=None).each_tokens

    assert [each({"max_output_tokens": 5}), each({"max_tokens": 5})] == [5, 9]
