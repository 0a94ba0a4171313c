"""OpenAI's error envelopes, as its API sends them, and the steps that play them."""

from __future__ import annotations

from tests.providers.steps import Fails, Json

# status: (message, type, code)
_USUAL: dict[int, tuple[str, str | None, str | None]] = {
    400: ("We could not parse the JSON body of your request.", "invalid_request_error", None),
    401: (
        "Incorrect API key provided: sk-fake*****key. You can find your API key at "
        "https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    403: ("Country, region, or territory not supported", "request_forbidden", None),
    404: (
        "The model `{model}` does not exist or you do not have access to it.",
        "invalid_request_error",
        "model_not_found",
    ),
    429: (
        "Rate limit reached for {model} in organization org-fake on requests per min (RPM): "
        "Limit 3, Used 3, Requested 1. Please try again in 20s.",
        "requests",
        "rate_limit_exceeded",
    ),
    500: (
        "The server had an error while processing your request. Sorry about that!",
        "server_error",
        None,
    ),
    503: (
        "The engine is currently overloaded, please try again later",
        "server_error",
        "server_is_overloaded",
    ),
}


def error(
    message: str, type: str | None, code: str | None = None, param: str | None = None
) -> Json:
    """OpenAI's envelope with its four fields."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def envelope(status: int, *, model: str | None) -> Json:
    """What OpenAI usually says with that status."""
    fallback = _USUAL[500] if status >= 500 else _USUAL[400]
    message, kind, code = _USUAL.get(status, fallback)
    return error(message.replace("{model}", model or "the-model"), kind, code)


def rate_limited(retry_after: str | None = None) -> Fails:
    """429, with the header as it is given (seconds, a date, or junk) when it is given."""
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return Fails(429, headers=headers)


def insufficient_quota() -> Fails:
    """429 that no waiting helps against."""
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more "
        "information on this error, read the docs: "
        "https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return Fails(429, error(message, "insufficient_quota", "insufficient_quota"))


def context_length_exceeded() -> Fails:
    """400 for a prompt that is too long for the model."""
    message = (
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "10240 tokens. Please reduce the length of the messages."
    )
    kind, code = "invalid_request_error", "context_length_exceeded"
    return Fails(400, error(message, kind, code, "messages"))


def content_policy_violation() -> Fails:
    """400 of OpenAI's own safety system."""
    message = (
        "Your request was rejected as a result of our safety system. Your prompt may contain "
        "text that is not allowed by our safety system."
    )
    return Fails(400, error(message, "invalid_request_error", "content_policy_violation"))


def azure_content_filter() -> Fails:
    """400 of Azure's content management policy."""
    body = error(
        "The response was filtered due to the prompt triggering Azure OpenAI's content "
        "management policy. Please modify your prompt and retry.",
        None,
        "content_filter",
        "prompt",
    )
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}
    body["error"] |= {"status": 400, "innererror": inner}
    return Fails(400, body)


def invalid_api_key() -> Fails:
    """401: our key is wrong."""
    return Fails(401)


def model_not_found() -> Fails:
    """404: the provider does not know the model."""
    return Fails(404)


def unsupported_parameter(name: str = "max_tokens") -> Fails:
    """400: the model does not take that parameter."""
    message = (
        f"Unsupported parameter: '{name}' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    kind, code = "invalid_request_error", "unsupported_parameter"
    return Fails(400, error(message, kind, code, name))
