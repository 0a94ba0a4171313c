"""The surfaces that models are asked on: where each is reached, and what a body must hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from proxy.api.exchange import ModelEndpoint
from proxy.api.form import Forming, as_it_came, as_response, as_sound
from proxy.api.messages import as_anthropic
from proxy.api.multipart import Form
from proxy.api.parse import (
    Incoming,
    check_messages,
    check_text,
    make_call,
    parse_object,
    wrong,
)
from proxy.cache_key import REMEMBERED, REMEMBERED_BYTES
from proxy.types import Call, Surface


@dataclass(frozen=True, slots=True)
class Row:
    """
    One surface. `paths` are its addresses, each also under `/v1`.

    `required` are the fields that must stand in a body, `assumed` what OpenAI takes for those that
    may be left out there and that we need. With one of `instead` what is required may be left out:
    it is kept at the provider. Without `streams` a body that asks for one is refused.
    """

    surface: Surface
    paths: tuple[str, ...]
    summary: str
    required: tuple[str, ...]
    assumed: Mapping[str, Any] = field(default_factory=dict)
    instead: tuple[str, ...] = ()
    streams: bool = False
    always: bool = False  # it is sent as it comes, whether or not that is asked for
    passes: tuple[str, ...] = ()  # headers that go on to a provider of the same surface
    forming: Forming = as_it_came
    file: str | None = None  # asked with a form, which has a file of this name
    body: Mapping[str, Any] = field(default_factory=dict)  # its fields, as JSON schemas

    def parse(self, raw: bytes, depth_limit: int, model: str | None = None) -> Call:
        """
        Return the call that a body makes. Raises RequestInvalid naming the field.

        `model` is the one that the address names: the body's own counts for nothing then.
        """
        body = {**self.assumed, **parse_object(raw, depth_limit), **_named(model)}
        return self._make(body, len(raw))

    def _make(self, body: dict[str, Any], size_bytes: int = 0) -> Call:
        for name in self.required:
            if body.get(name) is None and any(body.get(other) for other in self.instead):
                continue
            if name == "messages":
                check_messages(body)
            else:
                check_text(body, name)
        if body.get("stream") and not self.streams:
            raise wrong("stream", "false: this endpoint answers whole")
        call = make_call(body, surface=self.surface, size_bytes=size_bytes)
        return replace(call, stream=True) if self.always else call

    def read(self, incoming: Incoming) -> Call:
        """Return the call that a request makes. Raises RequestInvalid naming the field."""
        if incoming.form is not None:
            return self._read_form(incoming.form, incoming)
        raw, limit = incoming.raw, incoming.depth_limit
        if incoming.snapshot.caching.enabled and len(raw) <= REMEMBERED_BYTES:
            call = _parsed(self.surface, raw, limit, incoming.model)
        else:
            call = self.parse(raw, limit, incoming.model)
        given = {name: incoming.headers.get(name.encode()) for name in self.passes}
        said = {name: value.decode("latin-1") for name, value in given.items() if value}
        return replace(call, headers=said) if said else call

    def _read_form(self, form: Form, incoming: Incoming) -> Call:
        found = [part for part in form.upload.parts if part.name == self.file]
        if len(found) != 1 or self.file in form.fields:
            raise wrong(str(self.file), "one file")
        body = {**self.assumed, **form.fields, **_named(incoming.model)}
        call = self._make(body)
        return replace(call, upload=form.upload)

    @property
    def endpoint(self) -> ModelEndpoint:
        form = self.file is not None
        return ModelEndpoint(self.surface, self.read, self.forming, form=form)


def _named(model: str | None) -> Mapping[str, Any]:
    return {} if model is None else {"model": model}


_TEXTS = {"type": ["string", "array"], "description": "A text, or a list of them."}
_MESSAGES = {"type": "array", "minItems": 1, "items": {"type": "object"}}
_HEARD = {"prompt": {"type": "string"}, "response_format": {"type": "string"}}
_ANTHROPIC_HEADERS = ("anthropic-version", "anthropic-beta")
ROWS: tuple[Row, ...] = (
    Row(
        Surface.CHAT,
        ("/chat/completions",),
        "Answer a chat, whole or as a stream of events",
        ("messages",),
        streams=True,
        body={"messages": _MESSAGES},
    ),
    Row(
        Surface.COMPLETIONS,
        ("/completions",),
        "Go on with a text, whole or as a stream of events",
        ("prompt",),
        streams=True,
        body={"prompt": _TEXTS},
    ),
    Row(
        Surface.EMBEDDINGS,
        ("/embeddings",),
        "Vectors for texts",
        ("input",),
        body={"input": _TEXTS, "encoding_format": {"enum": ["float", "base64"]}},
    ),
    Row(
        Surface.RESPONSES,
        ("/responses",),
        "Answer with a list of items, whole or as a stream of events",
        ("input",),
        instead=("previous_response_id", "conversation", "prompt"),
        streams=True,
        body={
            "input": _TEXTS,
            "previous_response_id": {"type": ["string", "null"]},
            "conversation": {"type": ["string", "object", "null"]},
            "store": {"type": ["boolean", "null"]},
            "background": {"type": ["boolean", "null"]},
        },
        forming=as_response,
    ),
    Row(
        Surface.MODERATIONS,
        ("/moderations",),
        "Say whether texts may be harmful",
        ("input",),
        # Moderation is the one surface whose model OpenAI's own examples leave out.
        assumed=MappingProxyType({"model": "omni-moderation-latest"}),
        body={"input": _TEXTS},
    ),
    Row(
        Surface.IMAGES,
        ("/images/generations",),
        "Draw images",
        ("prompt",),
        body={"prompt": {"type": "string"}},
    ),
    Row(
        Surface.SPEECH,
        ("/audio/speech",),
        "Say a text aloud: sound as it comes, or a stream of events",
        ("input",),
        streams=True,
        always=True,
        forming=as_sound,
        body={
            "input": {"type": "string"},
            "voice": {"type": ["string", "object"]},
            "stream_format": {"enum": ["audio", "sse"]},
        },
    ),
    Row(
        Surface.TRANSCRIPTIONS,
        ("/audio/transcriptions",),
        "Write down what is said in a recording, whole or as a stream of events",
        (),
        streams=True,
        file="file",
        body=_HEARD,
    ),
    Row(
        Surface.TRANSLATIONS,
        ("/audio/translations",),
        "Write down in English what is said in a recording",
        (),
        file="file",
        body=_HEARD,
    ),
    Row(
        Surface.RERANK,
        ("/rerank", "/v2/rerank"),
        "Order documents by how well they fit a query",
        ("query", "documents"),
        body={"query": {"type": "string"}, "documents": {"type": "array"}},
    ),
    Row(
        Surface.MESSAGES,
        ("/messages",),
        "Answer a message as Anthropic does, whole or as a stream of events",
        ("messages",),
        streams=True,
        passes=_ANTHROPIC_HEADERS,
        forming=as_anthropic,
        body={"messages": _MESSAGES, "max_tokens": {"type": "integer"}},
    ),
    Row(
        Surface.COUNT_TOKENS,
        ("/messages/count_tokens",),
        "Count the tokens that a message would take",
        ("messages",),
        passes=_ANTHROPIC_HEADERS,
        forming=as_anthropic,
        body={"messages": _MESSAGES},
    ),
)


BY_SURFACE: Mapping[Surface, Row] = {row.surface: row for row in ROWS}


@lru_cache(maxsize=REMEMBERED)
def _parsed(surface: Surface, raw: bytes, depth_limit: int, model: str | None) -> Call:
    """Return the call that such a body makes, which nobody may change."""
    return BY_SURFACE[surface].parse(raw, depth_limit, model)


def addresses(row: Row) -> Iterator[str]:
    """Yield every address of a surface, the most used first."""
    for path in row.paths:
        if not path.startswith("/v"):
            yield f"/v1{path}"
        yield path
