"""The port that `mobius.metrics.access` names: `/metrics` is there, and nothing else is."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api.render import answer_error

METRICS = "/metrics"
APART = "mobius.apart"  # in a scope: it came by that port


class Apart:
    """What answers on that port, in the place of `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].removeprefix(scope.get("root_path", "")) != METRICS:
            response = await answer_error(Request(scope, receive), HTTPException(404))
            await response(scope, receive, send)
            return
        scope[APART] = True
        await self._app(scope, receive, send)
