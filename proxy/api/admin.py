"""POST /admin/reload, GET /admin/explain/{model}, DELETE /admin/cache: for administrators."""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import Response

from proxy.access import model_unknown
from proxy.api.deps import state_of
from proxy.api.render import answer_json
from proxy.api.small import admin_of
from proxy.errors import RequestInvalid, WorkersSilent
from proxy.everyone import Silent
from proxy.routing import Step


async def reload_config(request: Request) -> Response:
    """Say what became of it. A file with an error changes nothing; the answer names its line."""
    admin_of(request)
    try:
        found = await state_of(request.scope)["everyone"].reload()
    except Silent as exc:
        raise WorkersSilent(str(exc)) from exc
    return answer_json(request, asdict(found))


async def explain(request: Request) -> Response:
    """Say which targets a request for the model would ask, in which order, and why."""
    caller, state = admin_of(request), state_of(request.scope)
    snapshot, model = state["snapshots"].current, request.path_params["model"]
    ring = snapshot.ring(model)
    if ring is None:
        raise model_unknown(caller, model, snapshot.models())
    plan = state["explain"](ring, snapshot.policy)
    content = {
        "model": model,
        "asked": [_step(step) for step in plan.steps],
        "left_out": [_step(step) for step in plan.left_out],
    }
    return answer_json(request, content)


async def purge_cache(request: Request) -> Response:
    """Drop one answer (`key`), those of a model (`model`), or all; say how many it were."""
    admin_of(request)
    query = request.query_params
    unknown = set(query) - {"key", "model"}
    if unknown or len(query) > 1:
        raise RequestInvalid("one of `key` and `model` may be given, and nothing else")
    purge = state_of(request.scope)["purge"]
    dropped = await purge(key=query.get("key"), model=query.get("model"))
    return answer_json(request, {"dropped": dropped})


def _step(step: Step) -> dict[str, object]:
    said: dict[str, object] = {"target": step.target.label, "reason": step.reason}
    if step.target.timeouts.auto:
        said["first_token_s"] = step.target.timeouts.first_token_s
    return said
