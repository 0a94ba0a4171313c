"""Anthropic's error envelopes, as its API sends them, and the steps that play them."""

from __future__ import annotations

from tests.providers.steps import Fails, Json

# status: (type, message)
_USUAL: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "messages: at least one message is required"),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "Your API key does not have permission to use the resource."),
    404: ("not_found_error", "model: {model}"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: (
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 50 requests per minute.",
    ),
    500: ("api_error", "Internal server error"),
    529: ("overloaded_error", "Overloaded"),
}


def error(kind: str, message: str) -> Json:
    """Anthropic's envelope."""
    body = {"type": kind, "message": message}
    return {"type": "error", "error": body, "request_id": "req_fake000000000000000001"}


def envelope(status: int, *, model: str | None) -> Json:
    """What Anthropic usually says with that status."""
    kind, message = _USUAL.get(status, _USUAL[500 if status >= 500 else 400])
    return error(kind, message.replace("{model}", model or "the-model"))


def rate_limited(retry_after: str | None = None) -> Fails:
    """429, with the header as it is given when it is given."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Fails(429, headers=headers)


def overloaded() -> Fails:
    """529: all of Anthropic is busy."""
    return Fails(529)


def credit_balance_too_low() -> Fails:
    """400 that is about money."""
    message = (
        "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing "
        "to upgrade or purchase credits."
    )
    return Fails(400, error("invalid_request_error", message))


def prompt_too_long() -> Fails:
    """400 for a prompt that is too long for the model."""
    message = "prompt is too long: 210241 tokens > 200000 maximum"
    return Fails(400, error("invalid_request_error", message))


def content_filtered() -> Fails:
    """400 of Anthropic's content filter."""
    message = "Output blocked by content filtering policy"
    return Fails(400, error("invalid_request_error", message))


def invalid_api_key() -> Fails:
    """401: our key is wrong."""
    return Fails(401)


def model_not_found() -> Fails:
    """404: the provider does not know the model."""
    return Fails(404)


def thread_not_found() -> Fails:
    """404: it does not keep, or no longer, what the message goes on from."""
    body = error("not_found_error", "No usable Thread state was found.")
    body["error"]["details"] = {"error_code": "thread_not_found"}
    return Fails(404, body)
