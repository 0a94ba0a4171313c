"""GET /ai/providers/health: whether each provider would be asked now, and how fast it answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from proxy.api.deps import TargetHealth, state_of
from proxy.api.render import answer_json
from proxy.api.small import caller_of

LATENCY_DIGITS = 6


async def health(request: Request) -> Response:
    """Say how each provider and each of its targets is; none is asked for it."""
    caller_of(request)
    state = state_of(request.scope)
    targets, now_s = state["targets"](), state["clock"].now()
    providers = {
        provider: _of_all([each for each in _speaking(targets) if each.provider == provider])
        for provider in dict.fromkeys(target.provider for target in targets)
    }
    shown = {target.label: _of_one(target, now_s) for target in targets}
    return answer_json(request, {"providers": providers, "targets": shown})


def _speaking(targets: Sequence[TargetHealth]) -> list[TargetHealth]:
    """Return those that tell of their providers: not a mock, where the provider has a real one."""
    real = {target.provider for target in targets if not target.mocked}
    return [target for target in targets if not (target.mocked and target.provider in real)]


def _of_all(targets: Iterable[TargetHealth]) -> dict[str, object]:
    """Return what a provider is when its targets are these: as well as the best of them."""
    healthy = [target for target in targets if target.healthy]
    known = [took_s for target in healthy if (took_s := _latency_s(target)) is not None]
    return {"healthy": bool(healthy), "latency": _rounded(min(known, default=None))}


def _of_one(target: TargetHealth, now_s: float) -> dict[str, object]:
    probe = target.probe
    return {
        "provider": target.provider,
        "healthy": target.healthy,
        "latency": _rounded(_latency_s(target)),
        "reason": target.reason,
        "probe": probe
        and {
            "by": probe.by,
            "outcome": probe.outcome,
            "latency": _rounded(probe.took_s),
            "age": _rounded(max(0.0, now_s - probe.at_s)),
        },
    }


def _latency_s(target: TargetHealth) -> float | None:
    """Return the time to a first token; where no request has met one, what a probe took."""
    if target.latency_s is None and target.probe is not None and target.probe.ok:
        return target.probe.took_s
    return target.latency_s


def _rounded(latency_s: float | None) -> float | None:
    return None if latency_s is None else round(latency_s, LATENCY_DIGITS)
