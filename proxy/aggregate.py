"""
What a stream of OpenAI's chat-completion chunks amounts to: its final message, and the bytes it has
brought so far. Pure.

The accumulation is that of the official SDK (openai-python, `lib/streaming/_deltas.py`): strings
grow, lists grow by `index`, the rest is replaced. It differs where the SDK doubles or loses what a
less careful provider sends: a repeated role, id or name stays single, a usage or fingerprint that a
later chunk lacks is kept, a tool call without an `index` finds its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from proxy.types import Json

# Nothing that a provider sends in pieces lies deeper; what does is taken whole.
DEPTH_LIMIT = 8

# Fields of the body that the first chunk decides; of the others the last chunk that has one.
_FIRST = frozenset({"id", "created", "model", "service_tier"})
# `obfuscation` is padding against the reading of lengths; the others are built here.
_NOT_OF_THE_BODY = frozenset({"choices", "object", "obfuscation"})
_NOT_OF_A_CHOICE = frozenset({"index", "delta", "message"})

_SAID = frozenset(
    (
        *("content", "refusal", "reasoning_content", "reasoning"),
        *("reasoning_details", "thinking_blocks", "images"),  # lists
    )
)


class _Text:
    """A string in pieces, joined once."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def add(self, piece: str, depth: int) -> None:
        self._pieces.append(piece)

    def whole(self) -> str:
        return "".join(self._pieces)


class _Identity(_Text):
    """A string that is sent at once, by some providers with every chunk: the first one stays."""

    def add(self, piece: str, depth: int) -> None:
        if piece and not self._pieces:
            self._pieces.append(piece)


class _Name(_Text):
    """A string that may come in pieces, and that some providers send whole with every chunk."""

    def add(self, piece: str, depth: int) -> None:
        if self._pieces != [piece]:
            self._pieces.append(piece)


class _Object:
    """A JSON object, each of whose fields may be in pieces."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def add(self, delta: Json, depth: int) -> None:
        for key, piece in delta.items():
            self._fields[key] = _grown(key, self._fields.get(key), piece, depth)

    def whole(self) -> dict[str, Any]:
        return {
            key: held.whole() if isinstance(held, _GROWING) else held
            for key, held in self._fields.items()
        }


class _Entries:
    """A list: entries with an `index` grow in their place, the others are appended as they are."""

    def __init__(self) -> None:
        self._placed: dict[int, _Object] = {}
        self._others: list[Any] = []

    def add(self, entries: Iterable[Any], depth: int) -> None:
        for entry in entries:
            place = self._place(entry) if isinstance(entry, Mapping) else None
            if place is None:
                self._others.append(entry)
                continue
            if place not in self._placed:
                self._placed[place] = _Object()
            self._placed[place].add(entry, depth)

    def whole(self) -> list[Any]:
        return [self._placed[place].whole() for place in sorted(self._placed)] + self._others

    def _place(self, entry: Json) -> int | None:
        index = entry.get("index")
        return index if type(index) is int else None


class _Calls(_Entries):
    """Tool calls by index; one without is new when it has a name, else it goes on with the last."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -1

    def whole(self) -> list[Any]:
        return [_called(call) if isinstance(call, dict) else call for call in super().whole()]

    def _place(self, entry: Json) -> int:
        place = super()._place(entry)
        if place is None:
            place = self._last + 1 if _asked(entry).get("name") else max(self._last, 0)
        self._last = place
        return place


class _Thoughts(_Entries):
    """Anthropic's thinking blocks as LiteLLM sends them: a block goes on until it is signed."""

    def __init__(self) -> None:
        super().__init__()
        self._open = False

    def _place(self, entry: Json) -> int:
        thought = entry.get("type") == "thinking"
        goes_on = thought and self._open
        self._open = thought and not entry.get("signature")
        return len(self._placed) - 1 if goes_on else len(self._placed)


_Growing: TypeAlias = _Text | _Object | _Entries
_GROWING = (_Text, _Object, _Entries)

_STRINGS: Mapping[str, type[_Text]] = {
    "role": _Identity,
    "id": _Identity,
    "type": _Identity,
    "format": _Identity,
    "name": _Name,
}
_ARRAYS: Mapping[str, type[_Entries]] = {"tool_calls": _Calls, "thinking_blocks": _Thoughts}


def _grown(key: str, held: Any, piece: Any, depth: int) -> Any:
    """Return `held` with `piece` added. Raises ValueError when they are of different kinds."""
    if piece is None:
        return held
    kind = _kind_of(key, piece) if depth < DEPTH_LIMIT else None
    if held is None and kind is not None:
        held = kind()
    if isinstance(held, _GROWING) if kind is None else type(held) is not kind:
        raise ValueError(f"the pieces of {key!r} are of different kinds")
    if kind is None:
        return piece
    held.add(piece, depth + 1)
    return held


def _kind_of(key: str, piece: object) -> type[_Growing] | None:
    match piece:
        case str():
            return _STRINGS.get(key, _Text)
        case Mapping():
            return _Object
        case list():
            return _ARRAYS.get(key, _Entries)
        case _:
            return None


