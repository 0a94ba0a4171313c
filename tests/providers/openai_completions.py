"""The shapes of OpenAI's legacy completions."""

from __future__ import annotations

from collections.abc import Iterator

from tests.providers.dialect import Ask, joined, pieces
from tests.providers.openai_chat import usage_field, wants_usage
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json


def whole(ask: Ask, answer: Answer) -> Json:
    """A `text_completion`."""
    text = joined(pieces(answer), "text")
    choices = [_choice(ask, index, text, answer.finish or "stop") for index in _choices(ask)]
    return {**_top(ask), "choices": choices, **usage_field(ask, answer)}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """The stream of `text_completion`."""
    for piece in pieces(answer):
        for index in _choices(ask):
            chunk = {**_top(ask), "choices": [_choice(ask, index, piece.text, None)]}
            yield Event("content", chunk, tokens=(piece.number,) if index == 0 else ())
    for index in _choices(ask):
        ending = _choice(ask, index, "", answer.finish or "stop")
        yield Event("finish", {**_top(ask), "choices": [ending]})
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


def _choices(ask: Ask) -> range:
    """One choice, or as many as were asked for, of each prompt."""
    wanted, prompt = ask.body.get("n"), ask.body.get("prompt")
    many = isinstance(prompt, list) and not all(isinstance(each, int) for each in prompt)
    prompts = len(prompt) if many and isinstance(prompt, list) else 1
    return range(prompts * (wanted if isinstance(wanted, int) else 1))


def _choice(ask: Ask, index: int, text: str, finish: str | None) -> Json:
    logprobs: Json | None = None
    if text and ask.body.get("logprobs") is not None:
        logprobs = {
            "tokens": [text],
            "token_logprobs": [-0.5],
            "top_logprobs": [{text: -0.5}],
            "text_offset": [0],
        }
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}
