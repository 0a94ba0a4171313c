"""LiteLLM's objects as OpenAI's JSON: required nullable fields present, LiteLLM's own left out."""

from __future__ import annotations

import base64
import struct
from typing import Any

from proxy.types import Call, Json, Surface

# Fields that LiteLLM adds for its own proxy, at any of the levels below.
LITELLM_FIELDS = frozenset({"provider_specific_fields", "citations"})
FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


def normal_completion(response: Any, *, counted: bool = True) -> Json:
    """Return a ModelResponse as a `chat.completion` body; without a usage nobody has `counted`."""
    body = _plain(response, counted=counted)
    body["choices"] = [
        {
            "index": choice.get("index", index),
            "finish_reason": _finish(choice.get("finish_reason") or "stop"),
            "logprobs": _logprobs(choice.get("logprobs")),
            "message": _message(choice.get("message") or {}),
        }
        for index, choice in enumerate(body.get("choices") or ())
    ]
    return body


def normal_chunk(chunk: Any, *, counted: bool = True) -> Json:
    """Return a ModelResponseStream as a `chat.completion.chunk` body, likewise."""
    body = _plain(chunk, counted=counted)
    usage = body.get("usage")
    body["choices"] = [
        {
            "index": choice.get("index", 0),
            "delta": _said(choice.get("delta") or {}),
            "logprobs": _logprobs(choice.get("logprobs")),
            "finish_reason": _finish(choice.get("finish_reason")),
        }
        for choice in body.get("choices") or ()
    ]
    if usage and not any(c["delta"] or c["finish_reason"] for c in body["choices"]):
        body["choices"] = []  # OpenAI's usage chunk has no choice
    return body


def normal_answer(call: Call, answer: Any, *, counted: bool = True) -> Json:
    """Return what LiteLLM answered on the surface of `call`, as OpenAI writes it."""
    if call.surface is Surface.CHAT:
        return normal_completion(answer, counted=counted)
    body = _plain(answer, counted=counted)
    if call.surface is Surface.COMPLETIONS:
        body["choices"] = [_written(choice) for choice in body.get("choices") or ()]
    if call.surface is Surface.EMBEDDINGS:
        body["object"] = "list"
        body["data"] = [_vector(call.body, each) for each in body.get("data") or ()]
    return body


def normal_event(call: Call, chunk: Any, *, counted: bool = True) -> Json:
    """Return an event of LiteLLM's on the surface of `call`, as OpenAI writes it."""
    if call.surface is Surface.CHAT:
        return normal_chunk(chunk, counted=counted)
    event = _plain(chunk, counted=counted)
    choices = [_written(choice) for choice in event.get("choices") or ()]
    nothing = not any(choice["text"] or choice["finish_reason"] for choice in choices)
    # OpenAI's usage chunk has no choice.
    event["choices"] = [] if event.get("usage") and nothing else choices
    return event


def is_text(wrapper: Any) -> bool:
    """Say whether a stream of LiteLLM's is one of the older completions."""
    return type(wrapper).__name__ == "TextCompletionStreamWrapper"


def _written(choice: Json) -> Json:
    """Return a choice of an older completion with the fields that OpenAI requires."""
    return {
        "text": choice.get("text") or "",
        "index": choice.get("index", 0),
        "logprobs": choice.get("logprobs"),
        "finish_reason": _finish(choice.get("finish_reason")),
    }


def _vector(body: Json, each: Json) -> Json:
    """Return a vector in the encoding that was asked for, whichever the provider knows."""
    vector = each.get("embedding")
    if body.get("encoding_format") == "base64":
        if isinstance(vector, list):
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    elif isinstance(vector, str):
        raw = base64.b64decode(vector)
        vector = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return {**each, "object": "embedding", "embedding": vector}


class Thoughts:
    """Numbers the thinking blocks of one stream: OpenAI's SDK puts lists together by `index`."""

    def __init__(self) -> None:
        self._ended = 0

    def number(self, event: Json) -> None:
        """Give each block in `event` its place; a signature, or hidden data, ends a block."""
        for choice in event["choices"]:
            for block in choice.get("delta", {}).get("thinking_blocks", ()):
                block["index"] = self._ended
                self._ended += bool(block.get("signature") or block.get("data"))


def _message(message: Json) -> Json:
    said = _said(message)
    # In a stream an index tells one call from the next; in a whole message OpenAI has none.
    calls = [{k: v for k, v in call.items() if k != "index"} for call in said.get("tool_calls", ())]
    return {
        **said,
        "role": said.get("role") or "assistant",
        "content": message.get("content"),
        "refusal": message.get("refusal"),
        **({"tool_calls": calls} if calls else {}),
    }


def _said(part: Json) -> dict[str, Any]:
    """Return a message or a delta without what LiteLLM leaves empty in it."""
    said: dict[str, Any] = _filled(part)
    return {k: v for k, v in said.items() if k not in LITELLM_FIELDS and v != []}


def _finish(reason: str | None) -> str | None:
    """Return one of OpenAI's reasons: to its SDKs any other is none."""
    return reason if reason is None or reason in FINISHES else "stop"


def _logprobs(logprobs: Json | None) -> Json | None:
    return {"content": None, "refusal": None, **logprobs} if logprobs else None


def _plain(model: Any, *, counted: bool) -> dict[str, Any]:
    dumped: dict[str, Any] = model.model_dump(mode="json")
    body = {k: v for k, v in dumped.items() if v is not None and k not in LITELLM_FIELDS}
    if not counted:
        body.pop("usage", None)
    if usage := body.get("usage"):
        # `cost` is LiteLLM's own sum; a count that nobody made is left out, as OpenAI does.
        body["usage"] = {k: v for k, v in _filled(usage).items() if k != "cost"}
    return {k: v for k, v in body.items() if v != [] or k == "choices"}


def _filled(value: Any) -> Any:
    """Return JSON without the fields that are null."""
    if isinstance(value, dict):
        return {k: _filled(v) for k, v in value.items() if v is not None}
    return [_filled(item) for item in value] if isinstance(value, list) else value
