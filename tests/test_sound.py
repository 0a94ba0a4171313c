from __future__ import annotations

from proxy import sound
from proxy.facts import ModelFacts, SoundPrice
from proxy.pricing import price_of, sound_price_of
from proxy.types import Call, Json, Surface, Usage

BY_TOKENS = ModelFacts(
    price=price_of(
        {
            "input_cost_per_token": 6e-7,
            "output_cost_per_token": 1e-5,
            "output_cost_per_audio_token": 1.2e-5,
        }
    )
)
BY_CHARACTERS = ModelFacts(sound=SoundPrice(character=15_000_000))


def speech(text: object) -> Call:
    body: Json = {"model": "m", "input": text}
    return Call("r", "m", True, body, Surface.SPEECH)


def test_a_text_costs_by_its_characters_however_many_bytes_they_are() -> None:
    assert sound.cost_nano_usd(speech("äö🙂"), BY_CHARACTERS) == 3 * 15_000
    assert sound.cost_nano_usd(speech("äö🙂"), BY_TOKENS) is None
    assert sound.cost_nano_usd(speech(["no text"]), BY_CHARACTERS) == 0


def test_what_is_set_aside_is_what_it_costs_where_that_is_known_before() -> None:
    aside = sound.aside_for(speech("a" * 100), BY_CHARACTERS, 1000)
    assert aside == (0, sound.cost_nano_usd(speech("a" * 100), BY_CHARACTERS))
    tokens, nano = sound.aside_for(speech("a" * 100), BY_TOKENS, 1000)
    assert (tokens, nano) == (800, 1000 * 600 + 800 * 12_000)


def test_the_tokens_of_speech_are_estimated_where_it_is_charged_by_them() -> None:
    ours = Usage(prompt_tokens=9, estimated=True)
    assert sound.spoken(speech("a" * 100), BY_CHARACTERS, ours) == ours
    found = sound.spoken(speech("a" * 100), BY_TOKENS, ours)
    assert (found.prompt_tokens, found.completion_tokens) == (9, 140)
    assert found.audio_completion_tokens == 140
    assert found.estimated


def test_a_price_is_known_by_characters_or_by_tokens() -> None:
    assert sound.is_priced(speech("a"), BY_CHARACTERS)
    assert sound.is_priced(speech("a"), BY_TOKENS)
    assert not sound.is_priced(speech("a"), ModelFacts())
    chat = Call("r", "m", False, {}, Surface.CHAT)
    assert not sound.is_priced(chat, BY_CHARACTERS)


def test_seconds_cost_what_stands_under_either_name() -> None:
    assert sound_price_of({"input_cost_per_second": 1e-4}).second == 100_000_000
    both = {"input_cost_per_second": 1e-4, "output_cost_per_second": 0.0}
    assert sound_price_of(both).second == 100_000_000
    said = {"input_cost_per_second": 0.0, "output_cost_per_second": 2.77778e-5}
    assert sound_price_of(said).second == 27_777_800
    assert sound_price_of({}) == SoundPrice()
