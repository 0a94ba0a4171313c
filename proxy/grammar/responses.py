"""OpenAI's Responses: an `output` of items, in a stream events that each say what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxy.types import Json, Usage
from proxy.usage import usage_of

ENDS = frozenset({"response.completed", "response.incomplete"})
CALLS = frozenset({"function_call", "custom_tool_call"})  # items that the caller is to answer
# What comes before anything of an answer does: the response itself, and empty places in it.
OPENINGS = frozenset(
    {
        "keepalive", "response.content_part.added", "response.created", "response.in_progress",
        "response.output_item.added", "response.queued", "response.reasoning_summary_part.added",
    }
)  # fmt: skip


class Responses:
    done = b""
    named = True

    def begins(self, event: Json) -> bool:
        kind = event.get("type")
        return isinstance(kind, str) and kind not in OPENINGS

    def endings(self, event: Json) -> Iterator[tuple[int, bool]]:
        yield 0, event.get("type") in ENDS

    def failure(self, event: Json) -> Json | None:
        match event:
            case {"type": "error"}:
                error = event.get("error")
                return {"error": error if isinstance(error, Mapping) else {**event, "type": None}}
            case {"type": str(), "response": {"error": Mapping() as error}}:
                return {"error": error}
            case {"type": "response.failed"} | {"object": "response", "status": "failed"}:
                return {"error": event.get("error") or {}}
            case {"type": str()}:
                return None
            case _:
                return event if event.get("error") else None

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        response = said.get("response", said)
        usage = response.get("usage") if isinstance(response, Mapping) else None
        return usage_of({"usage": usage_as_chat(usage)}) or before

    def reports(self, event: Json) -> bool:
        return self.usage(event, None) is not None

    def only_usage(self, event: Json) -> bool:
        return False

    def text_bytes(self, event: Json) -> int:
        delta = event.get("delta")
        # What is heard, drawn or encrypted says nothing about tokens.
        if not isinstance(delta, str) or "audio.delta" in str(event.get("type")):
            return 0
        return len(delta.encode(errors="surrogatepass"))

    def said_bytes(self, body: Json) -> int:
        return sum(len(text.encode(errors="surrogatepass")) for text in _texts(body.get("output")))

    def answers(self, body: object) -> bool:
        return isinstance(body, dict) and isinstance(body.get("output"), list)

    def whole(self, events: Iterable[Json]) -> Json:
        for event in reversed(list(events)):
            if event.get("type") in ENDS and isinstance(event.get("response"), dict):
                whole: Json = event["response"]
                return whole
        raise ValueError("the stream has no end that holds the response")

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        begun = {**body, "status": "in_progress", "output": [], "usage": None}
        kind = "completed" if body.get("status") == "completed" else "incomplete"
        return [
            {"type": "response.created", "sequence_number": 0, "response": begun},
            {"type": f"response.{kind}", "sequence_number": 1, "response": body},
        ]

    def reasons(self, said: Iterable[Json]) -> list[object]:
        events = list(said)
        told = [event for event in events if event.get("type") in ENDS] or events
        return [_reason(each.get("response", each)) for each in told[-1:]]


def _reason(response: object) -> str | None:
    """Return why a response ended, in the words of a chat; None for one that has not."""
    match response:
        case {"status": "completed", "output": list(output)}:
            called = any(isinstance(each, Mapping) and each.get("type") in CALLS for each in output)
            return "tool_calls" if called else "stop"
        case {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}:
            return "content_filter"
        case {"status": "incomplete"}:
            return "length"
        case _:
            return None


def usage_as_chat(usage: object) -> Json:
    """Return a usage in the words of a chat's, which mean the same; nothing for what is none."""
    if not isinstance(usage, Mapping):
        return {}
    names = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
    return {
        **{chat: usage[name] for name, chat in names.items() if name in usage},
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }


def _texts(output: Any) -> Iterator[str]:
    """Yield the texts of all items: what is said, thought, refused or asked of a tool."""
    for item in output if isinstance(output, list) else ():
        if not isinstance(item, Mapping):
            continue
        parts = [*_list(item.get("content")), *_list(item.get("summary")), item]
        for part in parts:
            for name in ("text", "refusal", "arguments", "input"):
                text = part.get(name) if isinstance(part, Mapping) else None
                if isinstance(text, str):
                    yield text


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
