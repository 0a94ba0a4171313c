"""A message of Anthropic's as a chat's answer, told as LiteLLM tells it. Pure."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from proxy.types import Json

# Why Anthropic stops, in OpenAI's words; any other reason is an ordinary end.
FINISHES: Mapping[object, str] = {
    "compaction": "length",
    "max_tokens": "length",
    "refusal": "content_filter",
    "tool_use": "tool_calls",
}
SEARCHES = ("web_search_requests", "tool_search_requests")


def completion_of(message: Json, *, created_s: int) -> Json:
    """Return the chat's answer. Raises LookupError, TypeError or ValueError."""
    text, thoughts, calls = "", [], []
    for block in message["content"]:
        match block["type"]:
            case "text":
                text += block["text"]
            case "tool_use":
                calls.append(_call(block))
            case "thinking" | "redacted_thinking":
                thoughts.append(_filled(block))
            case _:
                pass  # only what was asked for by other means than these is answered with others
    said: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if thoughts:
        said["thinking_blocks"] = thoughts
        said["reasoning_content"] = "".join(block.get("thinking") or "" for block in thoughts)
    if calls:
        said["tool_calls"] = calls
    finish = FINISHES.get(message["stop_reason"], "stop")
    choice = {"index": 0, "finish_reason": finish, "logprobs": None, "message": said}
    body: dict[str, Any] = {
        "id": message.get("id") or f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": created_s,
        "model": message["model"],
        "choices": [choice],
    }
    if isinstance(usage := message.get("usage"), dict):
        body["usage"] = usage_of(usage, thought=bool(thoughts))
    return body


def usage_of(usage: Json, *, thought: bool) -> Json:
    """
    Return the tokens as OpenAI counts them: what is cached is a part of the prompt.

    Where the model `thought` and Anthropic does not say how much of the answer that was, nobody
    knows: LiteLLM counts it with another model's tokenizer.
    """
    written, cached = (_count(usage, f"cache_{n}_input_tokens") for n in ("creation", "read"))
    fresh, completion = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    prompt = fresh + written + cached
    details = {
        "cached_tokens": cached,
        "cache_write_tokens": written,
        "cache_creation_tokens": written,
        "text_tokens": fresh,
        **_kept_for(usage.get("cache_creation")),
    }
    told: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        **_thought(usage.get("output_tokens_details"), completion, thought=thought),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
    }
    if isinstance(searches := usage.get("server_tool_use"), dict):
        made = {name: searches[name] for name in SEARCHES if searches.get(name) is not None}
        told |= {"server_tool_use": made} if made else {}
    for name in ("service_tier", "inference_geo", "speed"):
        if isinstance(said := usage.get(name), str):
            told[name] = said
    return told


def _thought(details: Any, completion: int, *, thought: bool) -> Json:
    counted = details.get("thinking_tokens") if isinstance(details, dict) else None
    if not isinstance(counted, int):
        if thought:
            return {}
        counted = 0
    reasoning = min(max(0, counted), completion)
    parts = {"reasoning_tokens": reasoning, "text_tokens": completion - reasoning}
    return {"completion_tokens_details": parts}


def _kept_for(parts: Any) -> Json:
    """Return how much was written to the cache for how long, where Anthropic says so."""
    if not isinstance(parts, dict):
        return {}
    names = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
    told = {name: parts[name] for name in names if parts.get(name) is not None}
    return {"cache_creation_token_details": told}


def _count(usage: Json, name: str) -> int:
    count = usage.get(name)
    return int(count) if isinstance(count, int | float) else 0


def _call(block: Json) -> Json:
    function = {"name": block["name"], "arguments": json.dumps(block["input"])}
    return {"id": block["id"], "type": "function", "function": function}


def _filled(block: Json) -> dict[str, Any]:
    return {name: value for name, value in block.items() if value is not None}
