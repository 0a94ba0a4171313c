"""The routes that answer at once: no stream, no body to read, nothing left to pay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.api.body import check_headers
from proxy.api.caller import caller_by
from proxy.api.deps import state_of
from proxy.api.render import answer_error
from proxy.errors import AdminOnly, ProxyError
from proxy.types import Caller

Answering: TypeAlias = Callable[[Request], Awaitable[Response]]
Failing: TypeAlias = Callable[[Request, Exception], Awaitable[Response]]


class SmallEndpoint:
    """The ASGI application behind one such route: its errors are envelopes too."""

    def __init__(self, answering: Answering, failing: Failing = answer_error) -> None:
        self._answering = answering
        self._failing = failing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            limits = state_of(scope)["snapshots"].current.policy.limits
            check_headers(scope["headers"], int(limits.header_kb * 1024))
            response = await self._answering(request)
        except Exception as exc:
            response = await self._failing(request, exc)
        await response(scope, receive, send)


def caller_of(request: Request) -> Caller:
    """Return who asks. Raises KeyRejected."""
    state = state_of(request.scope)
    headers = dict(request.scope["headers"])
    return caller_by(headers, state["snapshots"].current, wall_s=state["clock"].wall())


def admin_of(request: Request) -> Caller:
    """
    Return the administrator who asks. Raises KeyRejected, OriginRefused, AdminOnly.

    Who is refused is a line in the log, and so is who changes something. Where no keys are
    configured anybody is an administrator: the server then answers on a loopback address only.
    """
    state = state_of(request.scope)
    try:
        caller = caller_of(request)
        if not caller.admin and state["snapshots"].current.callers:
            raise AdminOnly("this needs an administrator's key")
    except ProxyError as error:
        host = request.client.host if request.client else None
        facts = {"outcome": error.code, "status": error.status, "client": host}
        state["log"].line("admin", level="warning", asked=_asked(request), **facts)
        raise
    if request.method not in ("GET", "HEAD"):
        state["log"].line("admin", level="info", asked=_asked(request), caller=caller.name)
    return caller


def _asked(request: Request) -> str:
    """Return the address without what a stranger may have written into it."""
    path: str = request.scope["path"]
    for word in request.path_params.values():
        path = path.removesuffix(word)
    return f"{request.method} {path}"
