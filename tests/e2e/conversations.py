"""Conversations in words that belong to no provider, written and read in each provider's own.

Neither the writing nor the reading is the gateway's: what it translates is compared with what was
meant. `heard` of a conversation is a list of facts in their order; what providers merely say
differently (where a system prompt stands, how text is cut into parts) makes no other fact of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Json: TypeAlias = Mapping[str, Any]
Fact: TypeAlias = tuple[Any, ...]  # who, what, and what it says

CORPUS = Path(__file__).with_suffix(".yaml")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
INSTRUCTING = ("system", "developer")
# How LiteLLM tells Anthropic what stands in the middle of a conversation, or says nothing.
NOTE = (
    "Operator note (not from the user): the following was originally a mid-conversation "
    "system-role reminder."
)
NOTHING = "[System: Empty message content sanitised to satisfy protocol]"
SPEAKERS = (*INSTRUCTING, "user", "assistant", "refusal")


def corpus() -> dict[str, Json]:
    """Every conversation by its name."""
    return {each["name"]: each for each in yaml.safe_load(CORPUS.read_text())}


def who(turn: Json) -> str:
    """Whose turn it is; `result` for a tool's."""
    return next(name for name in (*SPEAKERS, "result") if name in turn)


def parts_of(said: Any) -> list[Any]:
    """What is said, as a list."""
    return said if isinstance(said, list) else [] if said is None else [said]


# What was meant


def meant(conversation: Json) -> list[Fact]:
    """The facts of a conversation as it is written down."""
    return settled(fact for turn in conversation["turns"] for fact in _meant(turn))


def _meant(turn: Json) -> Iterator[Fact]:
    speaker = who(turn)
    if speaker == "result":
        yield "result", turn["result"], _joined(map(str, parts_of(turn["says"])))
        return
    name = {"developer": "system", "refusal": "assistant"}.get(speaker, speaker)
    for part in parts_of(turn[speaker]):
        if isinstance(part, str):
            yield name, "text", part
        else:
            ((kind, value),) = part.items()
            yield name, kind, value
    for call in turn.get("calls", ()):
        yield name, "call", call["id"], call["name"], call["input"]


def settled(facts: Iterable[Fact]) -> list[Fact]:
    """Facts that providers say in different ways, in one: system prompts first, text in one piece.

    Results of calls made at once may come in any order, and nothing said is nothing lost.
    """
    told = [fact for fact in facts if fact[1:] != ("text", "")]
    instructions = [fact for fact in told if fact[0] == "system"]
    found: list[Fact] = []
    for fact in [*instructions, *(fact for fact in told if fact[0] != "system")]:
        if found and fact[1] == "text" and found[-1][:2] == fact[:2]:
            found[-1] = (*fact[:2], _joined([found[-1][2], fact[2]]))
        else:
            found.append((*fact[:2], _joined([fact[2]])) if fact[1] == "text" else fact)
    return sorted_results(found)


def sorted_results(facts: list[Fact]) -> list[Fact]:
    """The facts, each run of results by its ids."""
    found: list[Fact] = []
    run: list[Fact] = []
    for fact in [*facts, ("end",)]:
        if fact[0] == "result":
            run.append(fact)
            continue
        found += [*sorted(run), fact]
        run = []
    return found[:-1]


def _joined(texts: Iterable[str]) -> str:
    return " ".join(" ".join(text.split()) for text in texts if text.strip())


# OpenAI's words


