from __future__ import annotations

from dataclasses import replace
from typing import Any

from proxy import sound
from proxy.facts import ModelFacts, SoundPrice
from proxy.pricing import price_of, sound_price_of
from proxy.recording import Length
from proxy.types import Call, Json, Surface, Usage
from proxy.upload import Upload

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
OURS = Usage(prompt_tokens=9, completion_tokens=3, estimated=True)
BY_SECONDS = ModelFacts(sound=SoundPrice(second=100_000_000))
BY_BOTH = replace(BY_TOKENS, sound=BY_SECONDS.sound)


def speech(text: object) -> Call:
    body: Json = {"model": "m", "input": text}
    return Call("m", True, body, Surface.SPEECH)


def recording(likely_s: float, most_s: float) -> Call:
    upload = Upload((), Length(likely_s, most_s))
    return Call("m", False, {"model": "m"}, Surface.TRANSCRIPTIONS, upload=upload)


def cost(call: Call, facts: ModelFacts, **more: Any) -> int | None:
    return sound.cost_nano_usd(call, facts, **{"reported": False, "heard_s": None, **more})


def aside(call: Call, facts: ModelFacts) -> sound.Aside:
    return sound.aside_for(call, facts, 500, prompt_most=1000, default_tokens=4096)


def test_a_text_costs_by_its_characters_however_many_bytes_they_are() -> None:
    assert cost(speech("äö🙂"), BY_CHARACTERS) == 3 * 15_000
    assert cost(speech("äö🙂"), BY_TOKENS) is None
    assert cost(speech(["no text"]), BY_CHARACTERS) == 0


def test_a_recording_costs_by_its_seconds_unless_tokens_are_reported() -> None:
    call = recording(10.0, 60.0)
    assert cost(call, BY_SECONDS) == 10 * 100_000
    assert cost(call, BY_SECONDS, heard_s=2.5) == 250_000
    assert cost(call, BY_BOTH) == 10 * 100_000
    assert cost(call, BY_BOTH, reported=True) is None
    assert cost(call, BY_SECONDS, reported=True) == 10 * 100_000
    assert cost(call, BY_TOKENS) is None


def test_what_is_set_aside_is_as_much_as_it_may_cost() -> None:
    assert aside(speech("a" * 100), BY_CHARACTERS) == (0, 0, 1_500_000)
    assert aside(speech("a" * 100), BY_TOKENS) == (500, 800, 1000 * 600 + 800 * 12_000)
    assert aside(recording(10.0, 60.0), BY_SECONDS) == (0, 0, 60 * 100_000)
    by_tokens = 1000 * 600 + 4096 * 12_000
    assert aside(recording(10.0, 60.0), BY_BOTH) == (500, 4096, by_tokens)
    # Whichever way it is charged in the end.
    assert aside(recording(10.0, 6000.0), BY_BOTH) == (500, 4096, 6000 * 100_000)


def counted(call: Call, facts: ModelFacts, heard_s: float | None = None) -> Usage:
    return sound.counted(call, facts, OURS, heard_s=heard_s)


def test_what_is_charged_by_tokens_has_them_estimated() -> None:
    found = counted(speech("a" * 100), BY_TOKENS)
    assert found == Usage(9, 140, audio_completion_tokens=140, estimated=True)
    found = counted(recording(1.55, 9.0), BY_TOKENS, 7.0)
    assert found == Usage(16, 3, audio_prompt_tokens=16, estimated=True)
    chat = Call("m", False, {}, Surface.CHAT)
    assert counted(chat, BY_TOKENS) is OURS


def test_what_is_charged_otherwise_takes_none_and_is_exact_where_that_is() -> None:
    assert counted(speech("a" * 100), BY_CHARACTERS) == Usage()
    assert counted(recording(1.0, 9.0), BY_SECONDS, 2.0) == Usage()
    guessed = Usage(estimated=True)
    assert counted(recording(1.0, 9.0), BY_SECONDS) == guessed
    assert counted(recording(1.0, 9.0), ModelFacts(), 2.0) == guessed
    assert counted(speech("a"), ModelFacts()) == guessed


def test_a_price_is_known_by_characters_by_seconds_or_by_tokens() -> None:
    assert sound.is_priced(speech("a"), BY_CHARACTERS)
    assert sound.is_priced(speech("a"), BY_TOKENS)
    assert sound.is_priced(recording(1, 2), BY_SECONDS)
    assert not sound.is_priced(speech("a"), BY_SECONDS)
    assert not sound.is_priced(recording(1, 2), BY_CHARACTERS)
    assert not sound.is_priced(speech("a"), ModelFacts())
    chat = Call("m", False, {}, Surface.CHAT)
    assert not sound.is_priced(chat, ModelFacts(sound=SoundPrice(1, 1)))


def test_the_seconds_of_a_recording_are_the_provider_s_where_they_can_be_believed() -> None:
    assert sound.heard_s({"usage": {"type": "duration", "seconds": 7}, "duration": 6.9}) == 7
    for said, seconds in (("6.5", 6.5), (6, 6.0), (0, 0.0)):
        assert sound.heard_s({"duration": said}) == seconds
    wrongs: list[Any] = [None, True, "long", -1, float("nan"), float("inf"), [], 1e12]
    for wrong in wrongs:
        assert sound.heard_s({"duration": wrong}) is None


def test_seconds_cost_what_stands_under_either_name() -> None:
    assert sound_price_of({"input_cost_per_second": 1e-4}).second == 100_000_000
    both = {"input_cost_per_second": 1e-4, "output_cost_per_second": 0.0}
    assert sound_price_of(both).second == 100_000_000
    said = {"input_cost_per_second": 0.0, "output_cost_per_second": 2.77778e-5}
    assert sound_price_of(said).second == 27_777_800
    assert sound_price_of({}) == SoundPrice()
