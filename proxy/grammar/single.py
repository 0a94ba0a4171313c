"""Surfaces without a stream: one whole answer, which is its own end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from proxy.grammar.responses import usage_as_chat
from proxy.types import Json, Usage
from proxy.usage import usage_of


class Single:
    """What all of them have in common. There are no events to read."""

    done = b""
    named = False

    def begins(self, event: Json) -> bool:
        return False

    def endings(self, event: Json) -> Iterator[tuple[int, bool]]:
        return iter(())

    def failure(self, event: Json) -> Json | None:
        return event if event.get("error") else None

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        return usage_of(said)

    def reports(self, event: Json) -> bool:
        return False

    def only_usage(self, event: Json) -> bool:
        return False

    def text_bytes(self, event: Json) -> int:
        return 0

    def said_bytes(self, body: Json) -> int:
        return 0

    def answers(self, body: object) -> bool:
        return isinstance(body, dict)

    def whole(self, events: Iterable[Json]) -> Json:
        raise ValueError("there is no stream on this surface")

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        return []

    def reasons(self, said: Iterable[Json]) -> list[object]:
        return ["stop"]


class Listed(Single):
    """An answer with a list of what was asked for under `name`."""

    def __init__(self, name: str) -> None:
        self._name = name

    def answers(self, body: object) -> bool:
        return isinstance(body, dict) and isinstance(body.get(self._name), list)


class Drawn(Listed):
    """Images, whose usage has the names that the Responses give it."""

    def __init__(self) -> None:
        super().__init__("data")

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        return usage_of({"usage": usage_as_chat(said.get("usage"))}) or usage_of(said)


class Embedding(Listed):
    """Vectors, one for each input; all the tokens are the prompt's."""

    def __init__(self) -> None:
        super().__init__("data")

    def answers(self, body: object) -> bool:
        return super().answers(body) and isinstance(body, dict) and bool(body["data"])


class Counted(Single):
    """How many tokens a request would take. Nobody charges for the answer."""

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        return Usage()

    def answers(self, body: object) -> bool:
        return isinstance(body, dict) and type(body.get("input_tokens")) is int
