"""
The messages of a chat as Anthropic takes them: a system prompt, and turns that alternate.

What LiteLLM would mend or make up (a result that is missing, an image that it fetches, a system
message in the middle) is Unusual here. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson

from proxy.types import Json
from proxy.upstream.tongues.unusual import Unusual

SYSTEM = frozenset({"system", "developer"})
# What LiteLLM writes where a text is empty, which Anthropic refuses.
NOTHING = "[System: Empty message content sanitised to satisfy protocol]"
SERVER_CALL = "srvtoolu_"  # what the ids of calls begin with that Anthropic made itself
FOREIGN_THOUGHT = "litellm_"  # LiteLLM's mark on the encrypted thought of another provider
_STRANGE = re.compile(r"[^a-zA-Z0-9_-]")  # in the id of a tool's call
_IMAGE = re.compile(r"data:(image/[\w.+-]+);base64,([^;,:]+)", re.ASCII)

# The fields of a message that are acted on, or that LiteLLM passes over, by its role.
FIELDS: Mapping[str, frozenset[str]] = {
    "system": frozenset({"role", "content", "name", "cache_control"}),
    "user": frozenset({"role", "content", "name", "cache_control"}),
    "tool": frozenset({"role", "content", "name", "tool_call_id"}),
    "assistant": frozenset(
        {
            "role",
            "content",
            "name",
            "cache_control",
            "tool_calls",
            "thinking_blocks",
            "annotations",
            "reasoning_content",
        }
    ),
}
_PART = frozenset({"type", "text", "cache_control"})
_IMAGE_PART = frozenset({"type", "image_url", "cache_control"})
_CALL = frozenset({"id", "type", "function", "index"})


def turns_of(messages: object) -> tuple[list[Json], list[Json]]:
    """Return the blocks of the system prompt, and the turns. Raises Unusual."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise Unusual("messages")
    said = [{k: v for k, v in each.items() if v is not None} for each in messages]
    lead = next((i for i, m in enumerate(said) if m.get("role") not in SYSTEM), len(said))
    system = [block for message in said[:lead] for block in _system(message)]
    turns = _Turns()
    for message in said[lead:]:
        turns.add(message)
    return system, turns.told()


class _Turns:
    """Puts neighbours of one role together, and sees to it that every call has its one result."""

    def __init__(self) -> None:
        self._turns: list[dict[str, Any]] = []
        self._owed: set[str] = set()  # ids of calls that have no result yet

    def add(self, message: Json) -> None:
        match message.get("role"):
            case "user":
                self._settle()
                self._say("user", _user(message))
            case "assistant":
                self._settle()
                blocks = list(_assistant(message))
                calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
                self._owed = set(calls)
                if len(self._owed) < len(calls):
                    raise Unusual("two calls of one id")
                self._say("assistant", blocks)
            case "tool":
                block = _result(message)
                if block["tool_use_id"] not in self._owed:
                    raise Unusual("a result without its call")
                self._owed.remove(block["tool_use_id"])
                self._say("user", [block])
            case _:
                raise Unusual("role")

    def told(self) -> list[Json]:
        self._settle()
        if not self._turns or self._turns[0]["role"] != "user":
            raise Unusual("who begins")
        last = self._turns[-1]
        if last["role"] == "assistant":
            # Anthropic refuses white space at the end of what it is to go on with.
            last["content"] = [
                {**block, "text": block["text"].rstrip()} if block["type"] == "text" else block
                for block in last["content"]
            ]
        return list(self._turns)

    def _settle(self) -> None:
        if self._owed:
            raise Unusual("a call without its result")

    def _say(self, role: str, blocks: Iterable[Json]) -> None:
        said = list(blocks)
        if not said:
            raise Unusual("nothing said")
        if self._turns and self._turns[-1]["role"] == role:
            self._turns[-1]["content"] += said
        else:
            self._turns.append({"role": role, "content": said})


def _system(message: Json) -> Iterator[Json]:
    _only(message, FIELDS["system"])
    content = message.get("content")
    if isinstance(content, str) and (message["role"] == "system" or "cache_control" not in message):
        # LiteLLM forgets the mark of a developer's message.
        parts: list[Json] = [{**message, "type": "text", "text": content}]
    elif isinstance(content, list) and "cache_control" not in message:
        parts = [part for part in content if _is_text(part)]
        if len(parts) < len(content):
            raise Unusual("system")
    else:
        raise Unusual("system")
    for part in parts:
        if part["text"]:
            if "cache_control" in part and part["cache_control"] is None:
                raise Unusual(
                    "cache_control"
                )  # of a system's, LiteLLM passes on that there is none
            yield _text(part, part["text"])


