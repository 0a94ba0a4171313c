"""
What a broken stream may be finished with: what was sent, who is asked for the rest and how, and
what of an answer to that is new. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from proxy.grammar import GRAMMARS
from proxy.replies import Chunk
from proxy.types import Call, Json, Surface, Target, Usage
from proxy.usage import BYTES_PER_TOKEN

READ_BYTES = 64 * 1024  # of events that are kept as they came; more are read, and let go
# What a request may not ask for: it makes an answer more than one text.
ASIDE = ("audio", "logprobs", "reasoning", "thinking", "top_logprobs")
NO_THOUGHT = (None, "none")
LIMITS = ("max_tokens", "max_completion_tokens")
USED_UP = 1  # the least that may be asked for
NOTHING_USED = Usage()


class Diverged(Exception):
    """What another target says is no continuation of what the client has."""


class Told(NamedTuple):
    """What a client was told: its text, None where that is not all; how its events are headed."""

    text: str | None
    ended: bool
    head: Json


class Said:
    """What the client was sent so far. It is kept as it came, and read when that is asked."""

    def __init__(self) -> None:
        self._chunks: list[Chunk] = []
        self._kept_bytes = 0
        self._pieces: list[str] = []
        self._plain = True
        self._ended = False
        self._head: dict[str, Any] | None = None

    def add(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._kept_bytes += len(chunk.raw)
        if self._kept_bytes > READ_BYTES:
            self._read()

    def read(self) -> Told:
        self._read()
        text = "".join(self._pieces)
        self._pieces = [text]
        return Told(text if self._plain else None, self._ended, self._head or {})

    def _read(self) -> None:
        for chunk in self._chunks:
            for event in chunk.events:
                if self._head is None:
                    self._head = {n: event[n] for n in ("id", "created") if n in event}
                text = text_of(event)
                self._plain = self._plain and text is not None
                self._ended = self._ended or ends(event)
                self._pieces.append(text or "")
        self._chunks, self._kept_bytes = [], 0


class Seam:
    """
    Where another stream goes on with what was sent.

    Its text has to begin with what is `due`, of which nothing is sent again. Its events are headed
    as those before them, and its usage is the sum with what was `used` before.
    """

    def __init__(self, due: str, head: Json, used: Usage = NOTHING_USED) -> None:
        self._due = due
        self._place = 0  # in it
        self._head = head
        self._used = used
        self.joined = False  # something new, or the end, was passed on

    def take(self, events: Sequence[Json]) -> list[Json]:
        """Return what of the events is passed on. Raises Diverged where they do not go on so."""
        told = [each for event in events if (each := self._take(event)) is not None]
        self.joined = self.joined or any(event.get("choices") for event in told)
        return told

    def _take(self, event: Json) -> Json | None:
        text = text_of(event)
        if text is None:
            raise Diverged
        text = self._beyond(text)
        if ends(event) and self._place < len(self._due):
            raise Diverged
        told: dict[str, Any] = {**event, **self._head}
        if isinstance(usage := event.get("usage"), Mapping):
            told["usage"] = summed(usage, self._used)
        if not event.get("choices"):
            return told if told.get("usage") else None
        (choice,) = event["choices"]
        told["choices"] = [{**choice, "delta": {"content": text} if text else {}}]
        return told if text or ends(event) else None

    def _beyond(self, text: str) -> str:
        """Return what of the text is new."""
        due, place = self._due, self._place
        if place == len(due):
            return text
        old = text[: len(due) - place]
        if not due.startswith(old, place):
            raise Diverged
        self._place = place + len(old)
        return text[len(old) :]


class Way(NamedTuple):
    """How a target is asked to go on, and with what of the text its own has to begin."""

    call: Call
    due: str


def may_go_on(call: Call) -> bool:
    """Say whether a stream that answers the request may be one plain text, by what it asks for."""
    body = call.body
    return (
        call.stream
        and call.surface is Surface.CHAT
        and body.get("n") in (None, 1)
        and not any(body.get(name) for name in ASIDE)
        and body.get("reasoning_effort") in NO_THOUGHT
        and body.get("modalities") in (None, ["text"])
    )


def ways(call: Call, text: str, target: Target) -> Iterator[Way]:
    """Return how to ask the target, the better first: what is not said again costs nothing."""
    body = {**target.defaults, **call.body}
    begun = text.rstrip()  # Claude takes nothing that ends with white space: that is due then
    if begun and target.facts.prefills and may_prefill(body):
        yield Way(prefilled(call, body, begun), text[len(begun) :])
    yield Way(call, text)


def may_prefill(body: Json) -> bool:
    """
    Say whether an answer to the request may begin with words that are not its model's own.

    A form for the answer is no more than a hope then; and words to stop at are looked for in what
    is new alone, so that one would be missed that the seam goes through.
    """
    form, messages = body.get("response_format"), body.get("messages")
    return (
        (form is None or (isinstance(form, Mapping) and form.get("type") == "text"))
        and not body.get("stop")
        and isinstance(messages, list)
        and bool(messages)
        and isinstance(messages[-1], Mapping)
        and messages[-1].get("role") != "assistant"
    )


def prefilled(call: Call, body: Json, begun: str) -> Call:
    """Return the call for the rest of an answer that has begun so; `body` is with its defaults."""
    message = {"role": "assistant", "content": begun}
    said_bytes = len(begun.encode(errors="surrogatepass"))
    said_tokens = -(-said_bytes // BYTES_PER_TOKEN)  # as the ledger counts them
    less = {
        name: max(USED_UP, limit - said_tokens)
        for name in LIMITS
        if type(limit := body.get(name)) is int
    }
    asked = {**call.body, **less, "messages": [*body["messages"], message]}
    return replace(call, body=asked, size_bytes=call.size_bytes and call.size_bytes + said_bytes)


def text_of(event: Json) -> str | None:
    """Return the text that an event brings of its only choice; None where it brings more."""
    choices = event.get("choices")
    if not choices:
        return ""
    match choices:
        case [Mapping() as choice] if choice.get("index") in (None, 0):
            delta = choice.get("delta") or {}
            text = delta.get("content") or ""
            other = any(delta[name] for name in delta if name not in ("content", "role"))
            return None if other or _counts(choice) or not isinstance(text, str) else text
        case _:
            return None


def _counts(choice: Json) -> bool:
    """Say whether it brings logprobs."""
    found = choice.get("logprobs")
    return any(found.values()) if isinstance(found, Mapping) else bool(found)


def ends(event: Json) -> bool:
    """Say whether a choice of the event has ended."""
    return any(ended for _, ended in GRAMMARS[Surface.CHAT].endings(event))


def summed(usage: Json, used: Usage) -> Json:
    """Return the usage of a stream with what those before it have used."""
    prompt = (usage.get("prompt_tokens") or 0) + used.prompt_tokens
    completion = (usage.get("completion_tokens") or 0) + used.completion_tokens
    return {
        **usage,
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
