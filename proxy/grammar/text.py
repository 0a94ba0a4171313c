"""The older completions: `choices`, each with a `text`, in a stream as in a whole answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from proxy import aggregate, replay, sse
from proxy.grammar.chat import endings_of, holds_choices
from proxy.types import Json, Usage
from proxy.usage import usage_of

_LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")  # of `logprobs`


class Text:
    done = sse.DONE_FRAME
    named = False

    def begins(self, event: Json) -> bool:
        return aggregate.has_content(event)

    def endings(self, event: Json) -> Iterator[tuple[int, bool]]:
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
        return aggregate.text_bytes(body)

    def answers(self, body: object) -> bool:
        return holds_choices(body, "text", str)

    def whole(self, events: Iterable[Json]) -> Json:
        body: dict[str, Any] = {"id": "", "object": "text_completion", "created": 0, "model": ""}
        choices: dict[int, dict[str, Any]] = {}
        for event in events:
            body |= {name: value for name, value in event.items() if value and name != "choices"}
            for index, piece in aggregate.choices_of(event):
                _add(choices.setdefault(index, _empty(index)), piece)
        return {**body, "choices": [choices[index] for index in sorted(choices)]}

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        head = {name: value for name, value in body.items() if name not in ("choices", "usage")}
        events: list[Json] = [{**head, "choices": [each]} for each in body.get("choices") or ()]
        if usage and body.get("usage"):
            events.append({**head, "choices": [], "usage": body["usage"]})
        return events

    def reasons(self, said: Iterable[Json]) -> list[object]:
        return replay.finish_reasons(said)


def _empty(index: int) -> dict[str, Any]:
    return {"text": "", "index": index, "logprobs": None, "finish_reason": None}


def _add(choice: dict[str, Any], piece: Json) -> None:
    if isinstance(text := piece.get("text"), str):
        choice["text"] += text
    choice["finish_reason"] = piece.get("finish_reason") or choice["finish_reason"]
    logprobs = piece.get("logprobs")
    if isinstance(logprobs, dict):
        held = choice["logprobs"] = choice["logprobs"] or {name: [] for name in _LISTS}
        for name in _LISTS:
            held[name] += logprobs.get(name) or []
