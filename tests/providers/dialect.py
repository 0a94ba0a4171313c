"""What a provider's wire format must answer; the rest of a fake provider is common to all."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from tests.providers.sse import Event
from tests.providers.steps import Answer, Json, Usage, UsageIs
from tests.providers.wire import Request

DEFAULT_TOKENS = 5


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, understood: which endpoint, which model, streamed or not."""

    number: int
    request: Request
    endpoint: str
    model: str | None
    streams: bool
    created: int
    media: str | None = None  # of a stream that is no events

    @property
    def body(self) -> Json:
        return self.request.json


@dataclass(frozen=True, slots=True)
class Shape:
    """How one endpoint answers, at once and as a stream."""

    whole: Callable[[Ask, Answer], Json | str]
    events: Callable[[Ask, Answer], Iterable[Event]]


class Dialect(Protocol):
    """One provider's wire format. Every method is pure."""

    base_path: str  # what an SDK's base URL ends with

    def read(self, number: int, request: Request, created: int) -> Ask | None:
        """What is asked; None: there is no such endpoint."""

    def fixed(self, ask: Ask) -> Json | None:
        """The answer of an endpoint that takes no step from the script."""

    def whole(self, ask: Ask, answer: Answer) -> Json | str:
        """The body of a unary answer; a str is plain text."""

    def events(self, ask: Ask, answer: Answer) -> Iterable[Event]:
        """The events of a streamed answer."""

    def error(self, status: int, ask: Ask | None) -> Json:
        """The envelope this provider sends with that status."""

    def error_event(self, error: Any) -> Event:
        """A failure in the middle of a stream; `error` None: the usual one."""

    def headers(self, number: int) -> dict[str, str]:
        """Headers of every answer."""


PieceKind: TypeAlias = Literal["reasoning", "text", "refusal", "tool"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer. `tool` is the index of the call that a fragment belongs to."""

    kind: PieceKind
    text: str
    number: int
    tool: int = 0


def pieces(answer: Answer) -> list[Piece]:
    """The tokens of an answer in the order in which they are streamed.

    Text is numbered from 0, so that `t3 ` is token 3; what else there is has numbers above it.
    """
    texts = _text(answer)
    said: list[tuple[PieceKind, str, int]] = [("text", text, 0) for text in texts]
    said += [("refusal", text, 0) for text in _words(answer.refusal)]
    for index, call in enumerate(answer.tool_calls):
        size = max(1, -(-len(call.arguments) // call.fragments))
        fragments = re.findall(rf"(?s).{{1,{size}}}", call.arguments) or [""]
        said += [("tool", fragment, index) for fragment in fragments]
    numbered = [Piece(kind, text, at, tool) for at, (kind, text, tool) in enumerate(said)]
    thoughts = enumerate(_words(answer.reasoning), start=len(said))
    return [*(Piece("reasoning", text, at) for at, text in thoughts), *numbered]


def joined(said: list[Piece], kind: PieceKind, tool: int = 0) -> str:
    """All the text of one kind."""
    return "".join(piece.text for piece in said if piece.kind == kind and piece.tool == tool)


def counted(ask: Ask, answer: Answer, choices: int = 1) -> Usage | None:
    """The usage to report; None where the script says another thing than counts."""
    if isinstance(answer.usage, Usage):
        return answer.usage
    if answer.usage is not UsageIs.COUNTED:
        return None
    said = pieces(answer)
    thoughts = sum(piece.kind == "reasoning" for piece in said)
    return Usage(
        prompt=len(ask.request.body) // 4,
        completion=len(said) * choices,
        reasoning=thoughts * choices,
    )


def _text(answer: Answer) -> list[str]:
    if answer.text is not None:
        return _words(answer.text)
    silent = answer.tool_calls or answer.refusal is not None
    count = answer.tokens if answer.tokens is not None else 0 if silent else DEFAULT_TOKENS
    return [f"t{number} " for number in range(count)]


def _words(text: str | None) -> list[str]:
    return re.findall(r"\S+\s*|\s+", text) if text else []
