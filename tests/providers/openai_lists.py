"""The shapes of OpenAI's moderations and images, and of the rerank that others have."""

from __future__ import annotations

from collections.abc import Iterator

from tests.providers.dialect import Ask, counted
from tests.providers.sse import Event
from tests.providers.steps import Answer, Json

_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
    *("illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual"),
    *("sexual/minors", "violence", "violence/graphic"),
)


def moderations(ask: Ask, answer: Answer) -> Json:
    """A verdict per input; a text that holds `harm` is flagged as violence."""
    inputs = ask.body.get("input")
    texts = inputs if isinstance(inputs, list) else [inputs]
    results = [_verdict("harm" in str(text)) for text in texts]
    return {"id": f"modr-fake{ask.number:06d}", "model": ask.model, "results": results}


def _verdict(harmful: bool) -> Json:
    found = {"violence"} if harmful else set[str]()
    return {
        "flagged": harmful,
        "categories": {name: name in found for name in _CATEGORIES},
        "category_scores": {name: 0.9 if name in found else 0.1 for name in _CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }


def images(ask: Ask, answer: Answer) -> Json:
    """As many images as were asked for, a pixel each, and what they took."""
    usage = counted(ask, answer)
    data = [{"b64_json": "iVBORw0KGgo="} for _ in range(ask.body.get("n") or 1)]
    took = (
        {}
        if usage is None
        else {
            "usage": {
                "input_tokens": usage.prompt,
                "output_tokens": usage.completion,
                "total_tokens": usage.prompt + usage.completion,
                "input_tokens_details": {"text_tokens": usage.prompt, "image_tokens": 0},
            }
        }
    )
    return {"created": ask.created, "data": data, **took}


def rerank(ask: Ask, answer: Answer) -> Json:
    """The documents from the last to the first, as many as were asked for."""
    documents = ask.body["documents"]
    places = range(len(documents))[::-1][: ask.body.get("top_n")]
    results = [{"index": at, "relevance_score": (at + 1) / len(documents)} for at in places]
    return {"id": f"rerank-fake{ask.number:06d}", "results": results}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """None of these is ever streamed: nothing, for a client that asks."""
    return iter(())
