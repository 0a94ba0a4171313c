"""Every address of the service, in one table, and what an application needs to answer there."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from proxy.api import admin, ai, models, openapi, ops, providers, stored, usage
from proxy.api.azure import ROOTS as AZURE_ROOTS
from proxy.api.azure import azure_addresses, deployed, deployment_addresses
from proxy.api.exchange import ModelEndpoint
from proxy.api.render import answer_error
from proxy.api.small import SmallEndpoint
from proxy.api.surfaces import ROWS, addresses
from proxy.errors import ProxyError

_POST = "POST"
_GET = "GET"  # and HEAD
_DELETE = "DELETE"

_MODELS = SmallEndpoint(models.list_models, models.failed)
_MODEL = SmallEndpoint(models.get_model, models.failed)

# The first that matches answers.
TABLE: tuple[tuple[str, str, ASGIApp], ...] = (
    *((_POST, path, row.endpoint) for row in ROWS for path in addresses(row)),
    *((_POST, path, row.endpoint) for row in ROWS for path in azure_addresses(row)),
    *((_POST, path, row.endpoint) for row in ROWS for path in deployment_addresses(row)),
    (_POST, "/ai/generate", ai.generate),
    (_POST, "/ai/stream", ai.stream),
    (_GET, "/ai/providers/health", SmallEndpoint(providers.health)),
    *(
        (method, f"{root}/responses/{{response}}{below}", SmallEndpoint(answering))
        for root in ("/v1", "", *AZURE_ROOTS)
        for method, below, answering in (
            (_GET, "", stored.response),
            (_DELETE, "", stored.response),
            (_GET, "/input_items", stored.input_items),
            (_POST, "/cancel", stored.cancel),
        )
    ),
    (_GET, "/v1/models", _MODELS),
    (_GET, "/models", _MODELS),
    (_GET, "/v1/models/{model:path}", _MODEL),
    (_GET, "/models/{model:path}", _MODEL),
    *((_GET, f"{root}/models", _MODELS) for root in AZURE_ROOTS),
    *((_GET, f"{root}/models/{{model:path}}", _MODEL) for root in AZURE_ROOTS),
    (_GET, "/health/liveness", SmallEndpoint(ops.liveness)),
    (_GET, "/health/liveliness", SmallEndpoint(ops.liveness)),  # LiteLLM's spelling
    (_GET, "/health/readiness", SmallEndpoint(ops.readiness)),
    (_GET, "/health", SmallEndpoint(ops.health)),
    (_GET, "/metrics", SmallEndpoint(ops.metrics)),
    (_POST, "/admin/reload", SmallEndpoint(admin.reload_config)),
    (_GET, "/admin/explain/{model:path}", SmallEndpoint(admin.explain)),
    (_DELETE, "/admin/cache", SmallEndpoint(admin.purge_cache)),
    (_GET, "/admin/usage", SmallEndpoint(usage.report)),
    (_GET, "/openapi.json", SmallEndpoint(openapi.describe)),
)


# They answer every error themselves, and ask nothing of the layers that an application has.
MODELS: Mapping[tuple[str, str], ModelEndpoint] = {
    (method, path): app for method, path, app in TABLE if isinstance(app, ModelEndpoint)
}


def _deployed(scope: Scope) -> ModelEndpoint | None:
    """Return who answers at Azure's address of a deployment, which the scope then names."""
    found = deployed(scope["path"]) if scope["method"] == _POST else None
    if found is None:
        return None
    endpoint, scope["path_params"] = found[0], {"model": found[1]}
    return endpoint


class Service(FastAPI):
    """The application. Model requests do not go through its layers, which cost more than a hit."""

    def __call__(  # type: ignore[override]  # what it returns is awaited, all the same
        self, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        if scope["type"] == "http":
            endpoint = MODELS.get((scope["method"], scope["path"])) or _deployed(scope)
            if endpoint is not None:
                return endpoint(scope, receive, send)
        return super().__call__(scope, receive, send)


def routes() -> list[BaseRoute]:
    return [Route(path, app, methods=[method], name=path) for method, path, app in TABLE]


def install(app: FastAPI) -> None:
    """
    Let `app` answer at every address of the table, with an envelope for every error.

    A server that takes ports for `/metrics` alone puts them in `app.state.metrics_ports`.
    """
    app.state.metrics_ports = frozenset()
    app.router.routes.extend(routes())
    app.router.redirect_slashes = False
    for kind in (ProxyError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_error)
