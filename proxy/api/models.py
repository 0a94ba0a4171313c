"""GET /v1/models and /v1/models/{id}: what the caller may ask, in OpenAI's form."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from proxy.access import model_unknown
from proxy.api.deps import state_of
from proxy.api.render import answer_json
from proxy.api.small import caller_of

CREATED = (
    1_677_610_602  # a date OpenAI's clients ask for and configured names do not have; LiteLLM's
)
OWNER = "mobius"


async def list_models(request: Request) -> Response:
    caller = caller_of(request)
    names = state_of(request.scope)["snapshots"].current.models()
    listed = [_model(name) for name in names if caller.may_ask(name)]
    return answer_json(request, {"object": "list", "data": listed})


async def get_model(request: Request) -> Response:
    caller, snapshot = caller_of(request), state_of(request.scope)["snapshots"].current
    name: str = request.path_params["model"]
    # A model that the caller may not ask is as good as none.
    if not caller.may_ask(name) or snapshot.ring(name) is None:
        raise model_unknown(caller, name, snapshot.models())
    return answer_json(request, _model(name))


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": OWNER}
