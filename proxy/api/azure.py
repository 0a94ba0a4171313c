"""
Azure's addresses: `/openai/deployments/{model}/…`, `/openai/v1/…` and `/openai/…`.

The model of a deployment's address is the one that is asked, whatever the body says; the
`api-version` of a query says nothing to us.
"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.api.exchange import ModelEndpoint
from proxy.api.surfaces import ROWS, Row
from proxy.types import ANTHROPIC, Surface

UNKNOWN_THERE = ANTHROPIC | {Surface.RERANK}
ROOTS = ("/openai/v1", "/openai")  # of addresses that name no deployment
DEPLOYMENTS = "/openai/deployments/"
ROWS_THERE = tuple(row for row in ROWS if row.surface not in UNKNOWN_THERE)
# The longest first: a chat's ends like that of a completion.
_ENDINGS: tuple[tuple[str, ModelEndpoint], ...] = tuple(
    sorted(
        ((path, row.endpoint) for row in ROWS_THERE for path in row.paths),
        key=lambda each: -len(each[0]),
    )
)


def azure_addresses(row: Row) -> Iterator[str]:
    """Yield the addresses of a surface that name no deployment."""
    if row in ROWS_THERE:
        yield from (f"{root}{path}" for path in row.paths for root in ROOTS)


def deployment_addresses(row: Row) -> Iterator[str]:
    """Yield those that do, as the router has them."""
    if row in ROWS_THERE:
        yield from (f"{DEPLOYMENTS}{{model:path}}{path}" for path in row.paths)


def deployed(path: str) -> tuple[ModelEndpoint, str] | None:
    """Return who answers at an address that names a deployment, and which one it names."""
    if not path.startswith(DEPLOYMENTS):
        return None
    for ending, endpoint in _ENDINGS:
        name = path[len(DEPLOYMENTS) : -len(ending)]
        if name and path.endswith(ending):
            return endpoint, name
    return None