def _user(message: Json) -> Iterator[Json]:
    _only(message, FIELDS["user"])
    content = message.get("content")
    if isinstance(content, str):
        yield _text(message, content if content.strip() else NOTHING)
        return
    if not isinstance(content, list) or "cache_control" in message:
        raise Unusual("user")
    for part in content:
        if _is_text(part):
            yield _text(part, part["text"] if part["text"].strip() else NOTHING)
        else:
            yield _image(part)


def _assistant(message: Json) -> Iterator[Json]:
    _only(message, FIELDS["assistant"])
    content = message.get("content")
    yield from _many(message.get("thinking_blocks"), _thought)
    if isinstance(content, str):
        yield _text(message, content if content.strip() else NOTHING)
    elif "cache_control" in message:
        raise Unusual("cache_control")
    elif content is not None:
        for part in _many(content, _text_part):
            yield _text(part, part["text"] if part["text"].strip() else NOTHING)
    if message.get("tool_calls") == []:
        raise Unusual("calls of nothing")  # for LiteLLM these are calls, and want a tool
    yield from _many(message.get("tool_calls"), _call)


def _result(message: Json) -> Json:
    _only(message, FIELDS["tool"])
    content, id = message.get("content"), message.get("tool_call_id")
    if not isinstance(id, str) or not id:
        raise Unusual("tool_call_id")
    if isinstance(content, list):
        content = [_text(part, part["text"]) for part in _many(content, _text_part)]
    elif not isinstance(content, str):
        raise Unusual("the content of a result")
    return {"type": "tool_result", "tool_use_id": _STRANGE.sub("_", id), "content": content}


def _thought(block: Any) -> Json:
    match block:
        case {"type": "thinking", "thinking": str(), "signature": str(sign)}:
            pass
        case {"type": "redacted_thinking", "data": str(sign)}:
            pass
        case _:
            raise Unusual("a thought")
    if not sign or sign.startswith(FOREIGN_THOUGHT):
        raise Unusual("a thought of somebody else's")
    found: Json = block
    return found


def _call(call: Any) -> Json:
    match call:
        case {
            "type": "function",
            "id": str(id),
            "function": {"name": str(name), "arguments": str(written)},
        } if id and not id.startswith(SERVER_CALL):
            _only(call, _CALL)
        case _:
            raise Unusual("a call")
    try:
        arguments = orjson.loads(written) if written.strip() else {}
    except ValueError as exc:
        raise Unusual("arguments") from exc
    return {"type": "tool_use", "id": _STRANGE.sub("_", id), "name": name, "input": arguments}


def _image(part: Any) -> Json:
    match part:
        case {"type": "image_url", "image_url": str(url)}:
            pass
        case {"type": "image_url", "image_url": {"url": str(url)} as image}:
            _only(image, frozenset({"url", "detail"}))
        case _:
            raise Unusual("a part of a message")
    _only(part, _IMAGE_PART)
    if url.startswith("https://"):
        return {"type": "image", "source": {"type": "url", "url": url}, **_cached(part)}
    found = _IMAGE.fullmatch(url)
    if found is None:
        raise Unusual("an image")
    source = {"type": "base64", "media_type": found[1], "data": found[2]}
    return {"type": "image", "source": source, **_cached(part)}


def _text_part(part: Any) -> Json:
    if not _is_text(part):
        raise Unusual("a part of a message")
    found: Json = part
    return found


def _is_text(part: Any) -> bool:
    match part:
        case {"type": "text", "text": str()}:
            return bool(part.keys() <= _PART)
        case _:
            return False


def _text(said: Json, text: str) -> Json:
    return {"type": "text", "text": text, **_cached(said)}


def _cached(said: Json) -> Json:
    """Return the mark of a place up to which the prompt is kept, where there is one."""
    mark = said.get("cache_control")
    if mark is None:
        return {}
    if not isinstance(mark, dict):
        raise Unusual("cache_control")
    return {"cache_control": mark}


def _many(items: Any, write: Callable[[Any], Json]) -> Iterator[Json]:
    if items is not None and not isinstance(items, list):
        raise Unusual("a list")
    return map(write, items or ())


def _only(said: Json, fields: frozenset[str]) -> None:
    if not said.keys() <= fields:
        raise Unusual("a field")
