"""
The requests of `/ai/generate` and `/ai/stream` → the Call of a chat.

A body is a bare list of messages, with the rest in the query, or an object. What else stands in an
object (tools, `user`, `fallbacks`, …) is that of a chat request, and goes the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from starlette.datastructures import QueryParams

from proxy.api.parse import Incoming, check_messages, make_call, parse_json, wrong
from proxy.errors import ModelUnknown, RequestInvalid
from proxy.types import Call, Surface

MAX_TOKENS = 1000
MOST_TOKENS = 10_000_000  # more than any model writes
TEMPERATURE = 0.7
HOTTEST = (
    2.0  # OpenAI's range; what a provider with a smaller one takes is for the gateway to clamp
)
QUERY = ("max_tokens", "temperature", "model")


def whole_of(incoming: Incoming) -> Call:
    """Return the call that a request for a whole answer makes. Raises RequestInvalid."""
    return _call(incoming, stream=False)


def streamed_of(incoming: Incoming) -> Call:
    """Return the call that a request for a stream makes. Raises RequestInvalid."""
    return _call(incoming, stream=True)


def _call(incoming: Incoming, *, stream: bool) -> Call:
    said = parse_json(incoming.raw, incoming.depth_limit)
    if isinstance(said, list):
        said = {"messages": said}
    if not isinstance(said, dict):
        raise RequestInvalid("the body is neither a list of messages nor a JSON object")
    body = {**_queried(incoming.query), **said}
    _check(body, stream=stream)
    model = body.get("model")
    filled = {**body, "model": _default(incoming) if model is None else model, "stream": stream}
    for name, value, names in (
        ("max_tokens", MAX_TOKENS, ("max_tokens", "max_completion_tokens")),
        ("temperature", TEMPERATURE, ("temperature",)),
    ):
        if not filled.keys() & set(names):
            filled[name] = value
        elif filled.get(name, value) is None:
            del filled[name]  # so that the provider's own default counts
    return make_call(
        filled,
        surface=Surface.CHAT,
        size_bytes=len(incoming.raw),
    )


def _queried(query: bytes) -> dict[str, Any]:
    """Return what the query says, each value as it would stand in a body."""
    said = QueryParams(query)
    unknown = [name for name in said if name not in QUERY]
    if unknown:
        raise RequestInvalid(
            f"the query takes {', '.join(QUERY)} and nothing else", param=unknown[0][:64]
        )
    readings: Mapping[str, Callable[[str], object]] = {"max_tokens": int, "temperature": float}
    return {name: _read(value, readings.get(name, str)) for name, value in said.items()}


def _read(value: str, reading: Callable[[str], object]) -> object:
    try:
        return reading(value)
    except ValueError:
        return value  # which is no number, and is said to be none where a body's are checked


def _check(body: Mapping[str, Any], *, stream: bool) -> None:
    """Return when the body may be answered in this form. Raises RequestInvalid naming the field."""
    check_messages(body)
    for place, message in enumerate(body["messages"]):
        role = message.get("role")
        if not isinstance(role, str) or not role:
            raise wrong(f"messages[{place}].role", "a text: system, user, assistant or tool")
    for name in ("max_tokens", "max_completion_tokens"):
        if not _is_count(body.get(name)):
            raise wrong(name, f"a whole number from 1 to {MOST_TOKENS}")
    if not _is_temperature(body.get("temperature")):
        raise wrong("temperature", f"a number from 0 to {HOTTEST:g}")
    # There is one answer, it is a text, and the address says how it is sent.
    for name, only in (("n", 1), ("modalities", ["text"]), ("stream", stream)):
        if body.get(name) not in (None, only):
            told = str(only).lower().replace("'", '"')
            raise wrong(name, f"{told} at this address, or left out")


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and 0 < value <= MOST_TOKENS)


def _is_temperature(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # `nan`, as a query may have it, is in no range.
    return value is None or (number and 0 <= value <= HOTTEST)


def _default(incoming: Incoming) -> str:
    """Return the model of requests that name none. Raises ModelUnknown where there is no such."""
    model = incoming.snapshot.policy.ai.model
    if incoming.snapshot.ring(model) is None:
        raise ModelUnknown(
            f"the request names no model, and there is no `{model}`, which would be asked then: "
            "set `mobius.ai.model` to a `model_name` of the configuration, or send `model`",
            param="model",
        )
    return model