def for_openai(conversation: Json) -> dict[str, Any]:
    """The conversation as the body of a chat."""
    body: dict[str, Any] = {"messages": [_openai_message(t) for t in conversation["turns"]]}
    if names := conversation.get("tools"):
        body["tools"] = [
            {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in names
        ]
    return body


def _openai_message(turn: Json) -> Json:
    speaker = who(turn)
    if speaker == "result":
        return {"role": "tool", "tool_call_id": turn["result"], "content": _openai(turn["says"])}
    if speaker == "refusal":
        return {"role": "assistant", "content": None, "refusal": turn["refusal"]}
    message = {"role": speaker, "content": _openai(turn[speaker])}
    if "names" in turn:
        message["name"] = turn["names"]
    if "calls" in turn:
        message["tool_calls"] = [
            {
                "id": call["id"],
                "type": "function",
                "function": {"name": call["name"], "arguments": json.dumps(call["input"])},
            }
            for call in turn["calls"]
        ]
    return message


def _openai(said: Any) -> Any:
    return [_openai_part(part) for part in said] if isinstance(said, list) else said


def _openai_part(part: Any) -> Json:
    match part:
        case str():
            return {"type": "text", "text": part}
        case {"image": str(image)}:
            url = image if image.startswith("https:") else f"data:image/png;base64,{image}"
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            data = f"data:application/pdf;base64,{part['pdf']}"
            return {"type": "file", "file": {"filename": "a.pdf", "file_data": data}}


def heard_by_openai(body: Json) -> list[Fact]:
    """The facts that the body of a chat states."""
    return settled(fact for message in body["messages"] for fact in _openai_facts(message))


def _openai_facts(message: Json) -> Iterator[Fact]:
    role = "system" if message["role"] == "developer" else message["role"]
    content = message.get("content")
    parts: list[Any] = content or []
    if isinstance(content, str):
        parts = [{"type": "text", "text": content}]
    if role == "tool":
        yield "result", message["tool_call_id"], _joined(part["text"] for part in parts)
        return
    yield from (_openai_fact(role, part) for part in parts)
    if message.get("refusal"):
        yield role, "text", message["refusal"]
    for call in message.get("tool_calls") or ():
        function = call["function"]
        yield role, "call", call["id"], function["name"], json.loads(function["arguments"])


def _openai_fact(role: str, part: Json) -> Fact:
    match part["type"]:
        case "text":
            return role, "text", part["text"]
        case "image_url":
            url = part["image_url"]["url"]
            return role, "image", url.removeprefix("data:image/png;base64,")
        case "file":
            return role, "pdf", part["file"]["file_data"].partition(",")[2]
        case kind:
            raise AssertionError(f"nobody has said a {kind}")


# Anthropic's words


def for_anthropic(conversation: Json) -> dict[str, Any]:
    """The conversation as the body of a message; what follows a result stands beside it."""
    system: list[Json] = []
    messages: list[dict[str, Any]] = []
    answered = False
    for turn in conversation["turns"]:
        speaker, blocks = who(turn), [*_anthropic_blocks(turn)]
        if speaker == "system":
            system += blocks
        elif answered and speaker != "assistant":
            messages[-1]["content"] += blocks
        else:
            role = "assistant" if speaker == "assistant" else "user"
            messages.append({"role": role, "content": blocks})
        answered = speaker == "result"
    body: dict[str, Any] = {"max_tokens": 100, "messages": messages}
    if system:
        body["system"] = system
    if names := conversation.get("tools"):
        body["tools"] = [{"name": name, "input_schema": SCHEMA} for name in names]
    return body


def _anthropic_blocks(turn: Json) -> Iterator[Json]:
    speaker = who(turn)
    if speaker == "result":
        content = [_anthropic_block(part) for part in parts_of(turn["says"]) if part]
        yield {"type": "tool_result", "tool_use_id": turn["result"], "content": content}
        return
    yield from (_anthropic_block(part) for part in parts_of(turn[speaker]) if part)
    for call in turn.get("calls", ()):
        yield {"type": "tool_use", "id": call["id"], "name": call["name"], "input": call["input"]}


def _anthropic_block(part: Any) -> Json:
    match part:
        case str():
            return {"type": "text", "text": part}
        case {"image": str(image)} if image.startswith("https:"):
            return {"type": "image", "source": {"type": "url", "url": image}}
        case {"image": image}:
            source = {"type": "base64", "media_type": "image/png", "data": image}
            return {"type": "image", "source": source}
        case _:
            source = {"type": "base64", "media_type": "application/pdf", "data": part["pdf"]}
            return {"type": "document", "source": source}


def heard_by_anthropic(body: Json) -> list[Fact]:
    """The facts that the body of a message states."""
    system = _anthropic_facts("system", body.get("system") or [])
    said = (
        fact
        for message in body["messages"]
        for fact in _anthropic_facts(message["role"], message["content"])
    )
    return settled([*system, *said])


def _anthropic_facts(role: str, content: Any) -> Iterator[Fact]:
    noted = False
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if block.get("text") == NOTE:  # of the block after it
            noted = True
            continue
        yield _anthropic_fact("system" if noted else role, block)
        noted = False


def _anthropic_fact(role: str, block: Any) -> Fact:
    match block["type"]:
        case "text":
            return role, "text", block["text"].removeprefix(NOTHING)
        case "image":
            source = block["source"]
            return role, "image", source.get("url") or source["data"]
        case "document":
            return role, "pdf", block["source"]["data"]
        case "tool_use":
            return role, "call", block["id"], block["name"], block["input"]
        case "tool_result":
            parts = _anthropic_facts("", block.get("content") or [])
            return "result", block["tool_use_id"], _joined(text for *_, text in parts)
        case kind:
            raise AssertionError(f"nobody has said a {kind}")


def tools_of(body: Json) -> list[tuple[str, Any]]:
    """The tools in either form: what each is called, and what it takes."""
    found = [tool.get("function", tool) for tool in body.get("tools") or ()]
    return [(tool["name"], tool.get("parameters", tool.get("input_schema"))) for tool in found]
