"""A fake OpenAI (and Azure, and anything that speaks its wire format) on a real socket."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from tests.providers import (
    openai_audio,
    openai_chat,
    openai_completions,
    openai_embeddings,
    openai_errors,
    openai_lists,
    openai_responses,
)
from tests.providers.dialect import Ask, Shape
from tests.providers.openai_errors import envelope
from tests.providers.server import FakeProvider
from tests.providers.sse import Event
from tests.providers.steps import Answer, Json
from tests.providers.wire import Request

_PATH = re.compile(
    r"^(/openai)?(/v1)?(/deployments/(?P<deployment>[^/]+))?"
    r"/(?P<endpoint>chat/completions|completions|embeddings|responses|models"
    r"|moderations|images/generations|rerank|audio/\w+)(/(?P<model>.+))?$"
)
_SHAPES: dict[str, Shape] = {
    "chat/completions": Shape(openai_chat.whole, openai_chat.events),
    "completions": Shape(openai_completions.whole, openai_completions.events),
    "embeddings": Shape(openai_embeddings.whole, openai_embeddings.events),
    "responses": Shape(openai_responses.whole, openai_responses.events),
    "moderations": Shape(openai_lists.moderations, openai_lists.events),
    "images/generations": Shape(openai_lists.images, openai_lists.events),
    "audio/speech": Shape(openai_audio.unasked, openai_audio.speech),
    "audio/transcriptions": Shape(openai_audio.heard, openai_audio.heard_events),
    "audio/translations": Shape(openai_audio.heard, openai_audio.heard_events),
    "rerank": Shape(openai_lists.rerank, openai_lists.events),
}
_MODELS = ("gpt-4o", "gpt-4o-mini", "text-embedding-3-small")


class OpenAI:
    """OpenAI's wire format."""

    base_path = "/v1"

    def __init__(self, lacks: Collection[str] = ()) -> None:
        """`lacks`: endpoints that this server does not have."""
        self._lacks = frozenset(lacks)

    def read(self, number: int, request: Request, created: int) -> Ask | None:
        if (found := _PATH.match(request.path)) is None or found["endpoint"] in self._lacks:
            return None
        body = request.json
        model = body.get("model") or found["deployment"] or found["model"]
        speaks = found["endpoint"] == "audio/speech"
        return Ask(
            number=number,
            request=request,
            endpoint=found["endpoint"],
            model=model if isinstance(model, str) else None,
            streams=speaks or body.get("stream") is True or openai_audio.streams(body),
            created=created,
            media=openai_audio.sound_type(body) if speaks else None,
        )

    def fixed(self, ask: Ask) -> Json | None:
        if ask.endpoint == "responses" and (below := ask.request.path.split("/responses/")[1:]):
            return openai_responses.kept(ask, *below[0].split("/"))
        if ask.endpoint != "models":
            return None
        if ask.model is not None:
            return _model(ask.model, ask.created)
        return {"object": "list", "data": [_model(name, ask.created) for name in _MODELS]}

    def whole(self, ask: Ask, answer: Answer) -> Json | str:
        return _SHAPES[ask.endpoint].whole(ask, answer)

    def events(self, ask: Ask, answer: Answer) -> Iterable[Event]:
        return _SHAPES[ask.endpoint].events(ask, answer)

    def error(self, status: int, ask: Ask | None) -> Json:
        if status == 404 and ask is None:
            return openai_errors.error("Invalid URL", "invalid_request_error")
        return envelope(status, model=ask.model if ask else None)

    def error_event(self, error: Any) -> Event:
        usual = envelope(500, model=None)
        return Event("done", usual if error is None else error)

    def headers(self, number: int) -> dict[str, str]:
        return {
            "x-request-id": f"req_{number:032x}",
            "openai-organization": "org-fake",
            "openai-processing-ms": "12",
            "openai-version": "2020-10-01",
            "x-ratelimit-limit-requests": "10000",
            "x-ratelimit-limit-tokens": "2000000",
            "x-ratelimit-remaining-requests": "9999",
            "x-ratelimit-remaining-tokens": "1999000",
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-reset-tokens": "30ms",
        }


class FakeOpenAI(FakeProvider):
    """A provider at `base_url` that speaks OpenAI's wire format."""

    def __init__(
        self, *, lacks: Collection[str] = (), send_buffer_bytes: int | None = None
    ) -> None:
        """`lacks`: endpoints that it does not have, as `responses`."""
        super().__init__(OpenAI(lacks), send_buffer_bytes=send_buffer_bytes)


def _model(name: str, created: int) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": "openai"}