class _Choice:
    """One choice of a completion."""

    def __init__(self) -> None:
        self._message = _Object()
        self._logprobs: _Object | None = None
        self._fields: dict[str, Any] = {"finish_reason": None}

    def add(self, choice: Json) -> None:
        if isinstance(delta := choice.get("delta"), Mapping):
            self._message.add(delta, 0)
        for key, value in choice.items():
            if key == "logprobs" and isinstance(value, Mapping):
                self._logprobs = self._logprobs or _Object()
                self._logprobs.add(value, 0)
            elif key not in _NOT_OF_A_CHOICE and key != "logprobs" and value is not None:
                self._fields[key] = value

    def whole(self, index: int) -> dict[str, Any]:
        logprobs = self._logprobs
        return {
            "index": index,
            "message": _message(self._message.whole()),
            "logprobs": {"content": None, "refusal": None} | logprobs.whole() if logprobs else None,
            **self._fields,
        }


def aggregate(events: Iterable[Json]) -> Json:
    """
    Return the `chat.completion` that a stream of `chat.completion.chunk` amounts to.

    Whether the stream was complete is not judged: a choice that was cut has no finish reason.
    Raises ValueError when the pieces of one field do not fit together.
    """
    body: dict[str, Any] = {"id": "", "object": "chat.completion", "created": 0, "model": ""}
    choices: dict[int, _Choice] = {}
    for event in events:
        for key, value in event.items():
            known = key in body if not value else key in _FIRST and body.get(key)
            if not known and key not in _NOT_OF_THE_BODY:
                body[key] = value
        for index, choice in choices_of(event):
            if index not in choices:
                choices[index] = _Choice()
            choices[index].add(choice)
    if not body.get("usage"):
        body.pop("usage", None)
    return {**body, "choices": [choices[index].whole(index) for index in sorted(choices)]}


def choices_of(event: Json) -> list[tuple[int, Json]]:
    """Return the choices of an event, or of a whole answer, each with its index."""
    choices = event.get("choices")
    if not choices or not isinstance(choices, list):
        return []
    return [
        (index if type(index := choice.get("index")) is int else 0, choice)
        for choice in choices
        if isinstance(choice, dict)
    ]


def _message(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the message with the fields OpenAI requires, without those that stayed empty."""
    if not fields.get("tool_calls"):
        fields.pop("tool_calls", None)  # an empty list is refused when the message is sent back
    said = {key: value for key, value in fields.items() if value is not None}
    return {"role": "assistant", "content": None, "refusal": None, **said}


def _called(call: dict[str, Any]) -> dict[str, Any]:
    """Return a tool call as it stands in a message: it has a type and arguments, but no index."""
    call.pop("index", None)
    if isinstance(function := call.get("function"), dict):
        call["function"] = function | {"arguments": function.get("arguments") or ""}
        call["type"] = call.get("type") or "function"
    return call


def has_content(event: Json) -> bool:
    """Say whether `event` brings anything of an answer: the least piece of it, or its end."""
    for _, choice in choices_of(event):
        if choice.get("finish_reason") or choice.get("text") or _says(_of(choice.get("delta"))):
            return True
    return False


def _says(delta: Json) -> bool:
    return any(value and (name in _SAID or _brings(name, value)) for name, value in delta.items())


def _brings(name: str, value: object) -> bool:
    """Say whether a field of a delta that is built of others has any of those."""
    match name:
        case "audio":
            return any(_of(value).get(key) for key in ("data", "transcript"))
        case "tool_calls" | "function_call":
            calls = _calls(value) if name == "tool_calls" else [{"function": value}]
            return any(call.get("id") or any(_asked(call).values()) for call in calls)
        case _:
            return False


def _calls(calls: object) -> list[Json]:
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _asked(call: Json) -> Json:
    """Return what a tool call asks for, of a function or of a custom tool."""
    return _of(call.get("function")) or _of(call.get("custom"))


def text_bytes(event: Json) -> int:
    """
    Return the UTF-8 bytes of what `event` has of generated text: content, reasoning, refusal,
    the arguments of calls, the transcript of audio (its data says nothing about tokens).
    """
    match event:
        # By far the commonest event; the general way takes ten times as long.
        case {"choices": [{"delta": {"content": str(said)} as delta}]} if len(delta) == 1:
            return len(said.encode(errors="surrogatepass"))
    number = 0
    for _, choice in choices_of(event):
        if choice.get("text") or _says(_of(choice.get("delta"))):
            number += sum(len(text.encode(errors="surrogatepass")) for text in _generated(choice))
    return number


def _generated(choice: Json) -> Iterator[str]:
    delta = _of(choice.get("delta"))
    yield from _texts(choice.get("text"))  # of the older completions
    yield from _texts(delta.get("content"))
    yield from _texts(delta.get("refusal"))
    # Some providers send both names with the same text.
    yield from _texts(delta.get("reasoning_content") or delta.get("reasoning"))
    yield from _texts(_of(delta.get("function_call")).get("arguments"))
    yield from _texts(_of(delta.get("audio")).get("transcript"))
    for call in _calls(delta.get("tool_calls")):
        yield from _texts(_asked(call).get("arguments") or _asked(call).get("input"))


def _texts(value: object) -> Iterator[str]:
    """The text itself, or that of its parts (Mistral's content is a list of those)."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in map(_of, value):
            yield from _texts(part.get("text"))
            yield from _texts(part.get("thinking"))


def _of(value: object) -> Json:
    return value if isinstance(value, dict) else {}
