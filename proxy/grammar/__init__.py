"""
How the answers of each surface are read: where a stream has content and where it ends, what it
reports as used, and what a whole answer must hold. Pure.

Everything on the path of a request that has to look into an answer asks the grammar of its surface,
so that a surface is a class here and a row in the tables of the edge and of the lanes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from proxy.grammar.chat import Chat
from proxy.grammar.heard import Heard
from proxy.grammar.messages import Messages
from proxy.grammar.responses import Responses
from proxy.grammar.single import Counted, Drawn, Embedding, Listed
from proxy.grammar.sound import Speech
from proxy.grammar.text import Text
from proxy.types import Json, Surface, Usage


class Grammar(Protocol):
    """
    Reads what a provider says on one surface: `body` is a whole answer, `event` one of a stream.

    None of it raises on JSON of another form, but for `whole`.
    """

    @property
    def done(self) -> bytes:
        """What follows the last event of a stream that ended well; empty where nothing does."""
        ...

    @property
    def named(self) -> bool:
        """Whether the events of a stream have names."""
        ...

    def begins(self, event: Json) -> bool:
        """Say whether the event brings anything of an answer: the least piece of it, or its end."""
        ...

    def endings(self, event: Json) -> Iterable[tuple[int, bool]]:
        """Return the index of each choice that the event speaks of, and whether it ends it."""
        ...

    def failure(self, event: Json) -> Json | None:
        """Return what holds the provider's error, where the event, or a whole body, reports one."""
        ...

    def usage(self, said: Json, before: Usage | None) -> Usage | None:
        """Return the tokens after a body or an event; `before` is what earlier events came to."""
        ...

    def reports(self, event: Json) -> bool:
        """Say whether the event has the usage in it, after which no more is to be expected."""
        ...

    def only_usage(self, event: Json) -> bool:
        """Say whether one that reports it is for whoever asked for that, and for nobody else."""
        ...

    def text_bytes(self, event: Json) -> int:
        """Return the UTF-8 bytes of generated text in an event."""
        ...

    def said_bytes(self, body: Json) -> int:
        """Return the UTF-8 bytes of generated text in a whole answer."""
        ...

    def answers(self, body: object) -> bool:
        """Say whether a whole body is an answer that can be read."""
        ...

    def whole(self, events: Iterable[Json]) -> Json:
        """Return the answer that a stream amounts to. Raises ValueError where it does not fit."""
        ...

    def events(self, body: Json, *, usage: bool) -> list[Json]:
        """Return the events of a stream that says what `body` says, with its usage if asked."""
        ...

    def reasons(self, said: Iterable[Json]) -> list[object]:
        """
        Return why each choice ended, of the events of a stream or of one whole body, in the words
        of a chat; None for one that did not, and nothing where the end of the stream is missing.
        """
        ...


GRAMMARS: Mapping[Surface, Grammar] = {
    Surface.CHAT: Chat(),
    Surface.COMPLETIONS: Text(),
    Surface.EMBEDDINGS: Embedding(),
    Surface.MODERATIONS: Listed("results"),
    Surface.IMAGES: Drawn(),
    Surface.RESPONSES: Responses(),
    Surface.RERANK: Listed("results"),
    Surface.MESSAGES: Messages(),
    Surface.COUNT_TOKENS: Counted(),
    Surface.SPEECH: Speech(),
    Surface.TRANSCRIPTIONS: Heard(),
    Surface.TRANSLATIONS: Heard(),
}
