"""GET and DELETE /v1/responses/{id}, its `input_items` and its `cancel`: for who had it made."""

from __future__ import annotations

import re

from starlette.requests import Request
from starlette.responses import Response

from proxy.api.deps import state_of
from proxy.api.parse import wrong
from proxy.api.render import answer
from proxy.api.small import caller_of
from proxy.errors import ResponseUnknown

# As providers make them: LiteLLM's own proxy puts base64 into it.
_ID = re.compile(r"\w[\w.=+-]{0,511}", re.ASCII)
MOST_PARAMETERS = 20
AZURE_VERSION = "api-version"  # of the address that was asked, not of the provider's
_FALSE = frozenset({"", "0", "false"})


async def response(request: Request) -> Response:
    return await _ask(request)


async def input_items(request: Request) -> Response:
    return await _ask(request, "input_items")


async def cancel(request: Request) -> Response:
    return await _ask(request, "cancel")


async def _ask(request: Request, *below: str) -> Response:
    """Pass the request on to the target that keeps the response."""
    state, caller = state_of(request.scope), caller_of(request)
    id, snapshot = request.path_params["response"], state["snapshots"].current
    if not _ID.fullmatch(id):
        raise ResponseUnknown("this is not the id of a response")
    said = request.query_params.multi_items()[:MOST_PARAMETERS]
    query = [pair for pair in said if pair[0] != AZURE_VERSION]
    if request.query_params.get("stream", "").lower() not in _FALSE:
        raise wrong("stream", "false: a response that is kept is told whole")
    method = "GET" if request.method == "HEAD" else request.method
    async with state["drain"].enter(snapshot.policy.limits.in_flight):
        body = await state["shelf"].ask(method, id, below, query, caller=caller, snapshot=snapshot)
    return answer(request, body)
