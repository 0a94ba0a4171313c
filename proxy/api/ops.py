"""Health and metrics: what a load balancer, a person and Prometheus ask."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from proxy.api.apart import APART
from proxy.api.deps import state_of
from proxy.api.render import answer, answer_json
from proxy.api.small import caller_of
from proxy.errors import WorkersSilent
from proxy.everyone import Silent
from proxy.policy import MetricsPort


async def liveness(request: Request) -> Response:
    return answer_json(request, {"status": "alive"})


async def readiness(request: Request) -> Response:
    """Say whether requests should be sent here. A broken file is no reason: the old one serves."""
    state = state_of(request.scope)
    lanes, draining = state["lanes"](), state["drain"].draining
    ready = not draining and _usable(lanes)
    error = state["snapshots"].last_error
    content = {
        "status": "ready" if ready else "not_ready",
        "generation": state["snapshots"].generation,
        "config_error": None if error is None else str(error),
        "draining": draining,
        "lanes": dict(lanes),
    }
    return answer_json(request, content, 200 if ready else 503)


async def health(request: Request) -> Response:
    """Say which targets would be asked now, in LiteLLM's form; no target is asked for it."""
    caller_of(request)
    healthy, unhealthy = [], []
    for target in state_of(request.scope)["targets"]():
        if target.healthy:
            healthy.append({"target": target.label})
        else:
            unhealthy.append({"target": target.label, "reason": target.reason})
    content = {
        "healthy_endpoints": healthy,
        "unhealthy_endpoints": unhealthy,
        "healthy_count": len(healthy),
        "unhealthy_count": len(unhealthy),
    }
    return answer_json(request, content)


async def metrics(request: Request) -> Response:
    """
    Answer with the numbers of all workers.

    A port of its own is taken at the start alone. A file that names one since then does not want
    them open here, so that they need a key until the next start.
    """
    state = state_of(request.scope)
    access = state["snapshots"].current.policy.metrics.access
    by_port = APART in request.scope
    if isinstance(access, MetricsPort) and request.app.state.metrics_ports and not by_port:
        raise HTTPException(404)
    if access == "key" or (access != "open" and not by_port):
        caller_of(request)
    meters = state["metrics"]
    try:
        numbers = await state["everyone"].numbers()
    except Silent as exc:
        # A part of the sums would look as if they had begun anew; a scrape that fails is a gap.
        raise WorkersSilent(str(exc)) from exc
    kind = (b"content-type", meters.content_type.encode())
    return answer(request, meters.render(numbers), headers=[kind])


def _usable(lanes: Mapping[str, str]) -> bool:
    # A lane is idle where no target needs it, which is no reason to wait.
    needed = set(lanes.values()) - {"idle"}
    return "loading" not in needed and (not needed or "ready" in needed)
