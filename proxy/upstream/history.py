"""
What was said before, as another provider takes it: an earlier turn may have been anybody's. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.types import Json

# Anthropic's API reference: what the id of a tool's call may be made of.
_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")
_IDS: Mapping[str, str] = {"tool_use": "id", "tool_result": "tool_use_id"}


def presentable(messages: object) -> object:
    """
    Return the messages without what only another provider can have said.

    That is a thought without a signature, which Anthropic refuses, and ids of calls in characters
    that it has not. Messages that hold neither are returned as they are.
    """
    if not isinstance(messages, list) or not any(map(_odd, messages)):
        return messages
    return [told for message in messages if (told := _mended(message)) is not None]


def spoken(messages: object) -> object:
    """
    Return the messages of a chat with every refusal as what was said.

    Only OpenAI has a field for it, and LiteLLM would leave out that anything was answered at all.
    """
    if not isinstance(messages, list) or not any(map(_refusals, messages)):
        return messages
    return [_spoken(message) if _refusals(message) else message for message in messages]


def _refusals(message: Any) -> list[Any]:
    """Return where a message refuses: itself, and parts of it."""
    if not isinstance(message, Mapping):
        return []
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [each for each in (message, *parts) if isinstance(each, Mapping) and each.get("refusal")]


def _spoken(message: Json) -> Json:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    own = [message] if message.get("refusal") else []
    told = [_text(part) if part in _refusals(message) else part for part in (*parts, *own)]
    kept = {name: value for name, value in message.items() if name != "refusal"}
    return {**kept, "content": [part for part in told if not _is_empty(part)]}


def _is_empty(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("text") == ""


def _text(part: Json) -> Json:
    return {"type": "text", "text": str(part["refusal"])}


def _odd(message: Any) -> bool:
    content = message.get("content") if isinstance(message, Mapping) else None
    return isinstance(content, list) and any(map(_odd_block, content))


def _odd_block(block: Any) -> bool:
    if not isinstance(block, Mapping):
        return False
    if block.get("type") == "thinking":
        return not block.get("signature")
    id = block.get(_IDS.get(str(block.get("type")), ""))
    return isinstance(id, str) and _STRANGE.search(id) is not None


def _mended(message: Any) -> Any:
    if not _odd(message):
        return message
    kept = [_renamed(b) for b in message["content"] if not _unsigned(b)]
    return {**message, "content": kept} if kept else None


def _unsigned(block: Any) -> bool:
    return _odd_block(block) and block["type"] == "thinking"


def _renamed(block: Any) -> Any:
    if not _odd_block(block):
        return block
    found: Json = block
    name = _IDS[found["type"]]
    return {**found, name: _STRANGE.sub("_", found[name])}
