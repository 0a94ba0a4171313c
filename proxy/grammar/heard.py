"""Transcriptions and translations of recordings: a `text`, in a stream piece after piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from proxy.grammar.responses import usage_as_chat
from proxy.grammar.single import Single
from proxy.grammar.sound import failure_of
from proxy.types import Json, Usage
from proxy.usage import usage_of

DELTA, DONE = "transcript.text.delta", "transcript.text.done"
_BEGINS = frozenset({DELTA, DONE, "transcript.text.segment"})


class Heard(Single):
    named = True

    def begins(self, event: Json) -> bool:
        return event.get("type") in _BEGINS

    def endings(self, event: Json) -> Iterator[tuple[int, bool]]:
        yield 0, event.get("type") == DONE

    def failure(self, event: Json) -> Json | None:
        return failure_of(event)

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        usage = said.get("usage")
        if not isinstance(usage, Mapping):
            return before
        # What the Responses call `input_tokens_details` has another name here.
        details = {"prompt_tokens_details": usage.get("input_token_details")}
        return usage_of({"usage": {**usage_as_chat(usage), **details}}) or before

    def reports(self, event: Json) -> bool:
        return event.get("type") == DONE

    def text_bytes(self, event: Json) -> int:
        return _bytes_of(event.get("delta")) if event.get("type") == DELTA else 0

    def said_bytes(self, body: Json) -> int:
        return _bytes_of(body.get("text"))

    def answers(self, body: object) -> bool:
        return isinstance(body, dict) and isinstance(body.get("text"), str)

    def whole(self, events: Iterable[Json]) -> Json:
        last = [event for event in events if event.get("type") == DONE][-1:]
        if not last:
            raise ValueError("the stream has no end that holds the text")
        return {name: value for name, value in last[0].items() if name != "type"}

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        text = body.get("text") or ""
        end: dict[str, Any] = {"type": DONE, "text": text}
        if body.get("usage"):
            end["usage"] = body["usage"]
        return [*([{"type": DELTA, "delta": text}] if text else []), end]


def _bytes_of(text: object) -> int:
    return len(text.encode(errors="surrogatepass")) if isinstance(text, str) else 0
