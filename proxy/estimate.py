"""
How many tokens a request may take, before any provider has counted them. Pure.

Two answers for the prompt: what it probably takes, by what this model took per byte so far; and
what it cannot exceed, for money. An image, a recording or a file counts by a rule of its own, never
by the length of its base64.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

import orjson

from proxy.types import Json, Surface

# OpenAI's guide "Images and vision": 765 for a square of 1024 at high detail, of gpt-4o. The most
# that any model of its table takes for one image is 48,169 (gpt-4o-mini, 2833 + 8 x 5667).
IMAGE_TOKENS = 1_000
IMAGE_TOKENS_MOST = 50_000
# OpenAI's guide "Audio": a token for every 100 ms of what is said. Speech is sent with 2 kB/s or
# more, and with 1 kB/s at the very least.
AUDIO_BYTES_PER_TOKEN = 200
AUDIO_BYTES_PER_TOKEN_LEAST = 100
# A page of a PDF is 1,500 to 3,000 tokens (Anthropic's guide "PDF support") and seldom below 20 kB.
FILE_BYTES_PER_TOKEN = 10
# What a provider adds of its own: to each request, and where there are tools (Anthropic's guide
# "Tool use" says 346 for its system prompt).
FRAME_TOKENS = 100
TOOL_TOKENS = 1_000

TYPICAL = 0.25  # tokens per byte of JSON, until a model has shown its own
HIGH = 0.5
SAMPLES = 128  # the last so many answers of a model tell its rate
FEWEST = 8  # answers, before they are believed
MODELS = 1_000  # names under a wildcard are endless
HIGH_QUANTILE = 0.98

# By which a request names what its provider keeps, of a size nobody here knows.
KEPT = ("previous_response_id", "conversation")
# By which a request says how long its answer may be, at most.
BOUNDS = ("max_completion_tokens", "max_tokens")
# And by which a request for a Response does: to a chat another API's name means nothing.
RESPONSE_BOUNDS = ("max_output_tokens",)
# Surfaces whose answers are no generated text: they take no completion tokens.
WORDLESS = frozenset(
    {
        Surface.EMBEDDINGS, Surface.MODERATIONS, Surface.IMAGES, Surface.RERANK,
        Surface.COUNT_TOKENS, Surface.SPEECH, Surface.TRANSCRIPTIONS, Surface.TRANSLATIONS,
    }
)  # fmt: skip
# Surfaces that no tokens are charged for.
FREE = frozenset({Surface.COUNT_TOKENS})


class Size(NamedTuple):
    """What a request sends: its text in bytes of JSON, and what is counted otherwise."""

    text_bytes: int
    images: int = 0
    audio_bytes: int = 0
    file_bytes: int = 0
    files_elsewhere: int = 0  # named by an id or an address: of a size nobody here knows
    tools: bool = False

    @property
    def is_text(self) -> bool:
        return not (self.images or self.audio_bytes or self.file_bytes or self.files_elsewhere)


def size_of(body: Json, body_bytes: int = 0, upload_bytes: int = 0) -> Size:
    """
    Return the size of a request; `body_bytes` is the length of its JSON, 0 to measure it.

    `upload_bytes` are those of the recording beside it.
    """
    text_bytes, audio_bytes = body_bytes or len(orjson.dumps(body)), upload_bytes
    images = file_bytes = elsewhere = 0
    for part in _parts(body.get("messages") or body.get("input")):
        match part:
            case {"type": "image_url" | "image" | "input_image"}:
                images += 1
                text_bytes -= _encoded(part)
            case {"type": "input_audio"}:
                encoded = _encoded(part)
                audio_bytes += encoded * 3 // 4
                text_bytes -= encoded
            case {"type": "file" | "document" | "input_file"}:
                encoded = _encoded(part)
                file_bytes += encoded * 3 // 4
                elsewhere += not encoded
                text_bytes -= encoded
            case _:
                pass
    if "messages" not in body:
        elsewhere += _kept(body)
    tools = bool(body.get("tools") or body.get("functions"))
    return Size(max(0, text_bytes), images, audio_bytes, file_bytes, elsewhere, tools)


def _kept(body: Json) -> int:
    """Return how many things a request for a Response names that its provider keeps."""
    items = body.get("input")
    named: int = sum(
        isinstance(item, Mapping) and item.get("type") == "item_reference"
        for item in (items if isinstance(items, list) else ())
    )
    named += sum(bool(body.get(name)) for name in KEPT)
    # The text of an older completion is called `prompt` too.
    return named + isinstance(body.get("prompt"), Mapping)


def _parts(messages: object) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of all messages that are not plain text, those of tool results too."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else ():
            if not isinstance(part, dict):
                continue
            if part.get("type") == "tool_result":
                yield from _parts([part])
            elif part.get("type") != "text":
                yield part


def plain_bytes(body: Json) -> int:
    """
    Return the length of the words that a model surely reads: no escapes, no blanks, no base64.

    It reads every text once more, so it is for the rare request of which that matters.
    """
    texts = chain(*(_texts(body.get(n)) for n in ("messages", "input", "system", "instructions")))
    return sum(len(part) for text in texts for part in text.encode(errors="replace").split())


def _texts(said: object) -> Iterator[str]:
    """Yield the texts of messages, of their parts, and of what tools have answered."""
    if isinstance(said, str):
        yield said
    for each in said if isinstance(said, list) else ():
        if isinstance(each, dict):
            text = each.get("text")
            if isinstance(text, str):
                yield text
            yield from _texts(each.get("content"))


def _encoded(part: Mapping[str, Any]) -> int:
    """Return how many characters of `part` are base64: its longest text that holds data."""
    inner = next((v for k, v in part.items() if k != "type" and isinstance(v, dict)), part)
    texts = (inner.get(name) for name in ("data", "url", "file_data"))
    held = (t for t in (*texts, part.get("image_url")) if isinstance(t, str))
    return max((len(t) for t in held if not t.startswith(("http://", "https://"))), default=0)


class Answers(NamedTuple):
    """How long the answers to one request may be."""

    each_tokens: int  # 0: nobody says
    choices: int
    predicted_tokens: int  # the part of a prediction that is wrong is charged beside the answer
    stated: bool  # by the body itself

    @property
    def tokens(self) -> int:
        return self.each_tokens * self.choices + self.predicted_tokens

    def within(self, *, known: int | None, default: int, most: int | None) -> Answers:
        """
        Return how long they may be where somebody else has a say, too.

        Where the body does not say so, the limit of the model (`known`) does, else `default`; and
        `most` in any case.
        """
        each, stated = self.each_tokens, self.stated
        if not stated:
            each = known or default
        if most is not None and each > most:
            each, stated = most, False
        return Answers(each, self.choices, self.predicted_tokens, stated)


NO_ANSWER = Answers(0, 1, 0, stated=True)  # in words


def answers_to(body: Json, surface: Surface = Surface.CHAT) -> Answers:
    """Return how long the answers to `body` may be by its own word."""
    if surface in WORDLESS:
        return NO_ANSWER
    asked = _most(body, *(RESPONSE_BOUNDS if surface is Surface.RESPONSES else BOUNDS))
    prediction = body.get("prediction")
    return Answers(
        each_tokens=asked,
        choices=_most(body, "n") or 1,
        predicted_tokens=len(orjson.dumps(prediction)) if prediction else 0,
        stated=asked > 0,
    )


def needs_bound(answers: Answers, known: int | None) -> bool:
    """Say whether nothing but us keeps an answer within what is set aside for it."""
    return not answers.stated and (known is None or answers.each_tokens < known)


def filled(body: Json, defaults: Json) -> Json:
    """Return the body and what the file says for it; one that names a bound keeps its own."""
    if not defaults:
        return body
    named = any(name in body for name in BOUNDS)
    return {k: v for k, v in defaults.items() if not (named and k in BOUNDS)} | {**body}


def bound_of(provider: str, surface: Surface) -> str:
    """Return the parameter that bounds an answer. OpenAI's newer models take no other."""
    match surface:
        case Surface.RESPONSES:
            return "max_output_tokens"
        case Surface.CHAT if provider in {"openai", "azure"}:
            return "max_completion_tokens"
        case _:
            return "max_tokens"


