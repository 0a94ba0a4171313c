"""Chat completions: `choices`, each with a message, in a stream with a delta."""

from __future__ import annotations

from collections.abc import Iterable

from proxy import aggregate, replay, sse
from proxy.types import Json, Usage
from proxy.usage import usage_of


class Chat:
    done = sse.DONE_FRAME
    named = False

    def begins(self, event: Json) -> bool:
        return aggregate.has_content(event)

    def endings(self, event: Json) -> Iterable[tuple[int, bool]]:
        return endings_of(event)

    def failure(self, event: Json) -> Json | None:
        return event if event.get("error") else None

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        return (usage_of(said) if said.get("usage") else None) or before

    def reports(self, event: Json) -> bool:
        return bool(event.get("usage"))

    def only_usage(self, event: Json) -> bool:
        return replay.is_usage(event)

    def text_bytes(self, event: Json) -> int:
        return aggregate.text_bytes(event)

    def said_bytes(self, body: Json) -> int:
        choices = body.get("choices")
        messages = [c.get("message") for c in choices if isinstance(c, dict)] if choices else []
        return aggregate.text_bytes({"choices": [{"delta": message} for message in messages]})

    def answers(self, body: object) -> bool:
        return holds_choices(body, "message", dict)

    def whole(self, events: Iterable[Json]) -> Json:
        return aggregate.aggregate(events)

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        return replay.events_of(body, usage=usage)

    def reasons(self, said: Iterable[Json]) -> list[object]:
        return replay.finish_reasons(said)


def endings_of(event: Json) -> list[tuple[int, bool]]:
    """Return the index of each choice of the event, and whether it has a finish reason."""
    choices = event.get("choices")
    if not choices or not isinstance(choices, list):
        return []
    return [
        (index, bool(choice.get("finish_reason")))
        for choice in choices
        if isinstance(choice, dict) and isinstance(index := choice.get("index", 0), int)
    ]


def holds_choices(body: object, name: str, kind: type) -> bool:
    """Say whether a body has choices, each with a field `name` of that kind."""
    choices = body.get("choices") if isinstance(body, dict) else None
    return (
        isinstance(choices, list)
        and bool(choices)
        and all(isinstance(c, dict) and isinstance(c.get(name), kind) for c in choices)
    )
