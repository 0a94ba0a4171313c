"""The shapes of OpenAI's chat completions, unary and streamed."""

from __future__ import annotations

from collections.abc import Iterator

from tests.providers.dialect import Ask, Piece, counted, joined, pieces
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json, Usage


def whole(ask: Ask, answer: Answer) -> Json:
    """A `chat.completion`."""
    said = pieces(answer)
    choices = [
        {
            "index": index,
            "message": _message(ask, answer, said),
            "logprobs": _logprobs(ask, said),
            "finish_reason": _finish(answer),
        }
        for index in range(_choices(ask))
    ]
    return {**_top(ask, "chat.completion"), "choices": choices, **usage_field(ask, answer)}


def events(ask: Ask, answer: Answer) -> Iterator[Event]:
    """The stream of `chat.completion.chunk`."""
    indices = range(_choices(ask))
    for index in indices:
        delta = {"role": "assistant", "content": _opening_content(answer), "refusal": None}
        yield Event("open", _chunk(ask, index, delta))
    called: set[int] = set()
    for piece in pieces(answer):
        if piece.kind == "tool" and piece.tool not in called:
            called.add(piece.tool)
            for index in indices:
                yield Event("content", _chunk(ask, index, _tool_opening(ask, answer, piece)))
        for index in indices:
            chunk = _chunk(ask, index, _delta(piece), logprobs=_logprobs(ask, [piece]))
            yield Event("content", chunk, tokens=(piece.number,))
    for index in indices:
        yield Event("finish", _chunk(ask, index, {}, finish=_finish(answer)))
    if wants_usage(ask) and answer.usage is not MISSING:
        yield Event("usage", {**_top(ask), "choices": [], **usage_field(ask, answer)})
    yield Event("done", "[DONE]")


def _choices(ask: Ask) -> int:
    n = ask.body.get("n")
    return n if isinstance(n, int) and n > 0 else 1


def wants_usage(ask: Ask) -> bool:
    options = ask.body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def _top(ask: Ask, kind: str = "chat.completion.chunk") -> Json:
    return {
        "id": f"chatcmpl-fake{ask.number:06d}",
        "object": kind,
        "created": ask.created,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_fake000001",
    }


def _chunk(
    ask: Ask, index: int, delta: Json, *, finish: str | None = None, logprobs: Json | None = None
) -> Json:
    choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
    usage = {"usage": None} if wants_usage(ask) else {}
    return {**_top(ask), "choices": [choice], **usage, "obfuscation": "x7Kq"}


def _opening_content(answer: Answer) -> str | None:
    return None if answer.tool_calls and answer.text is None and not answer.tokens else ""


def _message(ask: Ask, answer: Answer, said: list[Piece]) -> Json:
    message: Json = {
        "role": "assistant",
        "content": joined(said, "text") or _opening_content(answer),
        "refusal": answer.refusal,
        "annotations": [],
    }
    if answer.reasoning is not None:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [
            {
                "id": _call_id(ask, answer, index),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(answer.tool_calls)
        ]
    if answer.refusal is not None:
        message["content"] = None
    return message


def _call_id(ask: Ask, answer: Answer, index: int) -> str:
    return answer.tool_calls[index].id or f"call_fake{ask.number:04d}{index:04d}"


def _delta(piece: Piece) -> Json:
    match piece.kind:
        case "text":
            return {"content": piece.text}
        case "reasoning":
            return {"reasoning_content": piece.text}
        case "refusal":
            return {"refusal": piece.text}
        case "tool":
            return {"tool_calls": [{"index": piece.tool, "function": {"arguments": piece.text}}]}


def _tool_opening(ask: Ask, answer: Answer, piece: Piece) -> Json:
    call = {
        "index": piece.tool,
        "id": _call_id(ask, answer, piece.tool),
        "type": "function",
        "function": {"name": answer.tool_calls[piece.tool].name, "arguments": ""},
    }
    return {"tool_calls": [call]}


def _finish(answer: Answer) -> str:
    return answer.finish or ("tool_calls" if answer.tool_calls else "stop")


def _logprobs(ask: Ask, said: list[Piece]) -> Json | None:
    if ask.body.get("logprobs") is not True:
        return None
    return {
        "content": [
            {
                "token": piece.text,
                "logprob": -0.25,
                "bytes": list(piece.text.encode()),
                "top_logprobs": [],
            }
            for piece in said
            if piece.kind == "text"
        ],
        "refusal": None,
    }


def usage_field(ask: Ask, answer: Answer) -> Json:
    if answer.usage is MISSING:
        return {}
    usage = counted(ask, answer, _choices(ask))
    return {"usage": answer.usage if usage is None else usage_json(usage)}


def usage_json(usage: Usage) -> Json:
    """Token counts in OpenAI's shape."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
