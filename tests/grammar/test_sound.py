from __future__ import annotations

import pytest

from proxy.grammar import GRAMMARS, Grammar
from proxy.grammar.sound import END, PIECE
from proxy.types import Json, Surface, Usage

SPEECH, HEARD = GRAMMARS[Surface.SPEECH], GRAMMARS[Surface.TRANSCRIPTIONS]
TOKENS: Json = {
    "type": "tokens", "input_tokens": 30, "output_tokens": 4, "total_tokens": 34,
    "input_token_details": {"text_tokens": 10, "audio_tokens": 20},
}  # fmt: skip


def test_sound_begins_with_its_first_piece_and_ends_with_its_last() -> None:
    assert SPEECH.begins(PIECE[0])
    assert list(SPEECH.endings(PIECE[0])) == [(0, False)]
    assert list(SPEECH.endings(END)) == [(0, True)]
    assert not SPEECH.begins({"type": "speech.audio.begin"})
    done: Json = {"type": "speech.audio.done", "usage": TOKENS}
    assert list(SPEECH.endings(done)) == [(0, True)]
    assert SPEECH.reports(done)
    assert SPEECH.usage(done, None) == Usage(30, 4, audio_completion_tokens=4)
    assert SPEECH.usage({"type": "speech.audio.delta"}, Usage(1, 1)) == Usage(1, 1)


@pytest.mark.parametrize("grammar", [SPEECH, HEARD])
def test_an_error_has_either_form(grammar: Grammar) -> None:
    for said in ({"error": {"message": "no"}}, {"type": "error", "message": "no"}):
        failure = grammar.failure(said)
        assert failure is not None
        assert failure["error"]["message"] == "no"
    assert HEARD.failure({"type": "transcript.text.delta", "delta": "a"}) is None


def test_what_is_heard_takes_tokens_of_sound_or_none() -> None:
    assert HEARD.usage({"usage": TOKENS}, None) == Usage(30, 4, audio_prompt_tokens=20)
    assert HEARD.usage({"usage": {"type": "duration", "seconds": 9}}, None) is None
    assert HEARD.usage({"text": "a"}, None) is None


def test_what_is_heard_is_the_same_whole_and_as_a_stream() -> None:
    body: Json = {"text": "größe", "usage": TOKENS}
    events = HEARD.events(body, usage=True)
    assert [event["type"] for event in events] == ["transcript.text.delta", "transcript.text.done"]
    assert HEARD.whole(events) == body
    assert sum(map(HEARD.text_bytes, events)) == HEARD.said_bytes(body) == 7
    assert [event["type"] for event in HEARD.events({"text": ""}, usage=True)] == [
        "transcript.text.done"
    ]
    with pytest.raises(ValueError, match="no end"):
        HEARD.whole(events[:1])
    assert HEARD.answers({"text": ""})
    assert not HEARD.answers({"text": None})
