"""
One answer in both of its shapes: a stream from a whole one, and a whole one from a stream. Pure.

The two are inverse to each other as far as OpenAI's fields go: `aggregate` of the events made here
is the body that they were made from.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from proxy import sse
from proxy.aggregate import aggregate, choices_of
from proxy.types import Json

_NOT_OF_AN_EVENT = frozenset({"choices", "object", "usage"})


def events_of(body: Json, *, usage: bool) -> list[Json]:
    """Return the events of a stream that says what `body` says, with its usage if that is asked."""
    head = {name: value for name, value in body.items() if name not in _NOT_OF_AN_EVENT}
    head["object"] = "chat.completion.chunk"
    events: list[Json] = []
    for choice in body.get("choices") or ():
        events += [{**head, "choices": [each]} for each in _deltas(choice)]
    if usage and body.get("usage"):
        events.append({**head, "choices": [], "usage": body["usage"]})
    return events


def body_of(events: Iterable[Json]) -> Json:
    """Return the whole answer that a stream amounts to. Raises ValueError where it does not fit."""
    return aggregate(events)


def is_usage(event: Json) -> bool:
    """Say whether the event is there for whoever asked for the usage, and for nobody else."""
    return not event.get("choices") and bool(event.get("usage"))


def frames_of(events: Iterable[Json], *, named: bool = False) -> bytes:
    """Return the events as they are sent, one after the other; `named`: each under its type."""
    if named:
        return b"".join(sse.frame(orjson.dumps(event), name_of(event)) for event in events)
    return b"".join(sse.frame(orjson.dumps(event)) for event in events)


def events_in(frames: bytes) -> list[Json]:
    """Return the events of what `frames_of` has made. Raises ValueError where it has not."""
    # A name stands before its event, and no line end is in either.
    lines = (each.rpartition(b"\n")[2] for each in frames.split(b"\n\n") if each)
    events = [orjson.loads(line.removeprefix(b"data: ")) for line in lines]
    if not all(isinstance(event, dict) for event in events):
        raise ValueError("an event is not a JSON object")
    return events


def name_of(event: Json) -> bytes:
    """Return the name that an event of OpenAI's Responses or of Anthropic's is sent under."""
    name = event.get("type")
    # A line end in it would end the name; no surface has such a type.
    return name.encode() if isinstance(name, str) and name.isprintable() else b""


def finish_reasons(events: Iterable[Json]) -> list[object]:
    """Return why each choice of a stream ended; None for one that did not."""
    reasons: dict[int, object] = {}
    for event in events:
        for index, choice in choices_of(event):
            reasons[index] = choice.get("finish_reason") or reasons.get(index)
    return list(reasons.values())


def _deltas(choice: Json) -> Iterator[dict[str, Any]]:
    index, message = choice.get("index", 0), choice.get("message") or {}
    delta = {name: value for name, value in message.items() if name != "tool_calls"}
    calls = message.get("tool_calls")
    if calls:
        delta["tool_calls"] = [_numbered(place, call) for place, call in enumerate(calls)]
    said = {name: choice[name] for name in choice if name not in {"index", "message"}}
    reason = said.pop("finish_reason", None)
    yield {"index": index, "delta": delta, "finish_reason": None, **said}
    yield {"index": index, "delta": {}, "finish_reason": reason}


def _numbered(place: int, call: object) -> object:
    return {"index": place, **call} if isinstance(call, Mapping) else call
