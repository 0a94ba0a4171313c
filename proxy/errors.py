"""
Everything this service can answer with other than success.

* ProxyError ................. 500 internal_error
  x RequestInvalid ........... 400 invalid_request_error
    + ContextTooLong ......... 400 context_length_exceeded    no window is as large
  x BodyTooLarge ............. 413 request_too_large
  x BodyTooSlow .............. 408 request_too_slow
  x UploadUnkept ............. 503 upload_not_kept           no room for a file of the request
  x HeadersTooLarge .......... 431 request_headers_too_large
  x UrlUnknown ............... 404 unknown_url
  x MethodRefused ............ 405 method_not_supported
  x KeyRejected .............. 401 invalid_api_key
  x AdminOnly ................ 403 admin_key_required
  x OriginRefused ............ 403 origin_not_allowed
  x ModelForbidden ........... 403 model_not_allowed
  x ModelUnknown ............. 404 model_not_found
  x ResponseUnknown .......... 404 response_not_found         nobody made it for this key
    + PreviousUnknown ........ 400 previous_response_not_found
    + ConversationUnknown .... 404 conversation_not_found     or an item or a prompt that is kept
  x LimitReached ............. 429 rate_limit_exceeded        our own rpm, tpm, rpd, tpd, parallel
    + BudgetSpent ............ 429 insufficient_quota         our own budget_usd
  x TooManyTokens ............ 400 max_tokens_exceeded        our own max_tokens_per_request
  x PriceUnknown ............. 403 price_unknown              a budget, and a model without a price
  x QuotaUnavailable ......... 503 quota_unavailable          nobody knows what is left
  x UsageUnavailable ......... 503 usage_unavailable          nobody knows what was used
  x WorkersSilent ............ 503 workers_unavailable        the other workers cannot be asked
  x Overloaded ............... 503 server_is_overloaded       our own load limit
  x ShuttingDown ............. 503 server_shutting_down       the grace is over
  x UpstreamFailure .......... 502 upstream_error             one attempt failed
  x Refused .................. as the provider's status       its 4xx, redacted
  x RateLimited .............. 429 rate_limit_exceeded        every target is rate limited
  x ProviderAuthFailed ....... 502 provider_auth_error        our keys were refused
  x NoTargetAvailable ........ 503 no_target_available        every target is down
  x DeadlineExceeded ......... 504 deadline_exceeded

The status, OpenAI's `type` and `code` are class attributes, which an instance may narrow;
`api/render.py` is the only reader.
"""

from __future__ import annotations

from proxy.leeway import Leeway
from proxy.retry import Kind
from proxy.types import Surface