def _most(body: Json, *names: str) -> int:
    """Return the largest number that stands under these names; 0 where there is none."""
    most = 0
    for name in names:
        if name in body:
            most = max(most, _whole(body[name]))
    return most


def _whole(value: object) -> int:
    """Return a whole number as JSON may write it, 5 or 5.0; 0 for what is none."""
    if type(value) is float and value.is_integer():
        return int(value)
    return value if type(value) is int else 0


class PromptRates:
    """The tokens per byte of prompts, learned for each model from what its provider counted."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, _Rate] = OrderedDict()

    def learn(self, model: str, size: Size, prompt_tokens: int) -> None:
        """Take note of one answer; one with more than text in it teaches nothing."""
        if size.is_text and size.text_bytes and prompt_tokens:
            rate = self._models.get(model)
            if rate is None:
                rate = self._models[model] = _Rate()
                if len(self._models) > MODELS:
                    self._models.popitem(last=False)
            rate.add(prompt_tokens / size.text_bytes)

    def typical(self, model: str, size: Size) -> int:
        """Return what such a prompt takes as often more as less."""
        return self._tokens(model, size, 0.5, TYPICAL)

    def high(self, model: str, size: Size) -> int:
        """Return what such a prompt seldom exceeds."""
        return self._tokens(model, size, HIGH_QUANTILE, HIGH)

    def _tokens(self, model: str, size: Size, share: float, unlearned: float) -> int:
        rate = self._models.get(model)
        per_byte = unlearned if rate is None else rate.quantile(share, unlearned)
        return (
            int(size.text_bytes * per_byte)
            + 1
            + size.images * IMAGE_TOKENS
            + size.audio_bytes // AUDIO_BYTES_PER_TOKEN
            + size.file_bytes // FILE_BYTES_PER_TOKEN
        )


def prompt_most(size: Size, window_tokens: int | None) -> int:
    """
    Return what a prompt of this size cannot exceed; `window_tokens` is the most the model reads.

    No token of text is shorter than a byte. A file whose size nobody knows may fill the window.
    """
    tokens = (
        size.text_bytes
        + FRAME_TOKENS
        + TOOL_TOKENS * size.tools
        + size.images * IMAGE_TOKENS_MOST
        + size.audio_bytes // AUDIO_BYTES_PER_TOKEN_LEAST
        + size.file_bytes
    )
    if window_tokens is None:
        return tokens + size.files_elsewhere * 1_000_000
    return window_tokens if size.files_elsewhere else min(tokens, window_tokens)


class _Rate:
    """The last rates of one model, kept in order beside the order they came in."""

    __slots__ = ("_last", "_ranked")

    def __init__(self, rates: Iterable[float] = ()) -> None:
        self._last: deque[float] = deque(rates)
        self._ranked = sorted(self._last)

    def add(self, rate: float) -> None:
        if len(self._last) >= SAMPLES:
            del self._ranked[bisect_left(self._ranked, self._last.popleft())]
        self._last.append(rate)
        insort(self._ranked, rate)

    def quantile(self, share: float, unlearned: float) -> float:
        ranked = self._ranked
        return ranked[int(share * (len(ranked) - 1))] if len(ranked) >= FEWEST else unlearned
