"""The older completions: `choices`, each with a `text`, in a stream as in a whole answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from proxy import aggregate
from proxy.grammar.chat import Chat, holds_choices
from proxy.types import Json

_LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")  # of `logprobs`


class Text(Chat):
    """A chat's grammar but for where the text stands."""

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
