"""
A chat's answer as an answer of OpenAI's Responses, whole or event by event. Pure.

There is one way to it: a whole answer is the last event of what would have been its stream, so the
two cannot differ. Thoughts, text and calls of tools become items in the order in which they begin.
What a provider signs of its thoughts is the `encrypted_content` of their item, in the form in which
LiteLLM reads it when the client sends the item back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from proxy.aggregate import choices_of
from proxy.grammar.teller import Item, Teller
from proxy.replay import events_of
from proxy.types import Json, Usage
from proxy.usage import usage_of

# Why an answer is not whole, by a chat's finish reason.
CUTS = {"length": "max_output_tokens", "content_filter": "content_filter"}
# What of a request stands in its answer, and what where the request does not say.
ECHOED: Mapping[str, Any] = {
    "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {},
    "parallel_tool_calls": True, "prompt_cache_key": None, "reasoning": None,
    "safety_identifier": None, "temperature": None, "tool_choice": "auto", "tools": [],
    "top_p": None, "truncation": "disabled",
}  # fmt: skip
PLAIN_TEXT: Json = {"format": {"type": "text"}}


class Retelling:
    """One answer. `ids` gives each thing a name of its own, by what that begins with."""

    def __init__(self, asked: Json, ids: Callable[[str], str], *, now_s: float) -> None:
        self._asked = asked
        self._ids = ids
        self._custom = custom_tools(asked)
        self._teller = Teller()
        self._head: dict[str, Any] = {"id": ids("resp_"), "created_at": int(now_s), "model": ""}
        self._begun = False
        self._open: Item | None = None  # thoughts or text: one at a time
        self._calls: dict[int, tuple[Item, Call]] = {}
        self._thoughts: dict[int, dict[str, Any]] = {}
        self._finish: str | None = None
        self._usage: Usage | None = None

    def tell(self, event: Json) -> list[Json]:
        """Return what a chat's event comes to."""
        told: list[Json] = []
        if not self._begun:
            self._begun = True
            self._head["model"] = event.get("model") or ""
            told += self._teller.begin(self._response("in_progress"))
        self._usage = usage_of(event) or self._usage
        tier = event.get("service_tier")
        if isinstance(tier, str):
            self._head["service_tier"] = tier
        for index, choice in choices_of(event):
            if index == 0:
                told += self._delta(_of(choice.get("delta")))
                self._finish = choice.get("finish_reason") or self._finish
        return told

    def end(self) -> list[Json]:
        """Return what follows the last of the chat's events: all that is open, and the whole."""
        status = "incomplete" if self._finish in CUTS else "completed"
        told = [*self._close(status)]
        for item, call in self._calls.values():
            if item.kind == "custom_tool_call":
                told += self._teller.say(item, _content(call.arguments))
            told += self._teller.close(item, status)
        return [*told, *self._teller.end(self._response(status))]

    def _delta(self, delta: Json) -> Iterator[Json]:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        blocks = delta.get("thinking_blocks")
        if (isinstance(thought, str) and thought) or blocks:
            yield from self._think(thought, blocks)
        for name, kind in (("content", "output_text"), ("refusal", "refusal")):
            if isinstance(words := delta.get(name), str) and words:
                yield from self._say(words, kind)
        for note in delta.get("annotations") or ():
            if self._open is not None and (found := _annotation(note)) is not None:
                yield from self._teller.annotate(self._open, found)
        calls = delta.get("tool_calls")
        for each in calls if isinstance(calls, list) else ():
            if isinstance(each, Mapping):
                yield from self._call(each)

    def _think(self, words: object, blocks: object) -> Iterator[Json]:
        if self._open is None or self._open.kind != "reasoning":
            yield from self._close()
            fields = {"id": self._ids("rs_"), "type": "reasoning", "summary": []}
            yield from self._begin(fields)
        for block in blocks if isinstance(blocks, list) else ():
            _add_block(self._thoughts, _of(block))
        if self._open is not None and isinstance(words, str) and words:
            yield from self._teller.say(self._open, words, "summary_text")

    def _say(self, words: str, kind: str) -> Iterator[Json]:
        if self._open is None or self._open.kind != "message":
            yield from self._close()
            fields = {
                "id": self._ids("msg_"), "type": "message", "status": "in_progress",
                "role": "assistant", "content": [],
            }  # fmt: skip
            yield from self._begin(fields)
        if self._open is not None:
            yield from self._teller.say(self._open, words, kind)

    def _call(self, said: Json) -> Iterator[Json]:
        function = _of(said.get("function"))
        index = _place_of(said, self._calls)
        if index not in self._calls:
            yield from self._close()
            name = str(function.get("name") or "")
            custom = name in self._custom
            fields = {
                "id": self._ids("ctc_" if custom else "fc_"),
                "type": "custom_tool_call" if custom else "function_call",
                **({} if custom else {"status": "in_progress"}),
                "call_id": str(said.get("id") or self._ids("call_")),
                "name": name,
                ("input" if custom else "arguments"): "",
            }
            told: list[Json] = []
            self._calls[index] = (self._teller.open(fields, told), Call())
            yield from told
        item, call = self._calls[index]
        words = function.get("arguments")
        if not isinstance(words, str) or not words:
            return
        if item.kind == "custom_tool_call":
            call.add(words)  # its text can be read only once the JSON around it is whole
        else:
            yield from self._teller.say(item, words)

    def _begin(self, fields: Json) -> list[Json]:
        told: list[Json] = []
        self._open = self._teller.open(fields, told)
        return told

    def _close(self, status: str = "completed") -> Iterator[Json]:
        """Yield the end of the thoughts or the text that is being told."""
        item, self._open = self._open, None
        if item is None:
            return
        if item.kind != "reasoning":
            yield from self._teller.close(item, status)
            return
        signed = [block for block in self._thoughts.values() if _is_signed(block)]
        self._thoughts = {}
        proof = {"encrypted_content": orjson.dumps(signed).decode()} if signed else {}
        yield from self._teller.close(item, **proof)

    def _response(self, status: str) -> Json:
        ended = status != "in_progress"
        cut = CUTS.get(self._finish or "")
        echoed = {
            name: value if (said := self._asked.get(name)) is None else said
            for name, value in ECHOED.items()
        }
        return {
            **self._head,
            "object": "response",
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": cut} if ended and cut else None,
            **echoed,
            "tools": [_told_tool(tool) for tool in echoed["tools"]],
            "text": self._asked.get("text") or PLAIN_TEXT,
            "output": self._teller.output if ended else [],
            "previous_response_id": None,
            "store": False,
            # Not nullable in OpenAI's schema.
            **({"user": self._asked["user"]} if self._asked.get("user") else {}),
            **({"usage": _counts(self._usage)} if ended and self._usage is not None else {}),
        }


