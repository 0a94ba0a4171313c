"""A fake Gemini on a real socket: the simplest correct shapes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from tests.providers.dialect import Ask, Piece, counted, joined, pieces
from tests.providers.server import FakeProvider
from tests.providers.sse import Event
from tests.providers.steps import MISSING, Answer, Json
from tests.providers.wire import Request

_PATH = re.compile(
    r"^/(.+/)?(?P<model>[^/:]+):(?P<endpoint>generateContent|streamGenerateContent|countTokens)$"
)
_FINISHES = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_STATUSES = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "API keys are not supported by this API."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "models/{model} is not found for API version v1beta."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota."),
    500: ("INTERNAL", "An internal error has occurred."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "The request timed out. Please try again."),
}


class Gemini:
    """Gemini's wire format: content generated at once or as a stream, and tokens counted."""

    base_path = "/v1beta"

    def read(self, number: int, request: Request, created: int) -> Ask | None:
        if (found := _PATH.match(request.path)) is None:
            return None
        return Ask(
            number=number,
            request=request,
            endpoint=found["endpoint"],
            model=found["model"],
            streams=found["endpoint"] == "streamGenerateContent",
            created=created,
        )

    def fixed(self, ask: Ask) -> Json | None:
        if ask.endpoint == "countTokens":
            return {"totalTokens": len(ask.request.body) // 4}
        return None

    def whole(self, ask: Ask, answer: Answer) -> Json:
        parts = [_part(answer, block) for block in _blocks(pieces(answer))]
        return _response(ask, answer, parts, finish=_finish(answer))

    def events(self, ask: Ask, answer: Answer) -> Iterator[Event]:
        for block in _blocks(pieces(answer)):
            for some in [block] if block[0].kind == "tool" else [[piece] for piece in block]:
                data = _response(ask, answer, [_part(answer, some)], finish=None)
                yield Event("content", data, tokens=tuple(piece.number for piece in some))
        last = [{"text": ""}]
        yield Event("finish", _response(ask, answer, last, finish=_finish(answer)))

    def error(self, status: int, ask: Ask | None) -> Json:
        word, message = _STATUSES.get(status, _STATUSES[500 if status >= 500 else 400])
        model = ask.model if ask else None
        body = {"code": status, "message": message.replace("{model}", model or "the-model")}
        return {"error": {**body, "status": word}}

    def error_event(self, error: Any) -> Event:
        return Event("done", self.error(503, None) if error is None else error)

    def headers(self, number: int) -> dict[str, str]:
        return {"server-timing": "gfet4t7; dur=12", "x-request-number": str(number)}


class FakeGemini(FakeProvider):
    """A provider at `base_url` that speaks Gemini's wire format."""

    def __init__(self, *, send_buffer_bytes: int | None = None) -> None:
        super().__init__(Gemini(), send_buffer_bytes=send_buffer_bytes)


def _blocks(said: list[Piece]) -> list[list[Piece]]:
    return [list(block) for _, block in groupby(said, key=lambda piece: (piece.kind, piece.tool))]


def _part(answer: Answer, said: list[Piece]) -> Json:
    kind, tool = said[0].kind, said[0].tool
    text = joined(said, kind, tool)
    match kind:
        case "tool":
            return {"functionCall": {"name": answer.tool_calls[tool].name, "args": _args(text)}}
        case "reasoning":
            return {"text": text, "thought": True}
        case "text" | "refusal":
            return {"text": text}


def _args(text: str) -> Any:
    return json.loads(text)


def _finish(answer: Answer) -> str:
    finish = answer.finish or "stop"
    return _FINISHES.get(finish, finish)


def _response(ask: Ask, answer: Answer, parts: list[Json], *, finish: str | None) -> Json:
    candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    return {
        "candidates": [candidate],
        **_usage(ask, answer),
        "modelVersion": ask.model,
        "responseId": f"fake{ask.number:06d}",
    }


def _usage(ask: Ask, answer: Answer) -> Json:
    if answer.usage is MISSING:
        return {}
    if (usage := counted(ask, answer)) is None:
        return {"usageMetadata": answer.usage}
    return {
        "usageMetadata": {
            "promptTokenCount": usage.prompt,
            "candidatesTokenCount": usage.completion - usage.reasoning,
            "thoughtsTokenCount": usage.reasoning,
            "cachedContentTokenCount": usage.cached,
            "totalTokenCount": usage.prompt + usage.completion,
        }
    }
