"""The shapes of OpenAI's embeddings."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

from tests.providers.dialect import Ask, counted
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json

_DIMENSIONS = 4


def whole(ask: Ask, answer: Answer) -> Json:
    """A list of vectors, one per input, each different; that of `v7` begins with 7."""
    inputs = ask.body.get("input")
    many = inputs if isinstance(inputs, list) and _is_many(inputs) else [inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(ask, index, text)}
        for index, text in enumerate(many)
    ]
    return {"object": "list", "data": data, "model": ask.model, **_usage(ask, answer)}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """Embeddings are never streamed: the same body as one event, for a client that asks."""
    yield Event("finish", whole(ask, answer))


def _is_many(inputs: list[object]) -> bool:
    return not all(isinstance(token, int) for token in inputs)


def _vector(ask: Ask, index: int, text: object) -> list[float] | str:
    wanted = ask.body.get("dimensions", _DIMENSIONS)
    numbered = isinstance(text, str) and text.startswith("v") and text[1:].isdigit()
    vector = [float(str(text)[1:]) if numbered else 0.5 + index, *[0.25] * (int(wanted) - 1)]
    if ask.body.get("encoding_format") != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _usage(ask: Ask, answer: Answer) -> Json:
    if answer.usage is MISSING:
        return {}
    if (usage := counted(ask, answer)) is None:
        return {"usage": answer.usage}
    return {"usage": {"prompt_tokens": usage.prompt, "total_tokens": usage.prompt}}
