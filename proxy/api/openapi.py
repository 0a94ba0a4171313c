"""GET /openapi.json: the addresses of the service, for people and for generators of clients."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy import __version__
from proxy.api import openapi_ai
from proxy.api.azure import deployment_addresses
from proxy.api.openapi_statuses import with_statuses
from proxy.api.render import answer_json
from proxy.api.surfaces import ROWS, Row, addresses
from proxy.api.usage import QUESTIONS
from proxy.types import ANTHROPIC

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "request_id": {"type": "string"},
    },
}
_MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_BYTES = {"type": "string", "format": "binary"}
_WISHES = {
    "fallbacks": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Models to ask instead of the configured fallbacks.",
    },
    "disable_fallbacks": {"type": "boolean"},
    "num_retries": {"type": "integer", "minimum": 0, "maximum": 10},
    "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds."},
}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _operation(summary: str, *, secured: bool = False, **more: Any) -> dict[str, Any]:
    responses = {
        "200": {"description": "The answer."},
        "default": {
            "description": "An error, in OpenAI's envelope.",
            "content": _content({"$ref": "#/components/schemas/Error"}),
        },
    }
    operation: dict[str, Any] = {"summary": summary, "responses": responses, **more}
    if secured:
        operation["security"] = [{"bearer": []}]
    return operation


def _question(row: Row) -> dict[str, Any]:
    """Return what a body of a surface holds: only what the gateway acts on is described."""
    fields: dict[str, Any] = {
        "model": {"type": "string", "description": "A configured name; see `/v1/models`."},
        **row.body,
    }
    if row.streams:
        fields["stream"] = {"type": ["boolean", "null"]}
    files = () if row.file is None else (row.file,)
    fields |= dict.fromkeys(files, _BYTES)
    needed = () if row.instead else row.required
    required = [name for name in ("model", *files, *needed) if name not in row.assumed]
    return {
        "type": "object",
        "required": required,
        "additionalProperties": True,
        "properties": {**fields, **_WISHES},
    }


def _asks(row: Row, *, at_deployment: bool = False) -> dict[str, Any]:
    kind = "application/json" if row.file is None else "multipart/form-data"
    question = _question(row)
    named: dict[str, Any] = {}
    if at_deployment:
        question["required"] = [name for name in question["required"] if name != "model"]
        named["parameters"] = [_MODEL]
    body = {"required": True, "content": {kind: {"schema": question}}}
    operation = _operation(row.summary, secured=True, requestBody=body, **named)
    if row.surface in ANTHROPIC:
        operation["responses"]["default"] = {
            "description": "An error, in Anthropic's envelope.",
            "content": _content(_ANTHROPIC_ERROR),
        }
    content = {"audio/*": {"schema": _BYTES}} if row.always else _content({"type": "object"})
    if row.file is not None:
        content["text/plain"] = {"schema": {"type": "string"}}
    if row.streams:
        content["text/event-stream"] = {"schema": openapi_ai.event()}
    operation["responses"]["200"]["content"] = content
    return operation


def _ai(summary: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    body = {"required": True, "content": _content({"$ref": "#/components/schemas/AiRequest"})}
    operation = _operation(
        summary, secured=True, requestBody=body, parameters=openapi_ai.PARAMETERS
    )
    responses = operation["responses"]
    responses["200"]["content"] = {kind: {"schema": schema}}
    for status, text in openapi_ai.STATUSES.items():
        responses[status] = {**responses["default"], "description": text}
    return operation


def _providers() -> dict[str, Any]:
    operation = _operation("How each provider is, and how fast it answers", secured=True)
    operation["responses"]["200"]["content"] = _content(
        {"$ref": "#/components/schemas/ProvidersHealth"}
    )
    return operation


def _usage() -> dict[str, Any]:
    operation = _operation(
        "What was used, by whom and of what",
        secured=True,
        parameters=[
            {"name": name, "in": "query", "schema": {"type": "string"}, "description": text}
            for name, text in QUESTIONS.items()
        ],
    )
    operation["responses"]["200"]["content"] = {
        **_content({"type": "object"}),
        "text/csv": {"schema": {"type": "string"}},
    }
    return operation


_RESPONSE = {"name": "response", "in": "path", "required": True, "schema": {"type": "string"}}


def _in_query(name: str, kind: str, text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": {"type": kind}, "description": text}


_FOLLOWED = (
    _in_query("stream", "boolean", "Its events instead of the whole."),
    _in_query("starting_after", "integer", "Those after the event of this number."),
)


def _kept(summary: str, *, followed: bool = False) -> dict[str, Any]:
    """Return an operation on a response that its provider keeps."""
    parameters = [_RESPONSE, *(_FOLLOWED if followed else ())]
    operation = _operation(summary, secured=True, parameters=parameters)
    content = _content({"type": "object"})
    if followed:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    operation["responses"]["200"]["content"] = content
    operation["responses"]["404"] = {
        **operation["responses"]["default"],
        "description": "Nobody made it for this key, or its provider keeps it no longer.",
    }
    return operation


PATHS: dict[str, dict[str, Any]] = {
    **{next(addresses(row)): {"post": _asks(row)} for row in ROWS},
    **{
        path.replace(":path", ""): {"post": _asks(row, at_deployment=True)}
        for row in ROWS
        for path in deployment_addresses(row)
    },
    "/ai/generate": {
        "post": _ai(
            "Answer a chat with one flat object",
            "application/json",
            {"$ref": "#/components/schemas/AiAnswer"},
        )
    },
    "/ai/stream": {
        "post": _ai(
            "Answer a chat with a line for each piece: `AiLine`",
            "text/event-stream",
            openapi_ai.event("#/components/schemas/AiLine"),
        )
    },
    "/ai/providers/health": {"get": _providers()},
    "/v1/responses/{response}": {
        "get": _kept("A response that its provider keeps", followed=True),
        "delete": _kept("Have a response kept no longer"),
    },
    "/v1/responses/{response}/input_items": {"get": _kept("What a response has answered")},
    "/v1/responses/{response}/cancel": {"post": _kept("End a response that runs in background")},
    "/v1/models": {"get": _operation("List the models the key may ask", secured=True)},
    "/v1/models/{model}": {"get": _operation("One model", secured=True, parameters=[_MODEL])},
    "/health/liveness": {"get": _operation("Whether the process runs")},
    "/health/readiness": {"get": _operation("Whether requests should be sent here")},
    "/health": {"get": _operation("Which targets would be asked now", secured=True)},
    "/metrics": {"get": _operation("Metrics, as Prometheus reads them")},
    "/admin/explain/{model}": {
        "get": _operation(
            "Which targets would be asked for a model, and why", secured=True, parameters=[_MODEL]
        )
    },
    "/admin/cache": {"delete": _operation("Drop answers that are kept", secured=True)},
    "/admin/usage": {"get": _usage()},
    "/admin/reload": {"post": _operation("Read the configuration file again", secured=True)},
}


async def describe(request: Request) -> Response:
    return answer_json(
        request,
        {
            "openapi": "3.1.0",
            "info": {"title": "Mobius", "version": __version__},
            "paths": with_statuses(PATHS),
            "components": {
                "schemas": {"Error": _ERROR, **openapi_ai.SCHEMAS},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            },
        },
    )
