"""What may pass between a client and Mobius: by the SDKs' own models, strictly, and by OpenAI's."""

from __future__ import annotations

import base64
import json
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse as AnthropicError
from jsonschema import Draft202012Validator
from openai.types import Completion, CreateEmbeddingResponse, Model, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseErrorEvent, ResponseStreamEvent
from openai.types.shared import ErrorObject
from pydantic import BaseModel, ConfigDict, TypeAdapter

from tests.clients.tap import Exchange
from tests.providers import Entry

# OpenAI's published description, where the project's shared folder lies beside it.
PUBLISHED = Path(__file__).resolve().parents[3] / "shared/data/openai-openapi-subset.json"
# What the gateway acts on and takes out.
OURS = frozenset({"cache", "disable_fallbacks", "fallbacks", "num_retries", "timeout"})
USAGE = {"include_usage": True}
FEW = 8


class OpenAIError(BaseModel):
    """The envelope, of which the SDK has only what is in it."""

    model_config = ConfigDict(extra="forbid")
    error: ErrorObject


class Models(BaseModel):
    """A list of models; the SDK has a page that wants a client."""

    object: str
    data: list[Model]


@dataclass(frozen=True)
class Kind:
    """What an address answers with: the SDK's models, and the names of OpenAI's schemas."""

    whole: Any
    event: Any = None
    schema: str | None = None
    event_schema: str | None = None
    anthropic: bool = False


KINDS: Mapping[str, Kind] = {
    "/v1/chat/completions": Kind(
        ChatCompletion,
        ChatCompletionChunk,
        "CreateChatCompletionResponse",
        "CreateChatCompletionStreamResponse",
    ),
    "/v1/completions": Kind(
        Completion, Completion, "CreateCompletionResponse", "CreateCompletionResponse"
    ),
    "/v1/embeddings": Kind(CreateEmbeddingResponse, schema="CreateEmbeddingResponse"),
    "/v1/moderations": Kind(ModerationCreateResponse),
    "/v1/responses": Kind(Response, ResponseStreamEvent, "Response", "ResponseStreamEvent"),
    "/v1/models": Kind(Models, schema="ListModelsResponse"),
    "/v1/models/": Kind(Model, schema="Model"),
    "/v1/messages": Kind(Message, RawMessageStreamEvent, anthropic=True),
    "/v1/messages/count_tokens": Kind(MessageTokensCount, anthropic=True),
}


class Judge:
    """Finds no fault in what passed, or says what is wrong with it.

    The SDKs' models see everything. OpenAI's schemas cost a thousand times as much: of a crowd that
    is told the same, a few are held against them.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, bool]] = Counter()
        self._by_schema = True
        self._validators: dict[str, Draft202012Validator] = {}

    def check(self, exchange: Exchange) -> None:
        """The answer is what its address promises, to the last event that came."""
        path = urlsplit(exchange.path).path
        kind = KINDS.get(path) or KINDS["/v1/models/"]
        assert path in KINDS or path.startswith("/v1/models/"), path
        self._seen[path, exchange.streamed] += 1
        self._by_schema = self._seen[path, exchange.streamed] <= FEW
        if exchange.status >= 400:
            self._error(exchange.heard, kind)
        elif exchange.streamed:
            for event in exchange.events:
                self._event(event, kind)
        elif exchange.whole:
            self._body(_floats(exchange.heard), kind.whole, kind.schema)

    def _event(self, event: bytes, kind: Kind) -> None:
        told = json.loads(event)
        if told.get("error") and told.get("type") == "error" and not kind.anthropic:
            self._body(event, ResponseErrorEvent, "ResponseErrorEvent")
        elif told.get("error"):
            self._error(event, kind)
        elif kind.anthropic and told["type"] == "ping":
            pass  # of which the SDK has no model
        elif kind.event is ResponseStreamEvent:
            self._body(event, kind.event, self._event_schemas[told["type"]])
        else:
            self._body(event, kind.event, kind.event_schema)

    def _error(self, body: bytes, kind: Kind) -> None:
        if kind.anthropic:
            self._body(body, AnthropicError, None)
        else:
            self._body(body, OpenAIError, "ErrorResponse")

    def _body(self, body: bytes, model: Any, schema: str | None) -> None:
        # OpenAI's description forbids two things that its service has always sent before the end.
        if model is Completion:
            body = body.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
        elif model is ResponseStreamEvent:
            body = body.replace(b',"usage":null', b"")
        _adapter(model).validate_json(body, strict=True)
        if schema is not None and self._by_schema and self._components:
            faults = list(self._validator(schema).iter_errors(json.loads(body)))
            assert not faults, [f"{f.json_path}: {f.message[:300]}" for f in faults[:5]] + [body]

    def _validator(self, schema: str) -> Draft202012Validator:
        rule = {
            "$ref": f"#/components/schemas/{schema}",
            "components": {"schemas": self._components},
        }
        return self._validators.setdefault(schema, Draft202012Validator(rule))

    @cached_property
    def _components(self) -> Mapping[str, Any]:
        """OpenAI's schemas by their names; none where they are not at hand."""
        published = json.loads(PUBLISHED.read_bytes()) if PUBLISHED.exists() else {}
        schemas: Mapping[str, Any] = published.get("components", {}).get("schemas", {})
        return schemas

    @cached_property
    def _event_schemas(self) -> Mapping[str, str]:
        """The name of the schema of each event of a response, which is faster than their union."""
        return defaultdict(
            lambda: "ResponseStreamEvent",
            {
                kind: name
                for name, schema in self._components.items()
                if name.endswith("Event")
                for kind in schema.get("properties", {}).get("type", {}).get("enum", ())
            },
        )


@cache
def _adapter(model: Any) -> TypeAdapter[Any]:
    return TypeAdapter(model)  # of all events there are, a tenth of a second's work


def check_arrived(
    exchanges: Iterable[Exchange], entries: Iterable[Entry], name: Callable[[str], str]
) -> None:
    """Every body that a provider received is one that a client sent, under the provider's name.

    And every body that was answered well was received, as often as it was sent (or oftener: a
    provider that asks for a moment's patience is asked again). `name` is what the provider calls a
    model.
    """
    said = [(exchange, _expected(exchange, name)) for exchange in exchanges if exchange.sent]
    sent = {_canonical(body) for _, body in said}
    answered = Counter(_canonical(body) for exchange, body in said if exchange.status == 200)
    received = Counter(_canonical(entry.json) for entry in entries if entry.body)
    strange = received.keys() - sent
    assert not strange, f"never sent so: {sorted(strange)[0]}\nbut so: {sorted(sent)}"
    assert not answered - received, f"never received: {sorted(answered - received)[0]}"


def _expected(exchange: Exchange, name: Callable[[str], str]) -> Any:
    body = {key: value for key, value in exchange.asked.items() if key not in OURS}
    body["model"] = name(body["model"])
    if body.get("stream") and urlsplit(exchange.path).path.endswith("completions"):
        body["stream_options"] = {**(body.get("stream_options") or {}), **USAGE}
    return body


def _canonical(body: Any) -> str:
    return json.dumps(body, sort_keys=True, ensure_ascii=False)


def _floats(body: bytes) -> bytes:
    """The body with vectors as numbers, as every SDK decodes them before it looks at them."""
    parsed = json.loads(body)
    if not isinstance(parsed, dict) or parsed.get("object") != "list":
        return body
    for item in parsed["data"]:
        vector = item.get("embedding")
        if isinstance(vector, str):
            raw = base64.b64decode(vector)
            item["embedding"] = list(struct.unpack(f"<{len(raw) // 4}f", raw))
    return json.dumps(parsed).encode()