class ProxyError(Exception):
    """
    Base of the tree. The message goes to the caller: no key and no prompt in it, ever.

    `retry_after_s` becomes `Retry-After`; `should_retry=False` tells the SDKs that their own
    retry would only multiply ours.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"  # the classes' own are a closed set: a metric label

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry


class RequestInvalid(ProxyError):
    status = 400
    type = "invalid_request_error"
    code: str | None = None


class ContextTooLong(RequestInvalid):
    code: str | None = "context_length_exceeded"


class BodyTooLarge(ProxyError):
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UploadUnkept(ProxyError):
    status = 503
    type = "server_error"
    code = "upload_not_kept"


class BodyTooSlow(ProxyError):
    status = 408
    type = "invalid_request_error"
    code = "request_too_slow"


class HeadersTooLarge(ProxyError):
    status = 431
    type = "invalid_request_error"
    code = "request_headers_too_large"


class UrlUnknown(ProxyError):
    status = 404
    type = "invalid_request_error"
    code = "unknown_url"


class MethodRefused(ProxyError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_supported"


class KeyRejected(ProxyError):
    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"


class AdminOnly(ProxyError):
    status = 403
    type = "invalid_request_error"
    code = "admin_key_required"


class OriginRefused(ProxyError):
    status = 403
    type = "invalid_request_error"
    code = "origin_not_allowed"


class ModelForbidden(ProxyError):
    status = 403
    type = "invalid_request_error"
    code = "model_not_allowed"


class ModelUnknown(ProxyError):
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class ResponseUnknown(ProxyError):
    """No target that may be asked keeps it, or it was made for somebody else, as far as is told."""

    status = 404
    type = "invalid_request_error"
    code = "response_not_found"


class PreviousUnknown(ResponseUnknown):
    status = 400  # as OpenAI says it; clients go by the code and send the conversation again
    code = "previous_response_not_found"


class ConversationUnknown(ResponseUnknown):
    code = "conversation_not_found"


class LimitReached(ProxyError):
    """The caller has used up a limit of its own; `type` says of what: requests or tokens."""

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"


class BudgetSpent(LimitReached):
    type = "insufficient_quota"
    code = "insufficient_quota"


class TooManyTokens(ProxyError):
    status = 400
    type = "invalid_request_error"
    code = "max_tokens_exceeded"


class PriceUnknown(ProxyError):
    status = 403
    type = "invalid_request_error"
    code = "price_unknown"


class QuotaUnavailable(ProxyError):
    status = 503
    type = "server_error"
    code = "quota_unavailable"


class UsageUnavailable(ProxyError):
    status = 503
    type = "server_error"
    code = "usage_unavailable"


class WorkersSilent(ProxyError):
    status = 503
    type = "server_error"
    code = "workers_unavailable"


class Overloaded(ProxyError):
    status = 503
    type = "server_error"
    code = "server_is_overloaded"


class ShuttingDown(ProxyError):
    status = 503
    type = "server_error"
    code = "server_shutting_down"


class UpstreamFailure(ProxyError):
    """
    One attempt against one target failed. `kind` is all that the ring looks at.

    `provider_status` is what came over the wire (None when nothing did); `provider_message`,
    `provider_code` and `provider_type` are the provider's own words, redacted, for the caller.
    """

    status = 502
    type = "server_error"
    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        kind: Kind,
        provider_status: int | None = None,
        provider_message: str | None = None,
        provider_code: str | None = None,
        provider_type: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        tokens_spent: bool = False,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self.kind = kind
        self.provider_status = provider_status
        self.provider_message = provider_message
        self.provider_code = provider_code
        self.provider_type = provider_type
        self.tokens_spent = tokens_spent  # the provider surely generated something
        self.leeways: tuple[Leeway, ...] = ()  # what it said is left of its limits, all the same

    def remembered(self) -> UpstreamFailure:
        """Return the same failure without its traceback, whose frames hold the whole request."""
        return UpstreamFailure(
            self.message,
            kind=self.kind,
            provider_status=self.provider_status,
            provider_message=self.provider_message,
            provider_code=self.provider_code,
            provider_type=self.provider_type,
            param=self.param,
            retry_after_s=self.retry_after_s,
            tokens_spent=self.tokens_spent,
        )


class Refused(ProxyError):
    """The provider's own 4xx about the caller's request, passed on with its status."""

    code: str | None = "refused"

    def __init__(self, failure: UpstreamFailure, *, status: int) -> None:
        super().__init__(failure.provider_message or failure.message, param=failure.param)
        self.status = status
        self.type = failure.provider_type or "invalid_request_error"
        self.code = failure.provider_code


class RateLimited(ProxyError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ProviderAuthFailed(ProxyError):
    status = 502
    type = "server_error"
    code = "provider_auth_error"


class NoTargetAvailable(ProxyError):
    status = 503
    type = "server_error"
    code = "no_target_available"


class DeadlineExceeded(ProxyError):
    status = 504
    type = "server_error"
    code = "deadline_exceeded"


# Every provider that the request could go to was asked, or rests.
EVERYBODY_FAILED = (
    *(DeadlineExceeded, NoTargetAvailable, ProviderAuthFailed, RateLimited),
    UpstreamFailure,  # a stream that broke under a request that wants a whole answer
)


def status_of(error: ProxyError, surface: Surface) -> int:
    """
    Return the status that the error is answered with.

    On `/ai/*` all providers failing is one thing, 503, whatever kept them from answering: a 429
    there is always about a limit of the caller's own.
    """
    everybody = surface is Surface.AI and isinstance(error, EVERYBODY_FAILED)
    return NoTargetAvailable.status if everybody else error.status
