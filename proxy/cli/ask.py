"""What a command asks a running server: one GET."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 5.0
REFUSED = (401, 403)


class NoServer(Exception):
    """The server did not answer, or not as asked; the message says what to do."""


def ask(
    url: str,
    path: str,
    *,
    key: str | None,
    query: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Return the JSON object at `path` of the server at `url`. Raises NoServer."""
    _, body = _get(url, path, key, query, timeout_s)
    try:
        value = json.loads(body)
    except ValueError as error:
        raise NoServer(f"what answers at {url} is not Mobius") from error
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        raise NoServer(f"{url}: {value['error'].get('message')}")
    return value if isinstance(value, dict) else {"value": value}


def ask_text(
    url: str,
    path: str,
    *,
    key: str | None,
    query: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """Return what is at `path` of the server at `url`, as it is. Raises NoServer."""
    status, body = _get(url, path, key, query, timeout_s)
    if status != 200:
        raise NoServer(f"{url}: {_message(body)}")
    return body


def _get(
    url: str, path: str, key: str | None, query: Mapping[str, str] | None, timeout_s: float
) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = url.rstrip("/") + quote(path) + (f"?{urlencode(query)}" if query else "")
    if not address.startswith(("http://", "https://")):
        raise NoServer(f"--url {url}: must begin with http:// or https://")
    request = Request(address, headers=headers)  # noqa: S310 - checked above
    try:
        # Our own server is never asked through somebody's proxy.
        with build_opener(ProxyHandler({})).open(request, timeout=timeout_s) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        body = error.read()
        if error.code in REFUSED:
            raise NoServer(f"{url}: {_message(body)}; give --key or MOBIUS_MASTER_KEY") from error
        return error.code, body
    except OSError as error:
        raise NoServer(
            f"no server answers at {url}: {_reason(error)}; is `mobius serve` running?"
        ) from error


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"]).rstrip(".")
    except (ValueError, KeyError, TypeError):
        return "it did not answer as Mobius does"


def _reason(error: OSError) -> str:
    """Return what the system said, without urllib's wrapper around it."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, OSError):
        return cause.strerror or str(cause)
    return str(cause)
