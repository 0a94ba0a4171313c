"""ProxyError, and whatever else was raised, to HTTP: the only reader of the tree of errors."""

from __future__ import annotations

import traceback
from collections.abc import Mapping

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proxy import sse
from proxy.api.deps import state_of
from proxy.api.headers import RawHeaders, error_headers, request_id_of, safe
from proxy.errors import (
    MethodRefused,
    ProxyError,
    RequestInvalid,
    UpstreamFailure,
    UrlUnknown,
)
from proxy.log import Log

JSON = (b"content-type", b"application/json")
EVENTS: RawHeaders = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold a stream back until it is whole
]


def error_of(exc: Exception, log: Log) -> ProxyError:
    """Return what the caller may hear. Whatever is not a ProxyError is a bug, and says nothing."""
    if isinstance(exc, ProxyError):
        return exc
    # Its text may hold an address, a prompt or a key; its type and place cannot.
    frames = traceback.extract_tb(exc.__traceback__)[-3:]
    where = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    log.line("fault", type=type(exc).__name__, where=where)
    return ProxyError("internal error")


def error_body(error: ProxyError) -> bytes:
    """Return OpenAI's envelope, always with its four fields."""
    kind, code = error.type, error.code
    if isinstance(error, UpstreamFailure) and error.provider_message:
        kind, code = error.provider_type or kind, error.provider_code or code
    fields = {
        "message": error_message(error),
        "type": _text(kind),
        "param": _text(error.param),
        "code": _text(code),
    }
    return orjson.dumps({"error": fields})


def error_message(error: ProxyError) -> str:
    """Return what the caller is told: the provider's own words, where there are any."""
    provided = error.provider_message if isinstance(error, UpstreamFailure) else None
    return _text(provided or error.message) or ""


def _text(value: str | None) -> str | None:
    # A provider's JSON can hold half a surrogate pair, which no encoder takes.
    return None if value is None else value.encode(errors="replace").decode()


def error_frame(error: ProxyError) -> bytes:
    """Return the one event that ends a stream which cannot go on."""
    return sse.frame(error_body(error))


def answer(
    request: Request, body: bytes, *, status: int = 200, headers: RawHeaders | None = None
) -> Response:
    """Return JSON, or whatever `headers` say it is, under the id of the request."""
    response = Response(body, status)
    response.raw_headers = [
        *(headers or [JSON]),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", safe(request_id_of(dict(request.scope["headers"])))),
    ]
    return response


def answer_json(request: Request, content: Mapping[str, object], status: int = 200) -> Response:
    return answer(request, orjson.dumps(content), status=status)


async def answer_error(request: Request, exc: Exception) -> Response:
    """The one exception handler: of the application, and of every small route."""
    if isinstance(exc, HTTPException):
        return _answer_router(request, exc)
    if isinstance(exc, RequestValidationError):
        exc = RequestInvalid("the request does not have the form that is expected here")
    error = error_of(exc, state_of(request.scope)["log"])
    headers = [JSON, *error_headers(error)]
    return answer(request, error_body(error), status=error.status, headers=headers)


def _answer_router(request: Request, exc: HTTPException) -> Response:
    """Return what the router has to say about an address or a method, in our own words."""
    allow = (exc.headers or {}).get("Allow", "")
    headers: RawHeaders = [JSON, *([(b"allow", safe(allow))] if allow else [])]
    if exc.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers={"allow": allow})
    asked = f"{request.method} {request.url.path}"[:200]
    error: ProxyError
    if exc.status_code == 404:
        error = UrlUnknown(f"there is nothing at this address: {asked}")
    elif exc.status_code == 405:
        error = MethodRefused(f"this address does not take this method: {asked}")
    else:
        error = RequestInvalid("the request was refused")
        error.status = exc.status_code
    return answer(request, error_body(error), status=error.status, headers=headers)
