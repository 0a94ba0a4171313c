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
    targets = state_of(request.scope)["targets"]()
    providers = {
        provider: _of_all([each for each in _speaking(targets) if each.provider == provider])
        for provider in dict.fromkeys(target.provider for target in targets)
    }
    shown = {target.label: _of_one(target) for target in targets}
    return answer_json(request, {"providers": providers, "targets": shown})


def _speaking(targets: Sequence[TargetHealth]) -> list[TargetHealth]:
    """Return those that tell of their providers: not a mock, where the provider has a real one."""
    real = {target.provider for target in targets if not target.mocked}
    return [target for target in targets if not (target.mocked and target.provider in real)]


def _of_all(targets: Iterable[TargetHealth]) -> dict[str, object]:
    """Return what a provider is when its targets are these: as well as the best of them."""
    healthy = [target for target in targets if target.healthy]
    known = [target.latency_s for target in healthy if target.latency_s is not None]
    return {"healthy": bool(healthy), "latency": _rounded(min(known, default=None))}


def _of_one(target: TargetHealth) -> dict[str, object]:
    return {
        "provider": target.provider,
        "healthy": target.healthy,
        "latency": _rounded(target.latency_s),
        "reason": target.reason,
    }


def _rounded(latency_s: float | None) -> float | None:
    return None if latency_s is None else round(latency_s, LATENCY_DIGITS)
