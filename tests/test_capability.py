"""Who is left out before it is asked, and what the caller hears when that is everybody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy.capability import needs_of, unable
from proxy.errors import ContextTooLong, RequestInvalid
from proxy.estimate import size_of
from proxy.facts import ModelFacts
from proxy.retry import Kind
from proxy.types import Call, Json, Ring, Surface, Target
from tests.fakes import Bench, answer, ask, group, target

IMAGE = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
SOUND = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TOOL = {"type": "function", "function": {"name": "look"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}


def said(*parts: Json) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def text(content: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


ASKED: dict[str, dict[str, Any]] = {
    "supports_vision": said(IMAGE),
    "supports_audio_input": said(SOUND),
    "supports_audio_output": {"modalities": ["text", "audio"]},
    "supports_function_calling": {"tools": [TOOL]},
    "supports_response_schema": {"response_format": SCHEMA},
}


def lacking(label: str, *names: str, window: int | None = None) -> Target:
    return target(label, facts=ModelFacts(cannot=frozenset(names), max_input_tokens=window))


@pytest.mark.parametrize("name", ASKED)
def test_what_a_request_has_needs_a_capability(name: str) -> None:
    call = ask(body=ASKED[name])
    assert needs_of(call, size_of(call.body)) == {name}
    why = unable(call, size_of(call.body))
    assert why(lacking("a", name)) is not None
    assert why(lacking("a", *(set(ASKED) - {name}))) is None
    assert why(target("a")) is None, "what nobody knows is the provider's to say"


def test_a_plain_request_needs_none_and_neither_does_another_surface() -> None:
    call = ask(body={"response_format": {"type": "json_object"}, "tools": []})
    assert needs_of(call, size_of(call.body)) == frozenset()
    vectors = ask(surface=Surface.EMBEDDINGS, body=ASKED["supports_vision"])
    assert needs_of(vectors, size_of(vectors.body)) == frozenset()
    search = ask(body={"tools": [{"type": "web_search"}]})
    assert needs_of(search, size_of(search.body)) == frozenset(), "it is the provider's own tool"


def test_a_request_for_a_response_needs_the_same() -> None:
    items = [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/a"}]}]
    body = {"input": items, "tools": [TOOL], "text": {"format": SCHEMA}}
    call = Call("m", False, body, surface=Surface.RESPONSES)
    assert needs_of(call, size_of(body)) == {
        "supports_vision",
        "supports_function_calling",
        "supports_response_schema",
    }


def fits(body: Json, window: int, *, surface: Surface = Surface.CHAT, raw: bytes = b"") -> bool:
    call = Call("m", False, body, surface=surface)
    return unable(call, size_of(body, len(raw)))(lacking("a", window=window)) is None


def test_only_a_text_that_surely_is_too_long_is() -> None:
    assert not fits(text("x" * 16_000), 900)
    assert fits(text("x" * 16_000), 4_000)
    parts = said({"type": "text", "text": "x" * 8_000}, {"type": "text", "text": "x" * 8_000})
    assert not fits(parts, 900)
    assert not fits({"input": "x" * 16_000}, 900, surface=Surface.RESPONSES)
    assert not fits({"input": "", "instructions": "x" * 16_000}, 900, surface=Surface.RESPONSES)


def test_neither_escapes_nor_blanks_nor_what_is_no_text_make_a_request_too_long() -> None:
    greek = text("λόγος " * 1_000)
    assert fits(greek, 900, raw=json.dumps(greek).encode())
    assert fits(greek, 900, raw=json.dumps(greek, indent=200).encode())
    assert fits(text("x" + " " * 100_000), 900)
    assert fits(said({"type": "video_url", "video_url": {"url": "data:" + "A" * 100_000}}), 900)
    assert not fits(text("λόγος " * 3_000), 900)


def test_many_short_texts_are_no_long_one() -> None:
    many = {"input": ["x" * 400] * 2_000}
    assert fits(many, 8_191, surface=Surface.EMBEDDINGS)
    documents = {"query": "q", "documents": ["x" * 400] * 2_000}
    assert fits(documents, 8_191, surface=Surface.RERANK)


def test_the_first_that_may_be_able_is_asked() -> None:
    blind, seeing = lacking("blind", "supports_vision"), target("seeing")
    bench = Bench({"seeing": [answer()]}, ring=Ring("m", (group("m", blind, seeing),)))
    asyncio.run(bench.serve(ask(body=said(IMAGE))))
    assert bench.tally.trail == ["seeing:200"]


def test_when_nobody_is_able_the_caller_hears_why() -> None:
    blind = [lacking(label, "supports_vision") for label in "ab"]
    with pytest.raises(RequestInvalid, match="known not to take images") as refused:
        asyncio.run(Bench({}, ring=Ring("m", (group("m", *blind),))).serve(ask(body=said(IMAGE))))
    assert refused.value.param == "messages"
    mute = [lacking("a", "supports_vision"), lacking("b", "supports_function_calling")]
    both = ask(body={**said(IMAGE), "tools": [TOOL]})
    with pytest.raises(RequestInvalid, match="take images; known not to take tools") as refused:
        asyncio.run(Bench({}, ring=Ring("m", (group("m", *mute),))).serve(both))
    assert refused.value.param is None


def test_fallbacks_for_long_requests_are_for_nothing_else() -> None:
    ring = Ring("m", (group("m", lacking("a", "supports_vision")),), oversized=(group("n", "x"),))
    with pytest.raises(RequestInvalid, match="known not to take images"):
        asyncio.run(Bench({"x": []}, ring=ring).serve(ask(body=said(IMAGE))))


def test_what_is_longer_than_every_window_goes_to_the_fallbacks_for_that_or_is_refused() -> None:
    small, large = lacking("small", window=10), lacking("large", window=100_000)
    long = ask(body=text("x" * 1_000))
    ring = Ring("m", (group("m", small),), oversized=(group("n", large),))
    bench = Bench({"large": [answer()]}, ring=ring)
    asyncio.run(bench.serve(long))
    assert bench.tally.trail == ["large:200"]
    with pytest.raises(ContextTooLong) as refused:
        asyncio.run(Bench({}, ring=Ring("m", (group("m", small),))).serve(long))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        (["small"], "large"),  # those named for just this come before the general ones
        (["small", "wide"], "wide"),
        (["small", "unset"], "large"),
        (["blind"], "general"),
    ],
)
def test_fallbacks_for_long_requests_come_first_once_the_own_group_is_too_small(
    own: list[str], asked: str
) -> None:
    known = {
        "small": lacking("small", window=10),
        "wide": target("wide"),
        "unset": target("unset", missing="KEY", facts=ModelFacts(max_input_tokens=10)),
        "blind": lacking("blind", "supports_function_calling"),
    }
    own_group = group("m", *(known[label] for label in own))
    ring = Ring("m", (own_group, group("n", "general")), oversized=(group("o", "large"),))
    bench = Bench({asked: [answer()]}, ring=ring)
    body = {**text("x" * 1_000), **({"tools": [TOOL]} if own == ["blind"] else {})}
    asyncio.run(bench.serve(ask(body=body)))
    assert bench.asked == [asked]


def test_without_anybody_set_up_for_long_requests_the_rest_of_the_ring_is_asked() -> None:
    small = group("m", lacking("small", window=10))
    ring = Ring(
        "m", (small, group("n", "general")), oversized=(group("o", target("large", missing="K")),)
    )
    bench = Bench({"general": [answer()]}, ring=ring)
    asyncio.run(bench.serve(ask(body=text("x" * 1_000))))
    assert bench.asked == ["general"]


def test_what_was_too_long_by_estimate_goes_on_where_that_led_when_it_is_too_long_there_too() -> (
    None
):
    small = group("m", lacking("small", window=10))
    ring = Ring("m", (small,), oversized=(group("o", "large"), group("p", "larger")))
    bench = Bench({"large": [Kind.OVERSIZED], "larger": [answer()]}, ring=ring)
    asyncio.run(bench.serve(ask(body=text("x" * 1_000))))
    assert bench.asked == ["large", "larger"]


def test_a_message_needs_what_a_chat_does_and_a_count_of_tokens_nothing() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    form = {"output_config": {"format": {"type": "json_schema", "schema": {}}}}
    tools = {"tools": [{"name": "look", "input_schema": {}}]}
    for name, body in (
        ("supports_vision", said(image)),
        ("supports_response_schema", form),
        ("supports_function_calling", tools),
    ):
        call = ask(surface=Surface.MESSAGES, body=body)
        assert needs_of(call, size_of(call.body)) == {name}
    system = {"system": [{"type": "text", "text": "x" * 16_000}], "messages": []}
    assert not fits(system, 900, surface=Surface.MESSAGES)
    assert fits(text("x" * 16_000), 900, surface=Surface.COUNT_TOKENS)
