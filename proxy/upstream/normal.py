"""LiteLLM's objects as OpenAI's JSON: required nullable fields present, LiteLLM's own left out."""

from __future__ import annotations

from typing import Any

from proxy.types import Json

# Fields that LiteLLM adds for its own proxy, at any of the levels below.
LITELLM_FIELDS = frozenset({"provider_specific_fields", "citations"})
FINISHES = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})


def normal_completion(response: Any, *, counted: bool = True) -> Json:
    """Return a ModelResponse as a `chat.completion` body; without a usage nobody has `counted`."""
    body = plain(response, counted=counted)
    body["choices"] = [
        {
            "index": choice.get("index", index),
            "finish_reason": finish_of(choice.get("finish_reason") or "stop"),
            "logprobs": _logprobs(choice.get("logprobs")),
            "message": _message(choice.get("message") or {}),
        }
        for index, choice in enumerate(body.get("choices") or ())
    ]
    return body


def normal_chunk(chunk: Any, *, counted: bool = True) -> Json:
    """Return a ModelResponseStream as a `chat.completion.chunk` body, likewise."""
    body = plain(chunk, counted=counted)
    usage = body.get("usage")
    body["choices"] = [
        {
            "index": choice.get("index", 0),
            "delta": _said(choice.get("delta") or {}),
            "logprobs": _logprobs(choice.get("logprobs")),
            "finish_reason": finish_of(choice.get("finish_reason")),
        }
        for choice in body.get("choices") or ()
    ]
    if usage and not any(c["delta"] or c["finish_reason"] for c in body["choices"]):
        body["choices"] = []  # OpenAI's usage chunk has no choice
    return body


class Thoughts:
    """Numbers the thinking blocks of one stream: OpenAI's SDK puts lists together by `index`."""

    def __init__(self) -> None:
        self._ended = 0

    def number(self, event: Json) -> None:
        """Give each block in `event` its place; a signature, or hidden data, ends a block."""
        for choice in event["choices"]:
            for block in choice["delta"].get("thinking_blocks", ()):
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


def finish_of(reason: str | None) -> str | None:
    """Return one of OpenAI's reasons: to its SDKs any other is none."""
    return reason if reason is None or reason in FINISHES else "stop"


def _logprobs(logprobs: Json | None) -> Json | None:
    return {"content": None, "refusal": None, **logprobs} if logprobs else None


def plain(model: Any, *, counted: bool) -> dict[str, Any]:
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
