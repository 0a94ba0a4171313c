"""
Speech: bytes as they come, or OpenAI's events that hold them.

Bytes are no JSON. An event that says so stands for each piece of them, and one for their end, so
that whoever watches a stream reads this one too.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.grammar.responses import usage_as_chat
from proxy.grammar.single import Single
from proxy.types import Json, Usage
from proxy.usage import usage_of

PIECE: tuple[Json, ...] = ({"type": "mobius.sound"},)
END: Json = {"type": "mobius.sound.end"}
_BEGINS = frozenset({"mobius.sound", "speech.audio.delta", "speech.audio.done"})
_ENDS = frozenset({"mobius.sound.end", "speech.audio.done"})


class Speech(Single):
    named = True

    def begins(self, event: Json) -> bool:
        return event.get("type") in _BEGINS

    def endings(self, event: Json) -> Iterator[tuple[int, bool]]:
        yield 0, event.get("type") in _ENDS

    def failure(self, event: Json) -> Json | None:
        return failure_of(event)

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        found = usage_of({"usage": usage_as_chat(said.get("usage"))})
        if found is None:
            return before
        # What comes back is sound and nothing else.
        return found._replace(audio_completion_tokens=found.completion_tokens)

    def reports(self, event: Json) -> bool:
        return event.get("type") in _ENDS


def failure_of(event: Json) -> Json | None:
    """Return what holds the error of an event, in either of the forms that OpenAI has."""
    if event.get("error"):
        return event
    return {"error": {**event, "type": None}} if event.get("type") == "error" else None
