"""The part of `/openapi.json` that describes `/ai/*`."""

from __future__ import annotations

from typing import Any

from proxy.api.ai_request import HOTTEST, MAX_TOKENS, MOST_TOKENS, TEMPERATURE

_MESSAGES = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {"role": {"type": "string", "minLength": 1}},
        "additionalProperties": True,
    },
}
_TOKENS = {"minimum": 1, "maximum": MOST_TOKENS, "default": MAX_TOKENS}
_MAX_TOKENS = {"type": ["integer", "null"], **_TOKENS}
_TEMPERATURE = {
    "type": ["number", "null"],
    "minimum": 0,
    "maximum": HOTTEST,
    "default": TEMPERATURE,
}
_PROVIDER = {"type": "string", "description": "Whose answer it is, such as `openai`."}
_FINISH = "`completed`, `length`, `content_filter`, `tool_calls`, or a provider's own word."
_BESIDE = {
    "reasoning": {"type": "string"},
    "refusal": {"type": "string"},
    "tool_calls": {"type": "array", "items": {"type": "object"}},
}
_LATENCY = {"type": ["number", "null"], "description": "Seconds; null: not known yet."}

SCHEMAS: dict[str, dict[str, Any]] = {
    "AiRequest": {
        "oneOf": [
            _MESSAGES,
            {
                "type": "object",
                "required": ["messages"],
                # The other fields of a chat request go to the provider as they are.
                "additionalProperties": True,
                "properties": {
                    "messages": _MESSAGES,
                    "max_tokens": _MAX_TOKENS,
                    "temperature": _TEMPERATURE,
                    "model": {
                        "type": ["string", "null"],
                        "description": "A configured name; left out, that of `mobius.ai.model`.",
                    },
                },
            },
        ]
    },
    "AiAnswer": {
        "type": "object",
        "required": ["content", "provider", "model", "usage", "latency", "request_id"],
        "properties": {
            "content": {"type": "string"},
            "provider": _PROVIDER,
            "model": {"type": ["string", "null"], "description": "As the provider names it."},
            "usage": {"type": ["object", "null"], "description": "Tokens, in OpenAI's form."},
            "latency": {"type": "number", "description": "Seconds, from arrival to answer."},
            "request_id": {"type": "string"},
            "finish_reason": {"type": ["string", "null"], "description": _FINISH},
            **_BESIDE,
        },
    },
    "AiLine": {
        "description": "What stands behind `data: ` in each event of a stream.",
        "oneOf": [
            {
                "type": "object",
                "required": ["delta", "type", "provider", "finish_reason"],
                "properties": {
                    "delta": {"type": "string", "description": "The next piece of the content."},
                    "type": {
                        "enum": [
                            *("content.delta", "reasoning.delta", "refusal.delta"),
                            *("tool_calls.delta", "content.done"),
                        ]
                    },
                    "provider": _PROVIDER,
                    "finish_reason": {
                        "type": ["string", "null"],
                        "description": f"Null but on the last line. {_FINISH}",
                    },
                    **_BESIDE,
                },
            },
            {
                "type": "object",
                "description": "The last line of a stream that could not be finished.",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            },
        ],
    },
    "ProvidersHealth": {
        "type": "object",
        "required": ["providers", "targets"],
        "properties": {
            "providers": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["healthy", "latency"],
                    "properties": {"healthy": {"type": "boolean"}, "latency": _LATENCY},
                },
            },
            "targets": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "required": ["provider", "healthy", "latency", "reason", "probe"],
                    "properties": {
                        "provider": {"type": "string"},
                        "healthy": {"type": "boolean"},
                        "latency": _LATENCY,
                        "reason": {"type": ["string", "null"], "description": "Why it is not."},
                        "probe": {
                            "type": ["object", "null"],
                            "description": "The last one, where the file asks for probes.",
                            "properties": {
                                "by": {"enum": ["models", "token"]},
                                "outcome": {"type": "string"},
                                "latency": _LATENCY,
                                "age": {"type": "number"},
                            },
                        },
                    },
                },
            },
        },
    },
}


def event(schema: str | None = None) -> dict[str, Any]:
    """Return the form of one event of a stream, with the schema of the JSON in it."""
    data: dict[str, Any] = {"type": "string"}
    if schema is not None:
        data |= {"contentMediaType": "application/json", "contentSchema": {"$ref": schema}}
    return {
        "type": "object",
        "description": "One event of the stream.",
        "required": ["data"],
        "properties": {"data": data, "event": {"type": "string"}},
    }


# Of a bare list of messages; in an object they stand in the body, which wins.
PARAMETERS = [
    {"name": name, "in": "query", "required": False, "schema": schema}
    for name, schema in (
        ("max_tokens", {"type": "integer", **_TOKENS}),
        (
            "temperature",
            {"type": "number", "minimum": 0, "maximum": HOTTEST, "default": TEMPERATURE},
        ),
        ("model", {"type": "string"}),
    )
]

STATUSES = {
    "400": "The request is not of this form, or every provider refused it.",
    "401": "No valid key.",
    "403": "The key may not use the model.",
    "404": "There is no such model.",
    "429": "A limit of the caller's own; `retry-after` says when there is room.",
    "503": "All providers failed: `code` says by what.",
}
