"""Who is left out before it is asked, and what the caller hears when that is everybody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from proxy.capability import needs_of, unable
from proxy.errors import ContextTooLong, RequestInvalid
from proxy.estimate import size_of
from proxy.facts import ModelFacts
from proxy.types import Json, Ring, Surface, Target
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


def test_many_short_texts_are_not_one_long_prompt() -> None:
    for surface in (Surface.EMBEDDINGS, Surface.RERANK, Surface.COMPLETIONS):
        batch = ask(surface=surface, body={"input": ["x" * 100] * 1_000})
        assert unable(batch, size_of(batch.body))(lacking("a", window=900)) is None


def test_only_a_text_that_surely_is_too_long_is() -> None:
    call = ask(body=text("x" * 16_000))
    why = unable(call, size_of(call.body))
    assert why(lacking("a", window=900)) is not None
    assert why(lacking("a", window=4_000)) is None


def test_the_first_that_may_be_able_is_asked() -> None:
    blind, seeing = lacking("blind", "supports_vision"), target("seeing")
    bench = Bench({"seeing": [answer()]}, ring=Ring("m", (group("m", blind, seeing),)))
    asyncio.run(bench.serve(ask(body=said(IMAGE))))
    assert bench.tally.trail == ["seeing:200"]


def test_when_nobody_is_able_the_caller_hears_why() -> None:
    blind = [lacking(label, "supports_vision") for label in "ab"]
    with pytest.raises(RequestInvalid, match="known not to take images"):
        asyncio.run(Bench({}, ring=Ring("m", (group("m", *blind),))).serve(ask(body=said(IMAGE))))


def test_what_is_longer_than_every_window_goes_to_the_fallbacks_for_that_or_is_refused() -> None:
    small, large = lacking("small", window=10), lacking("large", window=100_000)
    long = ask(body=text("x" * 1_000))
    ring = Ring("m", (group("m", small),), oversized=(group("n", large),))
    bench = Bench({"large": [answer()]}, ring=ring)
    asyncio.run(bench.serve(long))
    assert bench.tally.trail == ["large:200"]
    with pytest.raises(ContextTooLong) as refused:
        asyncio.run(Bench({}, ring=Ring("m", (group("m", small),))).serve(long))
    assert refused.value.code == "context_length_exceeded"


def test_a_message_needs_what_a_chat_does_and_a_count_of_tokens_nothing() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    form = {"output_config": {"format": {"type": "json_schema", "schema": {}}}}
    for name, body in (("supports_vision", said(image)), ("supports_response_schema", form)):
        call = ask(surface=Surface.MESSAGES, body=body)
        assert needs_of(call, size_of(call.body)) == {name}
    long = ask(surface=Surface.COUNT_TOKENS, body=text("x" * 16_000))
    assert unable(long, size_of(long.body))(lacking("a", window=900)) is None
