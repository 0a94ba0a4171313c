"""What a provider says about a failure, in whichever of the usual forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class ProviderError:
    """What a provider says about a failure, in the four fields that OpenAI gives one."""

    message: str | None = None
    code: str | None = None
    type: str | None = None
    param: str | None = None


def read_error(body: bytes | Mapping[str, Any]) -> ProviderError:
    """Read OpenAI's, Azure's, Anthropic's or Google's error body; anything else says nothing."""
    value: Any = body
    if isinstance(body, bytes):
        try:
            value = orjson.loads(body)
        except ValueError:
            return ProviderError()
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, Mapping):
        return ProviderError()
    error = value.get("error", value)
    if isinstance(error, str):
        return ProviderError(message=error)
    return _read_fields(error) if isinstance(error, Mapping) else ProviderError()


def _read_fields(error: Mapping[str, Any]) -> ProviderError:
    inner = error.get("innererror")
    inner_code = inner.get("code") if isinstance(inner, Mapping) else None
    details = error.get("details")  # Anthropic's; Google has a list there
    detail = details.get("error_code") if isinstance(details, Mapping) else None
    # Google puts the number into `code` and the word into `status`.
    codes = (inner_code, detail, error.get("code"), error.get("status"))
    code = next((code for code in codes if _is_word(code)), None)
    return ProviderError(
        message=_text(error.get("message") or error.get("detail")),
        code=code,
        type=_text(error.get("type")),
        param=_text(error.get("param")),
    )


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value) and not value.isdigit()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
