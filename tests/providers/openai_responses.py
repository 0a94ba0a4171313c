"""The shapes of OpenAI's Responses API: text, reasoning left out, and function calls."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from tests.providers.dialect import Ask, Piece, counted, joined, pieces
from tests.providers.sse import Event, EventKind
from tests.providers.steps import MISSING, Answer, Json


def whole(ask: Ask, answer: Answer) -> Json:
    """A completed `response`."""
    return _response(ask, answer, "completed")


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """The stream of `response.*` events, which ends with `response.completed`."""
    numbers = count()

    def event(kind: EventKind, name: str, body: Json, *tokens: int) -> Event:
        data = {"type": name, "sequence_number": next(numbers), **body}
        return Event(kind, data, name, tokens)

    begun = _response(ask, answer, "in_progress")
    yield event("open", "response.created", {"response": begun})
    yield event("open", "response.in_progress", {"response": begun})
    output = _output(ask, answer)
    tools_from = len(output) - len(answer.tool_calls)
    for index, item in enumerate(output):
        where = {"output_index": index}
        started = {**item, "status": "in_progress"}
        opening: EventKind = "open" if item["type"] == "message" else "content"
        blank: Json = {"content": []} if item["type"] == "message" else {"arguments": ""}
        yield event(opening, "response.output_item.added", {**where, "item": started | blank})
        part = {**where, "item_id": item["id"], "content_index": 0}
        if item["type"] == "message":
            blank_part = {**item["content"][0], "text": ""}
            yield event("open", "response.content_part.added", {**part, "part": blank_part})
        for piece in _pieces_of(item, index - tools_from, answer):
            at = {**where, "item_id": item["id"], "delta": piece.text}
            if piece.kind == "tool":
                name = "response.function_call_arguments.delta"
                yield event("content", name, at, piece.number)
            else:
                at = {**part, "delta": piece.text, "logprobs": []}
                yield event("content", "response.output_text.delta", at, piece.number)
        if item["type"] == "message":
            done = {**part, "part": item["content"][0]}
            yield event("content", "response.content_part.done", done)
        yield event("content", "response.output_item.done", {**where, "item": item})
    yield event("finish", "response.completed", {"response": whole(ask, answer)})


def kept(ask: Ask, id: str, below: str = "") -> Json:
    """What is said of a response that was made before: any id is one."""
    if below == "input_items":
        item = {"id": f"in_{id}", "type": "message", "role": "user", "content": []}
        return {"object": "list", "data": [item], "has_more": False, "first_id": item["id"]}
    if ask.request.method == "DELETE":
        return {"id": id, "object": "response", "deleted": True}
    response = _response(ask, Answer(), "completed")
    return {**response, "id": id, "status": "cancelled" if below == "cancel" else "completed"}


def _pieces_of(item: Json, tool: int, answer: Answer) -> list[Piece]:
    said = pieces(answer)
    if item["type"] == "message":
        return [piece for piece in said if piece.kind == "text"]
    return [piece for piece in said if piece.kind == "tool" and tool == piece.tool]


def _output(ask: Ask, answer: Answer) -> list[Json]:
    output: list[Json] = []
    if text := joined(pieces(answer), "text"):
        part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
        output.append({"type": "message", "role": "assistant", "content": [part]})
    output += [
        {
            "type": "function_call",
            "call_id": call.id or f"call_fake{ask.number:04d}{index:04d}",
            "name": call.name,
            "arguments": call.arguments,
        }
        for index, call in enumerate(answer.tool_calls)
    ]
    for index, item in enumerate(output):
        item |= {"id": f"item_fake{ask.number:04d}{index:04d}", "status": "completed"}
    return output


def _response(ask: Ask, answer: Answer, status: str) -> Json:
    done = status == "completed"
    usage = counted(ask, answer)
    counts = usage and {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
    reported = {} if answer.usage is MISSING else {"usage": counts or answer.usage}
    return {
        "id": f"resp_fake{ask.request.headers.get('host', '')[-5:]}{ask.number:06d}",
        "object": "response",
        "created_at": ask.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": ask.model,
        "output": _output(ask, answer) if done else [],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        **(reported if done else {"usage": None}),
    }
