"""LiteLLM's objects as OpenAI's JSON: required nullable fields present, LiteLLM's own left out."""

from __future__ import annotations

from typing import Any

from proxy.types import Json

# Fields that LiteLLM adds for its own proxy, at any of the levels below.
LITELLM_FIELDS = frozenset({"provider_specific_fields", "citations"})


def normal_completion(response: Any) -> Json:
    """Return a ModelResponse as a `chat.completion` body."""
    body = _plain(response)
    body["choices"] = [
        {
            "index": choice.get("index", index),
            "finish_reason": choice.get("finish_reason") or "stop",
            "logprobs": choice.get("logprobs"),
            "message": _message(choice.get("message") or {}),
        }
        for index, choice in enumerate(body.get("choices") or ())
    ]
    return body


def normal_chunk(chunk: Any) -> Json:
    """Return a ModelResponseStream as a `chat.completion.chunk` body."""
    body = _plain(chunk)
    usage = body.get("usage")
    body["choices"] = [
        {
            "index": choice.get("index", 0),
            "delta": _without(choice.get("delta") or {}, keep_none=False),
            "logprobs": choice.get("logprobs"),
            "finish_reason": choice.get("finish_reason"),
        }
        for choice in body.get("choices") or ()
    ]
    if usage and not any(c["delta"] or c["finish_reason"] for c in body["choices"]):
        body["choices"] = []  # OpenAI's usage chunk has no choice
    return body


def _message(message: Json) -> Json:
    kept = _without(message, keep_none=False)
    return {
        "role": message.get("role") or "assistant",
        "content": message.get("content"),
        "refusal": message.get("refusal"),
        **{k: v for k, v in kept.items() if k not in ("role", "content", "refusal")},
    }


def _plain(model: Any) -> dict[str, Any]:
    body: dict[str, Any] = model.model_dump(mode="json")
    return {k: v for k, v in body.items() if v is not None and k not in LITELLM_FIELDS}


def _without(part: Json, *, keep_none: bool) -> dict[str, Any]:
    return {
        k: v for k, v in part.items() if k not in LITELLM_FIELDS and (keep_none or v is not None)
    }
