"""
GET /v1/models and /v1/models/{id}: what the caller may ask, in OpenAI's form or in Anthropic's.

Anthropic's SDK names a version of its API, and gets Anthropic's form and pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import dropwhile
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from proxy.access import model_unknown
from proxy.api.deps import state_of
from proxy.api.described import described, owner_of
from proxy.api.headers import error_headers, request_id_of
from proxy.api.messages import error_told
from proxy.api.parse import wrong
from proxy.api.render import JSON, answer, answer_error, answer_json, error_of
from proxy.api.small import caller_of
from proxy.snapshot import Snapshot
from proxy.types import Target

CREATED = (
    1_677_610_602  # a date OpenAI's clients ask for and configured names do not have; LiteLLM's
)
OWNER = "mobius"  # of a name that stands for several providers
PAGE, LONGEST_PAGE = 20, 1000  # Anthropic's API reference, "List Models"


async def list_models(request: Request) -> Response:
    caller, snapshot = caller_of(request), state_of(request.scope)["snapshots"].current
    names = [name for name in snapshot.models() if caller.may_ask(name)]
    if _is_anthropic(request):
        return answer_json(request, _page(request, names, snapshot))
    listed = [_model(name, _targets(snapshot, name)) for name in names]
    return answer_json(request, {"object": "list", "data": listed})


async def get_model(request: Request) -> Response:
    caller, snapshot = caller_of(request), state_of(request.scope)["snapshots"].current
    name: str = request.path_params["model"]
    # A model that the caller may not ask is as good as none.
    if not caller.may_ask(name) or snapshot.ring(name) is None:
        raise model_unknown(caller, name, snapshot.models())
    form = _anthropic_model if _is_anthropic(request) else _model
    return answer_json(request, form(name, _targets(snapshot, name)))


async def failed(request: Request, exc: Exception) -> Response:
    """Answer an error in the form that the model would have had."""
    if not _is_anthropic(request):
        return await answer_error(request, exc)
    error = error_of(exc, state_of(request.scope)["log"])
    request_id = request_id_of(dict(request.scope["headers"]))
    body, headers = error_told(error, error.status, request_id), [JSON, *error_headers(error)]
    return answer(request, body, status=error.status, headers=headers)


def _is_anthropic(request: Request) -> bool:
    return "anthropic-version" in request.headers


def _targets(snapshot: Snapshot, name: str) -> Sequence[Target]:
    """Return the targets of a name itself: what it falls back to is another model."""
    ring = snapshot.ring(name)
    return ring.groups[0].targets if ring is not None else ()


def _model(name: str, targets: Sequence[Target]) -> dict[str, Any]:
    owner = owner_of(targets) or OWNER
    about = {"id": name, "object": "model", "created": CREATED, "owned_by": owner}
    return {**about, **described(targets)}


def _anthropic_model(name: str, targets: Sequence[Target]) -> dict[str, Any]:
    known = described(targets)
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": datetime.fromtimestamp(CREATED, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_tokens": known.get("max_output_tokens"),
        **known,
    }


def _page(request: Request, names: list[str], snapshot: Snapshot) -> dict[str, Any]:
    """Return the part of the list that is asked for. Raises RequestInvalid."""
    asked = request.query_params
    limit = _limit(asked.get("limit"))
    after, before = asked.get("after_id"), asked.get("before_id")
    if after is not None:
        names = list(dropwhile(lambda name: name != after, names))[1:]
    if before is not None:
        names = names[: names.index(before)] if before in names else []
    page = names[-limit:] if before is not None else names[:limit]
    return {
        "data": [_anthropic_model(name, _targets(snapshot, name)) for name in page],
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
        "has_more": len(names) > len(page),
    }


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= LONGEST_PAGE):
        raise wrong("limit", f"a whole number from 1 to {LONGEST_PAGE}")
    return int(text)
