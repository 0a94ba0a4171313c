"""GET and DELETE /v1/responses/{id}, its `input_items` and its `cancel`: for who had it made."""

from __future__ import annotations

import re
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from proxy.api.conversation import ClientLeft
from proxy.api.deps import state_of
from proxy.api.form import as_response
from proxy.api.headers import request_id_of
from proxy.api.outbound import Outbound
from proxy.api.render import answer, error_of
from proxy.api.small import caller_of
from proxy.errors import ResponseUnknown
from proxy.snapshot import Snapshot
from proxy.types import Caller, Surface, Tally

# As providers make them: LiteLLM's own proxy puts base64 into it.
_ID = re.compile(r"\w[\w.=+-]{0,511}", re.ASCII)
MOST_PARAMETERS = 20
AZURE_VERSION = "api-version"  # of the address that was asked, not of the provider's
_FALSE = frozenset({"", "0", "false"})


async def response(request: Request) -> Response:
    if request.query_params.get("stream", "").lower() not in _FALSE and request.method == "GET":
        caller, snapshot = caller_of(request), state_of(request.scope)["snapshots"].current
        return Followed(request, caller, snapshot)
    return await _ask(request)


async def input_items(request: Request) -> Response:
    return await _ask(request, "input_items")


async def cancel(request: Request) -> Response:
    return await _ask(request, "cancel")


async def _ask(request: Request, *below: str) -> Response:
    """Pass the request on to the target that keeps the response."""
    state, caller, id = state_of(request.scope), caller_of(request), _id_of(request)
    snapshot, query = state["snapshots"].current, _query_of(request)
    method = "GET" if request.method == "HEAD" else request.method
    async with state["drain"].enter(snapshot.policy.limits.in_flight):
        body = await state["shelf"].ask(method, id, below, query, caller=caller, snapshot=snapshot)
    return answer(request, body)


def _id_of(request: Request) -> str:
    """Return the id that is asked for. Raises ResponseUnknown for what cannot be one."""
    id: str = request.path_params["response"]
    if not _ID.fullmatch(id):
        raise ResponseUnknown("this is not the id of a response")
    return id


def _query_of(request: Request) -> list[tuple[str, str]]:
    said = request.query_params.multi_items()[:MOST_PARAMETERS]
    return [pair for pair in said if pair[0] != AZURE_VERSION]


class Followed(Response):
    """The events of a response that its provider keeps, told as a model's are."""

    def __init__(self, request: Request, caller: Caller, snapshot: Snapshot) -> None:
        super().__init__()
        self._request = request
        self._caller = caller
        self._snapshot = snapshot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state, policy = state_of(scope), self._snapshot.policy
        clock, log = state["clock"], state["log"]
        request_id = request_id_of(dict(scope["headers"]))
        tally = Tally(request_id, Surface.RESPONSES, "unknown", True, clock.now())
        form = as_response(tally, clock)
        outbound = Outbound(send, tally, clock=clock, log=log, form=form)
        try:
            async with state["drain"].enter(policy.limits.in_flight) as conversation:
                conversation.heed(scope, receive, lambda: outbound.finished)
                conversation.beside(partial(outbound.pulse, policy.keepalive))
                id, query = _id_of(self._request), _query_of(self._request)
                follow = state["shelf"].follow
                stream = await follow(id, query, caller=self._caller, snapshot=self._snapshot)
                await outbound.stream(stream)
        except ClientLeft:
            pass
        except Exception as exc:
            await outbound.fail(error_of(exc, log))
