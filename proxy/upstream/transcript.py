"""What was heard in a recording, in whichever form the provider answers and the caller wants it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from proxy.errors import UpstreamFailure
from proxy.grammar import GRAMMARS
from proxy.replies import JSON, Chunk, Completion
from proxy.retry import Kind
from proxy.types import Call, Json
from proxy.upstream import failures

TEXT = "text/plain; charset=utf-8"  # OpenAI's, of subtitles too
# Forms of an answer that are no JSON; of the latter two each line says when it is.
SUBTITLES = frozenset({"srt", "vtt"})
TEXTS = SUBTITLES | {"text"}
_MARK = re.compile(r"--> *(?:(\d+):)?(\d+):(\d+)[.,](\d+)")


def transcript_of(
    call: Call, raw: bytes, content_type: str, *, secrets: tuple[str, ...], **facts: Any
) -> Completion:
    """Return a provider's whole answer as a reply. Raises UpstreamFailure where it is none."""
    body = _read(raw, content_type, call, secrets)
    kind = JSON if content_type.startswith(JSON) or not content_type else content_type
    return _reply(call, raw, body, kind, facts)


def transcript_from(call: Call, body: Json, **facts: Any) -> Completion:
    """Return what LiteLLM made of an answer in the form that was asked for. Raises likewise."""
    form = call.body.get("response_format") or "json"
    text = body.get("text")
    if not isinstance(text, str):
        raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT)
    if form in SUBTITLES and text and "-->" not in text:
        raise UpstreamFailure("this provider writes no subtitles", kind=Kind.DIALECT)
    if form in TEXTS:
        return _reply(call, text.encode(errors="replace"), _timed(text, body), TEXT, facts)
    told = body if form != "json" else {n: body[n] for n in ("text", "usage") if body.get(n)}
    return _reply(call, orjson.dumps({"text": text, **told}), body, JSON, facts)


def _reply(
    call: Call, raw: bytes, body: Json, content_type: str, facts: Mapping[str, Any]
) -> Completion:
    if not call.stream:
        return Completion(raw, body, content_type=content_type, **facts)
    # Not every model streams what it hears; a client that wants events is told nothing otherwise.
    events = GRAMMARS[call.surface].events(body, usage=True)
    return Completion(Chunk.of_events(events).raw, body, streamed=True, **facts)


def _read(raw: bytes, content_type: str, call: Call, secrets: tuple[str, ...]) -> Json:
    grammar = GRAMMARS[call.surface]
    if not content_type.startswith(JSON) and call.body.get("response_format") in TEXTS:
        text = raw.decode(errors="replace")
        return _timed(text, {})
    try:
        body: Any = orjson.loads(raw)
    except ValueError as exc:
        raise UpstreamFailure("the answer is not JSON", kind=Kind.TRANSIENT) from exc
    if isinstance(body, dict) and (reported := grammar.failure(body)) is not None:
        raise failures.of_event(reported, secrets=secrets)
    if isinstance(body, str):  # of a server that writes a text as JSON
        return {"text": body}
    if not grammar.answers(body):
        raise UpstreamFailure("the answer cannot be read", kind=Kind.TRANSIENT)
    found: Json = body
    return found


def _timed(text: str, body: Json) -> Json:
    """Return a body with that text and, of subtitles, how long they last."""
    marks = _MARK.findall(text)
    if not marks:
        return {**body, "text": text}
    hours, minutes, seconds, millis = marks[-1]
    ends_s = int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + float(f"0.{millis}")
    return {"duration": ends_s, **body, "text": text}
