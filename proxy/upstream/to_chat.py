"""
A message of Anthropic's as a chat: what was said, in OpenAI's words. Pure.

LiteLLM's own translation leaves out without a word what it does not know (a document of text, an
error of a tool). Here everything is told in some way, or the request is refused for this target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from proxy.types import Json

CACHE = "cache_control"
PDF = "application/pdf"


class Untranslatable(ValueError):
    """A chat has no word for something; the message says for what."""


@dataclass(frozen=True, slots=True)
class Ear:
    """What the target of a chat understands beside OpenAI's own words."""

    caches: bool = False  # Anthropic's marks of what is to be cached
    thinks: bool = False  # what it, or another, has thought before, in LiteLLM's fields
    sees_results: bool = False  # images in what a tool has answered
    name: Callable[[str], str] = str  # of a tool, as it may be called there


def messages_of(body: Json, ear: Ear) -> list[Json]:
    """Return the messages of a chat that says what `body` says. Raises Untranslatable."""
    told: list[Json] = []
    if system := body.get("system"):
        told += _system(system, ear)
    for message in body["messages"]:
        match message.get("role"):
            case "assistant":
                told += _assistant(message.get("content"), ear)
            case "system":
                told += _system(message.get("content"), ear)
            case "user":
                told += _user(message.get("content"), ear)
            case role:
                raise Untranslatable(f"there is no role {str(role)[:40]!r}")
    return told


def _system(content: object, ear: Ear) -> list[Json]:
    parts = [_text(block, ear) for block in _blocks(content)]
    if not parts:
        return []
    if any(CACHE in part for part in parts):
        return [{"role": "system", "content": parts}]
    return [{"role": "system", "content": "\n\n".join(part["text"] for part in parts)}]


def _user(content: object, ear: Ear) -> Iterator[Json]:
    """Yield what the tools answered, and then what the user says."""
    said: list[Json] = []
    for block in _blocks(content):
        if block.get("type") != "tool_result":
            said += _parts(block, ear)
            continue
        texts, seen = _result(block, ear)
        answer = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": texts}
        yield answer | _mark(block, ear)
        if seen:
            said += [{"type": "text", "text": f"Shown by {block.get('tool_use_id')}:"}, *seen]
    if said:
        yield {"role": "user", "content": _short(said)}


def _result(block: Json, ear: Ear) -> tuple[object, list[Json]]:
    """Return what a tool answered, and what of it has to be shown apart."""
    parts = [part for each in _blocks(block.get("content")) for part in _parts(each, ear)]
    if block.get("is_error"):
        parts = [{"type": "text", "text": "Error:"}, *parts]
    texts = [part for part in parts if part["type"] == "text"]
    seen = [part for part in parts if part["type"] != "text"]
    if ear.sees_results and seen:
        return parts, []
    if any(CACHE in part for part in texts):
        return texts, seen
    return "\n".join(part["text"] for part in texts), seen


def _assistant(content: object, ear: Ear) -> Iterator[Json]:
    texts: list[Json] = []
    calls: list[Json] = []
    thoughts: list[Json] = []
    for block in _blocks(content):
        match block.get("type"):
            case "tool_use":
                calls.append(_call(block, ear) | _mark(block, ear))
            case "thinking" | "redacted_thinking":
                thoughts.append({name: v for name, v in block.items() if name != CACHE})
            case _:
                texts.append(_text(block, ear))
    marked = any(CACHE in part for part in texts)
    said: Any = texts if marked else "".join(part["text"] for part in texts)
    message: dict[str, Any] = {"role": "assistant", "content": said if texts else None}
    if calls:
        message["tool_calls"] = calls
    if thoughts and ear.thinks:
        message["thinking_blocks"] = thoughts
        message["reasoning_content"] = "".join(str(t.get("thinking") or "") for t in thoughts)
    if texts or calls or "thinking_blocks" in message:
        yield message


def _call(block: Json, ear: Ear) -> dict[str, Any]:
    arguments = orjson.dumps(block.get("input") or {}).decode()
    function = {"name": ear.name(str(block.get("name"))), "arguments": arguments}
    return {"id": block.get("id"), "type": "function", "function": function}


def _parts(block: Json, ear: Ear) -> Iterator[Json]:
    """Yield the parts of a chat's content that say what one block says."""
    match block.get("type"):
        case "text":
            yield _text(block, ear)
        case "image":
            image = {"type": "image_url", "image_url": {"url": _address(block)}}
            yield image | _mark(block, ear)
        case "document":
            yield from _document(block, ear)
        case "search_result":
            head = "\n".join(str(block[name]) for name in ("title", "source") if name in block)
            texts = [str(each.get("text") or "") for each in _blocks(block.get("content"))]
            yield {"type": "text", "text": "\n\n".join([head, *texts])} | _mark(block, ear)
        case "tool_reference":
            yield {"type": "text", "text": f"The tool {block.get('tool_name')} can be called."}
        case kind:
            raise _unknown(kind)


def _document(block: Json, ear: Ear) -> Iterator[Json]:
    source = _object(block.get("source"))
    names = [str(block[name]) for name in ("title", "context") if block.get(name)]
    match source:
        case {"type": "text", "data": str(data)}:
            yield {"type": "text", "text": "\n\n".join([*names, data])} | _mark(block, ear)
        case {"type": "content", "content": content}:
            yield from ({"type": "text", "text": name} for name in names)
            for inner in _blocks(content):
                yield from _parts(inner, ear)
        case {"type": "base64", "data": str(data)}:
            yield from ({"type": "text", "text": name} for name in names[1:])
            kind = source.get("media_type") or PDF
            file = {
                "filename": names[0] if block.get("title") else "document.pdf",
                "file_data": f"data:{kind};base64,{data}",
            }
            yield {"type": "file", "file": file} | _mark(block, ear)
        case _:
            raise _unknown(f"document by {source.get('type')}")


def _address(block: Json) -> str:
    match _object(block.get("source")):
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            return f"data:{kind};base64,{data}"
        case {"type": "url", "url": str(url)}:
            return url
        case source:
            raise _unknown(f"image by {source.get('type')}")


def _text(block: Json, ear: Ear) -> dict[str, Any]:
    if block.get("type") != "text":
        raise _unknown(block.get("type"))
    return {"type": "text", "text": str(block.get("text") or "")} | _mark(block, ear)


def _mark(block: Json, ear: Ear) -> dict[str, Any]:
    mark = block.get(CACHE)
    return {CACHE: mark} if mark and ear.caches else {}


def _short(parts: list[Json]) -> object:
    """Return a single text as OpenAI writes it where nothing stands beside it."""
    return parts[0]["text"] if len(parts) == 1 and parts[0].keys() == {"type", "text"} else parts


def _blocks(content: object) -> list[Json]:
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(b, Mapping) for b in content):
        raise Untranslatable("the content of a message is a text or a list of blocks")
    return content


def _unknown(kind: object) -> Untranslatable:
    return Untranslatable(f"a chat has no word for a block of type {str(kind)[:60]!r}")


def _object(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}
