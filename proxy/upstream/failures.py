"""
Every foreign status and exception as a Kind, by table. What is not in a table is transient.

What came over the wire is believed before what LiteLLM makes of it: LiteLLM maps by error text
first, so an answer that quotes "rate limit" would become one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxy.errors import UpstreamFailure
from proxy.redaction import redact
from proxy.retry import Kind
from proxy.upstream.limits import retry_after_s
from proxy.upstream.said import ProviderError, read_error

# What a status means when the body says nothing more precise. Other 4xx are the caller's, other
# 5xx are transient, anything else is a provider that is not where the file says it is.
STATUS_KINDS: Mapping[int, Kind] = {
    # Our key, not the caller's: the caller must never see these as 401 or 403.
    401: Kind.CREDENTIAL,
    402: Kind.CREDENTIAL,
    403: Kind.CREDENTIAL,
    404: Kind.MISSING,
    405: Kind.MISSING,
    408: Kind.TRANSIENT,
    409: Kind.TRANSIENT,
    410: Kind.MISSING,
    429: Kind.RATE_LIMITED,
    501: Kind.MISSING,
    503: Kind.TRANSIENT,
    529: Kind.OVERLOADED,
}

# A provider's own code or type, which says more than its status. Sources: OpenAI's error codes
# guide, Anthropic's errors page, Azure OpenAI's content filtering page, Google's API errors.
CODE_KINDS: Mapping[str, Kind] = {
    "context_length_exceeded": Kind.OVERSIZED,
    "string_above_max_length": Kind.OVERSIZED,
    "content_policy_violation": Kind.CONTENT,
    "content_filter": Kind.CONTENT,
    "responsibleaipolicyviolation": Kind.CONTENT,
    "thread_not_found": Kind.FORGOTTEN,
    # Another account may have made it; this one is none the worse for not knowing.
    "previous_response_not_found": Kind.DIALECT,
    "invalid_encrypted_content": Kind.DIALECT,
    "insufficient_quota": Kind.EXHAUSTED,
    "billing_not_active": Kind.EXHAUSTED,
    "billing_hard_limit_reached": Kind.EXHAUSTED,
    "billing_error": Kind.EXHAUSTED,
    "invalid_api_key": Kind.CREDENTIAL,
    "api_key_invalid": Kind.CREDENTIAL,
    "authentication_error": Kind.CREDENTIAL,
    "permission_error": Kind.CREDENTIAL,
    "model_not_found": Kind.MISSING,
    "deploymentnotfound": Kind.MISSING,
    "not_found_error": Kind.MISSING,
    "rate_limit_error": Kind.RATE_LIMITED,
    "rate_limit_exceeded": Kind.RATE_LIMITED,
    # Google's, also of a limit per minute, in words that elsewhere mean an empty account.
    "resource_exhausted": Kind.RATE_LIMITED,
    "overloaded_error": Kind.OVERLOADED,
    "server_is_overloaded": Kind.OVERLOADED,
    "api_error": Kind.TRANSIENT,
    "server_error": Kind.TRANSIENT,
    "timeout_error": Kind.TRANSIENT,
}

# Providers that have no code for it say it in prose; only read on a 400, 403, 413 or 429, where
# code and type say nothing, and outside of quotes: what stands in those may be the caller's words.
# What rests a key must stand at the very beginning: nobody but the provider writes that.
PROSE_KINDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (
        re.compile(
            r"^(?:your credit balance is too low|you(?: have|'ve)? exceeded your current quota"
            r"|please go to plans & billing)\b"
        ),
        Kind.EXHAUSTED,
    ),
    (
        re.compile(
            r"maximum context length|context window|prompt is too long"
            r"|input token count .* exceeds|input is too long"
        ),
        Kind.OVERSIZED,
    ),
    (re.compile(r"content management policy|content policy|usage policies"), Kind.CONTENT),
    (re.compile(r"^api key not valid\b"), Kind.CREDENTIAL),
)
PROSE_STATUSES = frozenset({400, 403, 413, 429})
# OpenAI and vLLM of what they do not keep; it means what `previous_response_not_found` does.
UNKEPT = re.compile(r"^(?:previous )?(?:response|conversation|item|prompt) with id ", re.IGNORECASE)
UNKEPT_STATUSES = frozenset({400, 404})
# What providers write as code or type of a refusal that they have no word for.
VAGUE = frozenset(
    {
        "bad_request", "badrequest", "badrequesterror", "error", "failed_precondition",
        "invalid_argument", "invalid_request", "invalid_request_error", "validationexception",
    }
)  # fmt: skip
# An apostrophe inside a word (`model's`) opens nothing.
_QUOTED = re.compile(r"""(?<!\w)'.*?'(?!\w)|".*?"|`.*?`""", re.DOTALL)

# LiteLLM's exceptions where nothing came over a wire of ours. A class that is not here is looked
# up by its bases, nearest first. A contract test walks `litellm.exceptions`.
EXCEPTION_KINDS: Mapping[str, Kind] = {
    "ContextWindowExceededError": Kind.OVERSIZED,
    "ContentPolicyViolationError": Kind.CONTENT,
    "PaymentRequiredError": Kind.EXHAUSTED,
    "UnsupportedParamsError": Kind.DIALECT,
    "LiteLLMUnknownProvider": Kind.MISSING,
    "ImageFetchError": Kind.CALLER,
    "VectorStoreSearchError": Kind.CALLER,
    "RejectedRequestError": Kind.CALLER,
    "InvalidRequestError": Kind.CALLER,
    "JSONSchemaValidationError": Kind.TRANSIENT,
    "GuardrailRaisedException": Kind.CONTENT,
    "BlockedPiiEntityError": Kind.CONTENT,
    "ModifyResponseException": Kind.CONTENT,
    "SensitiveDataRouteException": Kind.CONTENT,
    "BudgetExceededError": Kind.EXHAUSTED,
    "ModelNotMappedError": Kind.MISSING,
    "AuthenticationError": Kind.CREDENTIAL,
    "PermissionDeniedError": Kind.CREDENTIAL,
    "NotFoundError": Kind.MISSING,
    "BadRequestError": Kind.CALLER,
    "UnprocessableEntityError": Kind.CALLER,
    "RateLimitError": Kind.RATE_LIMITED,
    "Timeout": Kind.SILENT,
    "APITimeoutError": Kind.SILENT,
    "APIConnectionError": Kind.UNREACHABLE,
    "MidStreamFallbackError": Kind.TRANSIENT,
    "ServiceUnavailableError": Kind.TRANSIENT,
    "BadGatewayError": Kind.TRANSIENT,
    "InternalServerError": Kind.TRANSIENT,
    "MockException": Kind.TRANSIENT,
    "APIResponseValidationError": Kind.TRANSIENT,
    "APIError": Kind.TRANSIENT,
    "OpenAIError": Kind.TRANSIENT,
}

# What LiteLLM stumbles over in a body that does not have the form it expects.
STUMBLES = (AttributeError, LookupError, TypeError, ValueError)


def kind_of(status: int, error: ProviderError) -> Kind:
    """Return what an answer of `status` with this error means to the ring."""
    base = STATUS_KINDS.get(status)
    if base is None:
        base = _kind_of_range(status)
    said = _kind_said(status, error)
    if base in (Kind.TRANSIENT, Kind.OVERLOADED):
        # A 5xx is about the provider whatever it writes into it, except that it is overloaded.
        return said if said is Kind.OVERLOADED else base
    if said in (None, Kind.TRANSIENT, Kind.OVERLOADED):
        # Words such as `api_error` stand beside any status, which is then the more precise.
        return base
    if base is Kind.MISSING and said not in (Kind.EXHAUSTED, Kind.DIALECT, Kind.FORGOTTEN):
        return base
    return said


def _kind_of_range(status: int) -> Kind:
    if 400 <= status < 500:
        return Kind.CALLER
    return Kind.TRANSIENT if status >= 500 else Kind.MISSING


def _kind_said(status: int, error: ProviderError) -> Kind | None:
    if status in UNKEPT_STATUSES and UNKEPT.match(error.message or ""):
        return Kind.DIALECT
    words = [word.lower() for word in (error.code, error.type) if word is not None]
    for word in words:
        if (kind := CODE_KINDS.get(word)) is not None:
            return kind
    if status in PROSE_STATUSES and error.message and VAGUE.issuperset(words):
        prose = _QUOTED.sub("", error.message.lower()).strip()
        return next((kind for pattern, kind in PROSE_KINDS if pattern.search(prose)), None)
    return None


def of_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now_s: float,
    secrets: tuple[str, ...] = (),
) -> UpstreamFailure:
    """Return the failure that an answer other than 200 stands for. `now_s` is wall time."""
    error = read_error(body)
    return UpstreamFailure(
        f"the provider answered {status}",
        kind=kind_of(status, error),
        provider_status=status,
        **_words(error, secrets),
        retry_after_s=retry_after_s(headers, now_s=now_s),
    )


def of_event(event: Mapping[str, Any], *, secrets: tuple[str, ...] = ()) -> UpstreamFailure:
    """Return the failure that an error event inside a stream of status 200 stands for."""
    error = read_error(event)
    said = _kind_said(400, error)
    return UpstreamFailure(
        "the provider reported an error inside its answer",
        kind=said or Kind.TRANSIENT,
        **_words(error, secrets),
    )


def _words(error: ProviderError, secrets: tuple[str, ...]) -> dict[str, Any]:
    """Return what may be passed on of a provider's words: all of them, redacted."""
    return {
        name: redact(word, secrets=secrets) if word else None
        for name, word in (
            ("provider_message", error.message),
            ("provider_code", error.code),
            ("provider_type", error.type),
            ("param", error.param),
        )
    }


