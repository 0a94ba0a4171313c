"""The statuses that `/openapi.json` names: every one that an address can answer with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

WORDS: Mapping[str, str] = {
    "400": "The request does not have the form that is expected here.",
    "401": "No valid key.",
    "403": "The key may not do this.",
    "404": "There is no such thing: a model, as a rule.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "429": "A limit is reached, the caller's or every provider's; `retry-after` says for how long.",
    "431": "The headers are too large.",
    "500": "A fault of the gateway's own.",
    "502": "Every provider refused the gateway's own key, or the answer could not be read.",
    "503": "No provider is available, or the gateway is overloaded; see `code`.",
    "504": "No provider answered in time.",
    "4XX": "The provider's own refusal, with its status.",
}
ASKING = ("400", "401", "403", "404", "408", "413", "429", "431", "500", "502", "503", "504", "4XX")


def with_statuses(paths: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the paths with what stands there as `default` under each status that there can be."""
    return {
        path: {method: _named(path, operation) for method, operation in operations.items()}
        for path, operations in paths.items()
    }


def _named(path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    said = dict(operation["responses"])
    usual, statuses = said.pop("default"), dict.fromkeys(_statuses(path, operation))
    told = {status: {**usual, "description": WORDS[status]} for status in statuses}
    return {**operation, "responses": {**told, **said}}


def _statuses(path: str, operation: Mapping[str, Any]) -> Iterator[str]:
    if "requestBody" in operation:
        yield from ASKING
        return
    yield from ("431", "500")
    if "security" in operation or path == "/metrics":
        yield "401"
    if operation.get("parameters"):
        yield from ("400", "404")
    if path.startswith("/admin/"):
        yield from ("400", "403", "503")
    if path.startswith("/health/"):
        yield "503"
