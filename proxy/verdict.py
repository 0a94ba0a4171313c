"""What a request's failures amount to: whom they rule out, what the caller is told. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from proxy.errors import (
    DeadlineExceeded,
    ModelUnknown,
    NoTargetAvailable,
    ProviderAuthFailed,
    ProxyError,
    RateLimited,
    Refused,
    UpstreamFailure,
)
from proxy.refusals import price_unknown
from proxy.retry import Kind
from proxy.routing import Plan
from proxy.standing import Standing
from proxy.types import Target

# Failures after which the same target may well answer a moment later.
PASSING = frozenset({Kind.TRANSIENT, Kind.OVERLOADED, Kind.RATE_LIMITED, Kind.RESTING, Kind.FULL})
# Failures of targets that have, or are at, a limit.
LIMITED = frozenset({Kind.RATE_LIMITED, Kind.FULL})
# Failures that the caller can do something about, once nobody else could answer either.
CALLERS_OWN = frozenset({Kind.OVERSIZED, Kind.CONTENT, Kind.FORGOTTEN})


def in_dialect(failure: UpstreamFailure, *, changed: bool) -> UpstreamFailure:
    """A refused request is the caller's fault only in the dialect that the caller wrote it for."""
    if changed and failure.kind is Kind.CALLER:
        failure.kind = Kind.DIALECT
    return failure


def hopeless(failure: UpstreamFailure) -> bool:
    """Say whether its target will not answer this request, however long one waits."""
    too_large = failure.kind is Kind.FULL and failure.retry_after_s is None
    return too_large or failure.kind is Kind.DIALECT


def refused(failure: UpstreamFailure) -> Refused:
    """Return the provider's own refusal, as the caller is told it."""
    status = failure.provider_status or 400
    return Refused(failure, status=status if 400 <= status < 500 else 400)


def resting(standing: Standing) -> UpstreamFailure:
    """Return why a target that must not be asked now would not answer."""
    if standing.cooling_s > 0 and standing.failure is not None:
        return standing.failure
    return UpstreamFailure("the target is resting", kind=Kind.RESTING)


def same_model(target: Target, targets: Iterable[Target]) -> set[str]:
    """Return the identities that stand for the same model of the same provider."""
    return {t.identity for t in targets if (t.provider, t.model) == (target.provider, target.model)}


def too_small(target: Target, targets: Sequence[Target]) -> set[str]:
    """Return the identities whose context window is known to be no larger than `target`'s."""
    window = target.facts.max_input_tokens
    small = {
        t.identity
        for t in targets
        if window is not None
        and (other := t.facts.max_input_tokens) is not None
        and other <= window
    }
    return small | same_model(target, targets)


def worth_a_lap(failures: Iterable[UpstreamFailure]) -> bool:
    """Say whether any failure may pass by itself in a moment."""
    return any(failure.kind in PASSING for failure in failures)


def nobody_left(
    model: str,
    plan: Plan,
    failures: Sequence[UpstreamFailure],
    *,
    away_s: Sequence[float],
    out_of_time: bool,
) -> ProxyError:
    """
    Return what the caller is told when no target is left to ask.

    `away_s` holds, for each target of the plan, the seconds until it may be asked again; the least
    of them is the `Retry-After`.
    """
    if not plan.steps and not failures:
        return _unconfigured(model, plan)
    # What a second provider thinks of the first one's dialect is no news to the caller.
    told = [failure for failure in failures if failure.kind is not Kind.DIALECT] or list(failures)
    kinds = {failure.kind for failure in told}
    own = next((f for f in told if f.kind in CALLERS_OWN or kinds == {Kind.DIALECT}), None)
    if own is not None:
        return refused(own)
    back_s = max(1.0, min(away_s, default=1.0))
    if kinds == {Kind.UNPRICED}:
        return price_unknown(told[-1])
    if kinds and kinds <= LIMITED:
        return _rate_limited(model, told, back_s)
    if out_of_time or (kinds and kinds <= {Kind.SILENT, Kind.IMPATIENT}):
        return DeadlineExceeded(f"no target of {model!r} answered in time", should_retry=False)
    return _all_failed(model, told, kinds, back_s)


def _all_failed(
    model: str, told: Sequence[UpstreamFailure], kinds: set[Kind], back_s: float
) -> ProxyError:
    if kinds == {Kind.CREDENTIAL}:
        return ProviderAuthFailed(
            f"every provider of {model!r} refused the gateway's own key; its operator can run "
            "`mobius check --live`",
            should_retry=False,
        )
    if kinds == {Kind.MISSING} and any(failure.provider_status == 404 for failure in told):
        return ModelUnknown(f"the provider does not know the model behind {model!r}")
    return NoTargetAvailable(
        f"no target of {model!r} is available ({', '.join(sorted(kinds))})",
        retry_after_s=back_s,
        should_retry=False,
    )


def _unconfigured(model: str, plan: Plan) -> NoTargetAvailable:
    reasons = "; ".join(f"{step.target.label} {step.reason}" for step in plan.left_out)
    return NoTargetAvailable(
        f"no target of {model!r} is configured ({reasons or 'none is allowed'})",
        should_retry=False,
    )


def _rate_limited(model: str, told: Sequence[UpstreamFailure], back_s: float) -> RateLimited:
    if all(map(hopeless, told)):
        return RateLimited(
            f"the request is larger than what any deployment of {model!r} may take at once",
            should_retry=False,
        )
    last = told[-1]
    error = RateLimited(
        last.provider_message or f"every target of {model!r} is rate limited",
        retry_after_s=back_s,
    )
    error.code = last.provider_code or error.code
    error.type = last.provider_type or error.type
    return error
