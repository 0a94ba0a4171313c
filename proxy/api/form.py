"""How an answer is written: what a surface makes of a reply's bytes, and of what ends it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, TypeAlias

import orjson

from proxy import sse
from proxy.api.render import error_body, error_frame
from proxy.clock import Clock
from proxy.errors import ProxyError
from proxy.grammar import GRAMMARS
from proxy.replies import Chunk, Completion
from proxy.types import Tally


class Form(Protocol):
    """
    The form of one answer. Each method returns bytes as they go out.

    `pulses`: while nothing is there yet, comments may keep the connection.
    """

    pulses: bool

    def whole(self, reply: Completion) -> tuple[bytes, str]:
        """Return a whole answer, and the type of its content."""
        ...

    def events(self, chunk: Chunk) -> bytes:
        """Return whole events, or nothing where the chunk says nothing in this form."""
        ...

    def end(self) -> bytes:
        """Return what ends a stream that is complete."""
        ...

    def at_once(self, raw: bytes) -> bytes:
        """Return a whole stream; `raw` is one as the surface has it, its end included."""
        ...

    def broken(self, error: ProxyError) -> bytes:
        """Return the one event that ends a stream which cannot go on."""
        ...

    def failed(self, error: ProxyError) -> bytes:
        """Return the body of an error that stands instead of an answer."""
        ...


Forming: TypeAlias = Callable[[Tally, Clock], Form]


class AsItCame:
    """OpenAI's form, which every reply has already."""

    pulses = True

    def __init__(self, tally: Tally) -> None:
        self._grammar = GRAMMARS[tally.surface]

    def whole(self, reply: Completion) -> tuple[bytes, str]:
        return reply.raw, reply.content_type

    def events(self, chunk: Chunk) -> bytes:
        return chunk.raw

    def end(self) -> bytes:
        return self._grammar.done

    def at_once(self, raw: bytes) -> bytes:
        return raw

    def broken(self, error: ProxyError) -> bytes:
        return error_frame(error)

    def failed(self, error: ProxyError) -> bytes:
        return error_body(error)


class AsResponse(AsItCame):
    """OpenAI's Responses: the error of a stream has a name and a number, and fields of its own."""

    def __init__(self, tally: Tally) -> None:
        super().__init__(tally)
        self._last: Chunk | None = None

    def events(self, chunk: Chunk) -> bytes:
        self._last = chunk
        return chunk.raw

    def broken(self, error: ProxyError) -> bytes:
        fields = orjson.loads(error_body(error))["error"]
        said = {name: fields[name] for name in ("code", "message", "param")}
        # OpenAI's SDK raises at an `error`, and passes anything else on as one more event.
        event = {"type": "error", "sequence_number": self._next(), **said, "error": fields}
        return sse.frame(orjson.dumps(event), b"error")

    def _next(self) -> int:
        """Return the number after that of the last event."""
        with suppress(ValueError, LookupError):
            if self._last is not None and self._last.events:
                number = self._last.events[-1].get("sequence_number")
                return number + 1 if isinstance(number, int) else 0
        return 0


class AsSound(AsItCame):
    """Speech: nothing may be said before it is known whether events will follow."""

    pulses = False


def as_sound(tally: Tally, clock: Clock) -> Form:
    return AsSound(tally)


def as_response(tally: Tally, clock: Clock) -> Form:
    return AsResponse(tally)


def as_it_came(tally: Tally, clock: Clock) -> Form:
    return AsItCame(tally)
