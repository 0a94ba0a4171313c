"""The shapes of OpenAI's legacy completions."""

from __future__ import annotations

from collections.abc import Iterator

from tests.providers.dialect import Ask, joined, pieces
from tests.providers.openai_chat import usage_field, wants_usage
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json


def whole(ask: Ask, answer: Answer) -> Json:
    """A `text_completion`."""
    choices = [_choice(joined(pieces(answer), "text"), answer.finish or "stop")]
    return {**_top(ask), "choices": choices, **usage_field(ask, answer)}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """The stream of `text_completion`."""
    for piece in pieces(answer):
        chunk = {**_top(ask), "choices": [_choice(piece.text, None)]}
        yield Event("content", chunk, tokens=(piece.number,))
    yield Event("finish", {**_top(ask), "choices": [_choice("", answer.finish or "stop")]})
    if wants_usage(ask) and answer.usage is not MISSING:
        yield Event("usage", {**_top(ask), "choices": [], **usage_field(ask, answer)})
    yield Event("done", "[DONE]")


def _top(ask: Ask) -> Json:
    return {
        "id": f"cmpl-fake{ask.number:06d}",
        "object": "text_completion",
        "created": ask.created,
        "model": ask.model,
        "system_fingerprint": "fp_fake000001",
    }


def _choice(text: str, finish: str | None) -> Json:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