class Call:
    """What a custom tool is called with, as far as it has come."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    @property
    def arguments(self) -> str:
        return "".join(self._pieces)


def whole_of(body: Json, asked: Json, ids: Callable[[str], str], *, now_s: float) -> Json:
    """Return a chat's whole answer as a `response`."""
    telling = Retelling(asked, ids, now_s=now_s)
    for event in events_of(body, usage=True):
        telling.tell(event)
    found: Json = telling.end()[-1]["response"]
    return found


def custom_tools(asked: Json) -> frozenset[str]:
    """Return the names of the tools that are called with plain text."""
    tools = asked.get("tools")
    return frozenset(
        tool["name"]
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, Mapping)
        and tool.get("type") == "custom"
        and isinstance(tool.get("name"), str)
    )


def _place_of(call: Json, known: Mapping[int, object]) -> int:
    """Return which of the calls a piece belongs to: a piece without an index, to the last."""
    index = call.get("index")
    if isinstance(index, int):
        return index
    last = max(known, default=-1)
    return last + 1 if call.get("id") or last < 0 else last


def _content(arguments: str) -> str:
    """Return the text that LiteLLM had the model wrap in an object."""
    try:
        found = orjson.loads(arguments)
    except ValueError:
        return arguments
    content = found.get("content") if isinstance(found, dict) else None
    return content if isinstance(content, str) else arguments


def _add_block(blocks: dict[int, dict[str, Any]], piece: Json) -> None:
    index = piece.get("index")
    place = index if isinstance(index, int) else len(blocks)
    held = blocks.setdefault(place, {"type": piece.get("type") or "thinking"})
    for name in ("thinking", "signature", "data"):
        if isinstance(words := piece.get(name), str) and words:
            held[name] = held.get(name, "") + words


def _is_signed(block: Json) -> bool:
    return bool(block.get("signature") or block.get("data"))


def _annotation(note: Any) -> Json | None:
    """Return a chat's note to its text as Responses have it: only links are notes there."""
    cited = _of(_of(note).get("url_citation"))
    if not isinstance(cited.get("url"), str):
        return None
    return {
        "type": "url_citation",
        "start_index": cited.get("start_index") or 0,
        "end_index": cited.get("end_index") or 0,
        "title": cited.get("title") or "",
        "url": cited["url"],
    }


def _told_tool(tool: Any) -> Any:
    """Return a tool of the request with the fields that OpenAI fills in."""
    if _of(tool).get("type") != "function":
        return tool
    return {"parameters": None, "strict": False, **tool}


def _counts(usage: Usage) -> Json:
    """Return the tokens as Responses report them; details that OpenAI has no word for stay."""
    more = {
        "cache_write_tokens": usage.cache_write_tokens,
        "audio_tokens": usage.audio_prompt_tokens,
    }
    inward: dict[str, Any] = {"cached_tokens": usage.cached_tokens, **more}
    if usage.cache_write_1h_tokens:
        inward["cache_creation_token_details"] = {
            "ephemeral_1h_input_tokens": usage.cache_write_1h_tokens
        }
    outward: dict[str, Any] = {"reasoning_tokens": usage.reasoning_tokens}
    if usage.audio_completion_tokens:
        outward["audio_tokens"] = usage.audio_completion_tokens
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": inward,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": outward,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _of(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}
