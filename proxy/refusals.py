"""What the caller is told when a limit of the file leaves no room. Pure."""

from __future__ import annotations

from proxy.allowance import Allowance
from proxy.errors import BudgetSpent, LimitReached, PriceUnknown, TooManyTokens, UpstreamFailure
from proxy.limits import NANO, Refusal, Scope, Unit, duration
from proxy.retry import Kind


def limit_reached(refusal: Refusal) -> LimitReached:
    """Return the error for a limit of the caller's own."""
    unit = refusal.limit.unit
    error = (BudgetSpent if unit is Unit.NANO_USD else LimitReached)(
        _sentence(refusal),
        retry_after_s=refusal.retry_after_s,
        # The SDKs would try again within seconds, which helps with a minute and nothing else.
        should_retry=None if _soon(refusal) else False,
    )
    if unit is Unit.TOKENS:
        error.type = "tokens"
    return error


def target_full(refusal: Refusal) -> UpstreamFailure:
    """Return the failure of a deployment whose own limit leaves no room: it is not asked."""
    return UpstreamFailure(
        f"the deployment's own {_sentence(refusal)}",
        kind=Kind.FULL,
        retry_after_s=refusal.retry_after_s,
    )


def unpriced(label: str) -> UpstreamFailure:
    """Return the failure of a target that a caller with a budget cannot be sent to."""
    return UpstreamFailure(
        f"the price of {label} is not known, and the key has a budget; its operator can set "
        "input_cost_per_token and output_cost_per_token in litellm_params, or "
        "mobius.quota.unknown_price: free",
        kind=Kind.UNPRICED,
    )


def price_unknown(failure: UpstreamFailure) -> PriceUnknown:
    return PriceUnknown(failure.message, should_retry=False)


def check_tokens(allowance: Allowance, asked_tokens: int) -> None:
    """Return when so many tokens may be asked for at once. Raises TooManyTokens."""
    if allowance.most_tokens is not None and asked_tokens > allowance.most_tokens[1]:
        scope, most = allowance.most_tokens
        raise TooManyTokens(
            f"at most {most} tokens may be asked for in one request "
            f"(max_tokens_per_request of {_named(scope)}); this one asks for {asked_tokens}",
            param="max_tokens",
        )


def _soon(refusal: Refusal) -> bool:
    return refusal.retry_after_s is not None and refusal.retry_after_s <= 60.0


def _sentence(refusal: Refusal) -> str:
    limit, amount = refusal.limit, _amount
    said = (
        f"limit of {_named(limit.scope)} is reached: "
        f"{limit.word} {amount(limit.unit, limit.most)}, "
        f"{amount(limit.unit, refusal.used)} used or set aside, "
        f"{amount(limit.unit, refusal.remaining)} left, "
        f"{amount(limit.unit, refusal.wanted)} asked for; "
    )
    if refusal.retry_after_s is not None:
        return f"{said}there is room again in {duration(refusal.retry_after_s)}"
    if refusal.wanted > limit.most:
        return f"{said}no single request may take so much"
    return f"{said}it does not come back by itself"


def _named(scope: Scope) -> str:
    return f"{scope.kind.value} `{scope.name}`"


def _amount(unit: Unit, amount: int) -> str:
    if unit is not Unit.NANO_USD:
        return str(amount)
    return f"${amount // NANO}.{amount % NANO:09d}".rstrip("0").rstrip(".")