def of_exception(exc: BaseException, *, secrets: tuple[str, ...] = ()) -> UpstreamFailure:
    """Return the failure that an exception of LiteLLM's stands for; its text stays here."""
    kind = next(
        (
            EXCEPTION_KINDS[cls.__name__]
            for cls in type(exc).__mro__
            if cls.__name__ in EXCEPTION_KINDS
        ),
        Kind.TRANSIENT,
    )
    original = getattr(exc, "original_exception", None)
    if isinstance(original, Exception) and kind is Kind.TRANSIENT:
        return of_exception(original, secrets=secrets)
    message = getattr(exc, "message", None)
    words = {Kind.CALLER, Kind.DIALECT, Kind.CONTENT, Kind.OVERSIZED}
    return UpstreamFailure(
        f"LiteLLM raised {type(exc).__name__}",
        kind=kind,
        provider_status=None,
        provider_message=(
            redact(_PREFIX.sub("", message), secrets=secrets)
            if isinstance(message, str) and message and kind in words
            else None
        ),
        retry_after_s=None,
    )


_PREFIX = re.compile(r"^(?:litellm\.\w+: )+(?:\w+Exception - )?|\nReceived Messages=(?s:.*)")


def of_writing(exc: BaseException, *, secrets: tuple[str, ...] = ()) -> UpstreamFailure:
    """Return the failure of a request that LiteLLM raised `exc` at before anything was sent."""
    failure = of_exception(exc, secrets=secrets)
    cause: BaseException = exc
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    stumbled = isinstance(cause, STUMBLES) or type(cause) is Exception
    if stumbled and failure.kind in (Kind.UNREACHABLE, Kind.TRANSIENT):
        # No fault of the target's: a caller's nonsense must not open its breaker.
        return UpstreamFailure(
            "the request cannot be translated for this provider", kind=Kind.DIALECT
        )
    return failure


def of_surface() -> UpstreamFailure:
    """Return the failure of a request for which LiteLLM has no way to ask this provider.

    The provider is where it is, and answers what else it is asked.
    """
    said = "the provider of this model has no such endpoint"
    return UpstreamFailure(said, kind=Kind.DIALECT, provider_message=said)
