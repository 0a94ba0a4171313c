"""What a fake provider can be told to do with one request.

`Answer` is a good answer and every part of it can be bent; `Breaks`, `NoDone` and `Endless` are
answers that go wrong on the way; `Fails`, `Resets` and `Silent` never become one. A field that a
step inherits from `Delivery` or `Answer` means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, TypeAlias

from tests.providers.gate import Gate

Json: TypeAlias = dict[str, Any]
Framing: TypeAlias = Literal["length", "chunked", "close"]
BreakKind: TypeAlias = Literal[
    "eof",  # FIN in the middle of the HTTP body
    "ends",  # the HTTP body ends properly, but the answer was not finished
    "reset",  # RST
    "stall",  # open and silent
    "drip",  # one more byte of an event that never ends, every `drip_s`
    "comments",  # one SSE comment every `drip_s`: bytes, but no event
    "malformed",  # an event cut in the middle of its JSON, then the rest of the answer
    "garbage_utf8",  # an event whose text is no UTF-8, then the rest of the answer
    "error_event",  # an in-band error event, then the end
    "html",  # a proxy's error page in the middle of the stream, then the end
]


class UsageIs(Enum):
    """What the usage of an answer is when no value is given for it."""

    COUNTED = "prompt: bytes of the body / 4; completion: the tokens of the answer"
    MISSING = "no usage anywhere in the answer"


COUNTED = UsageIs.COUNTED
MISSING = UsageIs.MISSING


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts, written in the shape of whichever provider sends them."""

    prompt: int
    completion: int
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool, its arguments streamed in about `fragments` pieces."""

    name: str
    arguments: str = "{}"
    id: str | None = None
    fragments: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SseStyle:
    """How an event stream is spelt; every spelling means the same."""

    newline: Literal["\n", "\r\n", "\r"] = "\n"
    comments: bool = False
    bom: bool = False
    multiline: bool = False
    space: bool = True
    extras: bool = False  # `id:` and `retry:` fields, and a field nobody knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """How the bytes of a reply travel.

    `write_split` is a number of bytes per write, or the positions in the body at which one write
    ends and the next begins: `()` sends the whole body with one write. Each write is an HTTP chunk
    of its own when the framing is chunked. A header of value None is not sent.
    """

    headers: Mapping[str, str | None] = field(default_factory=dict)
    content_type: str | None = None
    framing: Framing | None = None  # None: chunked for a stream, length for the rest
    gzip: bool = False
    write_split: int | Sequence[int] | None = None
    delay_s: float = 0.0  # before the status line
    close: bool = False  # hang up after the reply, announced by `connection: close`
    hang_up: bool = False  # hang up after the reply, unannounced
    gate: Gate | None = None  # nothing is sent until it opens …
    gate_after_tokens: int | None = None  # … or nothing after so many tokens (0: the opening)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Delivery):
    """A good answer, unary or streamed as the request asks.

    Its tokens are `t0 t1 t2 …` unless `text` is given; 5 of them, or none beside tool calls or a
    refusal. `finish` is OpenAI's word and is translated; an unknown word is sent as it is.
    """

    tokens: int | None = None
    text: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str | None = None
    refusal: str | None = None
    finish: str | None = None
    usage: Usage | UsageIs | Any = COUNTED  # anything else is sent as it is
    status: int = 200
    raw_body: bytes | None = None  # instead of everything above
    gap_s: float = 0.0  # before every event but the first
    first_token_s: float = 0.0  # between the head and the first token of a stream
    sse_style: SseStyle = field(default_factory=SseStyle)
    trailing: bytes = b""  # after the last event, `[DONE]` included


@dataclass(frozen=True, slots=True)
class Breaks(Answer):
    """An answer that breaks after so many of its tokens.

    With `after_tokens=0` a stream has sent its opening (OpenAI's role delta) unless `opening` is
    False. A unary answer breaks in the middle of its JSON.
    """

    after_tokens: int = 2
    how: BreakKind = "reset"
    opening: bool = True
    for_s: float | None = None  # a stall ends with FIN after so long; None: never
    drip_s: float = 0.02
    error: Any = None  # of an error event: instead of the provider's usual one


@dataclass(frozen=True, slots=True)
class NoDone(Answer):
    """A whole answer without the mark that ends a stream; then closed, or left open."""

    then: Literal["close", "open"] = "close"


@dataclass(frozen=True, slots=True)
class Endless(Answer):
    """An answer of `limit_bytes` (before compression); with `gzip`, a bomb.

    A stream is one endless `line`, or well-formed `events`.
    """

    limit_bytes: int = 300_000_000
    of: Literal["events", "line"] = "events"


@dataclass(frozen=True, slots=True)
class Fails(Delivery):
    """An answer with this status; the body is the provider's own envelope unless given."""

    status: int = 500
    body: Json | str | bytes | None = None


@dataclass(frozen=True, slots=True)
class Resets:
    """RST (or FIN) before the head, before the body, or after so many bytes of it."""

    before: Literal["headers", "body"] = "headers"
    after_bytes: int | None = None  # of the body; wins over `before`
    how: Literal["reset", "eof"] = "reset"


@dataclass(frozen=True, slots=True)
class Silent:
    """The request is read and nothing is said; after `for_s` the connection closes."""

    for_s: float | None = None


Step: TypeAlias = Answer | Fails | Resets | Silent
