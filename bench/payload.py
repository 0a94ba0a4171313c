"""What is asked and what is answered: fixed bytes, and the check that an answer is that answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

PACE_S = 0.02
CHUNKS = 62  # data events of the stream: a role, the words, a finish reason, the usage, [DONE]
_WORDS = [f"word{number:02d} " for number in range(CHUNKS - 4)]
# What a message of Anthropic's says: as many data events once it is a chat's, whose first has text.
_SAID = [*_WORDS, f"word{len(_WORDS):02d} "]
_PROMPT_TOKENS = 212
_USAGE = {"prompt_tokens": _PROMPT_TOKENS, "completion_tokens": len(_WORDS), "total_tokens": 270}
# How the provider knows, through whatever is in between.
PACED_USER = "bench-paced"
LONG_USER = "bench-long"
LONG_EVENTS = 4000
LONG_WRITE_EVENTS = 25  # that are written together
LONG_PACE_S = 0.12  # slow enough that a server does not fall behind
_QUESTION = "Explain in one paragraph what a reverse proxy does, and when it should not be used. "


class Kind(StrEnum):
    """How an answer travels."""

    UNARY = "unary"
    STREAM = "stream"  # all of its events in one write
    PACED = "paced"  # an event every PACE_S
    LONG = "long"  # LONG_EVENTS of them, so many every LONG_PACE_S


USERS = {Kind.PACED: PACED_USER, Kind.LONG: LONG_USER}


class WrongAnswer(Exception):
    """An answer that is not the one the provider gave: nothing measured with it counts."""


def question(model: str, kind: Kind) -> bytes:
    """Return the body of a request: 1 KB, as a short conversation has."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You answer briefly and precisely."},
            {"role": "user", "content": _QUESTION * 10},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if kind is not Kind.UNARY:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    if kind in USERS:
        body["user"] = USERS[kind]
    return json.dumps(body).encode()


def _whole(kind: str, choices: Sequence[Any], usage: Any) -> bytes:
    head = {"id": "chatcmpl-bench", "object": kind, "created": 1700000000, "model": "bench-model"}
    tail = {"choices": choices, "usage": usage, "system_fingerprint": "fp_bench"}
    return json.dumps(head | tail, separators=(",", ":")).encode()


def _message() -> bytes:
    message = {"role": "assistant", "content": "".join(_WORDS), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _whole("chat.completion", [choice], _USAGE)


def _event(delta: dict[str, str] | None, finish: str | None = None, usage: Any = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    choices = [] if delta is None else [choice]
    return b"data: " + _whole("chat.completion.chunk", choices, usage) + b"\n\n"


MESSAGE = _message()
EVENTS = (
    _event({"role": "assistant", "content": ""}),
    *(_event({"content": word}) for word in _WORDS),
    _event({}, finish="stop"),
    _event(None, usage=_USAGE),
    b"data: [DONE]\n\n",
)
STREAM = b"".join(EVENTS)
_LONG_USAGE = _USAGE | {"completion_tokens": LONG_EVENTS - 4, "total_tokens": LONG_EVENTS + 208}
LONG = (
    EVENTS[0],
    *(_event({"content": f"word{number:04d} "}) for number in range(LONG_EVENTS - 4)),
    _event({}, finish="stop"),
    _event(None, usage=_LONG_USAGE),
    EVENTS[-1],
)


def _said(kind: str, **fields: Any) -> bytes:
    event = json.dumps({"type": kind, **fields}, separators=(",", ":")).encode()
    return b"event: " + kind.encode() + b"\ndata: " + event + b"\n\n"


def _tokens(written: int) -> dict[str, int]:
    cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return {"input_tokens": _PROMPT_TOKENS, **cache, "output_tokens": written}


def _of_anthropic(content: list[Any], stop: str | None, written: int) -> dict[str, Any]:
    head = {"id": "msg_bench", "type": "message", "role": "assistant", "model": CLAUDE}
    ends = {"stop_reason": stop, "stop_sequence": None}
    return {**head, "content": content, **ends, "usage": _tokens(written)}


CLAUDE = "claude-sonnet-4-5"
CLAUDE_MESSAGE = json.dumps(
    _of_anthropic([{"type": "text", "text": "".join(_SAID)}], "end_turn", len(_SAID)),
    separators=(",", ":"),
).encode()
CLAUDE_EVENTS = (
    _said("message_start", message=_of_anthropic([], None, 1)),
    _said("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    _said("ping"),
    *(
        _said("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
        for word in _SAID
    ),
    _said("content_block_stop", index=0),
    _said(
        "message_delta",
        delta={"stop_reason": "end_turn", "stop_sequence": None},
        usage=_tokens(len(_SAID)),
    ),
    _said("message_stop"),
)


def check(kind: Kind, status: int, body: bytes) -> None:
    """Raise WrongAnswer unless this is the whole answer of the provider, at least in fact."""
    if status != 200:
        raise WrongAnswer(f"status {status}: {body[:500].decode(errors='replace')}")
    if body == (MESSAGE if kind is Kind.UNARY else STREAM):
        return
    try:
        found = _of_message(body) if kind is Kind.UNARY else _of_stream(body)
    except (ValueError, LookupError, TypeError) as exc:
        raise WrongAnswer(f"not an answer ({exc!r}): {body[-500:]!r}") from exc
    if found not in (
        ("".join(_WORDS), ["stop"], _USAGE["total_tokens"]),
        ("".join(_SAID), ["stop"], _PROMPT_TOKENS + len(_SAID)),
    ):
        raise WrongAnswer(f"another answer: {found}")


def _of_message(body: bytes) -> tuple[str, list[str], int]:
    answer = json.loads(body)
    choices = answer["choices"]
    text = "".join(choice["message"]["content"] for choice in choices)
    return text, [choice["finish_reason"] for choice in choices], answer["usage"]["total_tokens"]


def _of_stream(body: bytes) -> tuple[str, list[str], int]:
    payloads = [line[5:].strip() for line in body.splitlines() if line.startswith(b"data:")]
    if payloads[-1] != b"[DONE]" or len(payloads) != CHUNKS:
        raise ValueError(f"{len(payloads)} events, the last of them {payloads[-1]!r}")
    events = [json.loads(payload) for payload in payloads[:-1]]
    choices = [choice for event in events for choice in event["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    finishes = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
    (usage,) = [event["usage"] for event in events if event.get("usage")]
    return text, finishes, usage["total_tokens"]
