"""How an answer is written: what a surface makes of a reply's bytes, and of what ends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from proxy.api.render import error_body, error_frame
from proxy.clock import Clock
from proxy.errors import ProxyError
from proxy.grammar import GRAMMARS
from proxy.replies import Chunk, Completion
from proxy.types import Tally


class Form(Protocol):
    """The form of one answer. Each method returns bytes as they go out."""

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


def as_it_came(tally: Tally, clock: Clock) -> Form:
    return AsItCame(tally)
