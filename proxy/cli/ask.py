"""What a command asks a running server: one GET, answered in JSON."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

TIMEOUT_S = 5.0


class NoServer(Exception):
    """The server did not answer, or not as asked; the message says what to do."""


def ask(url: str, path: str, *, key: str | None) -> dict[str, Any]:
    """Return the JSON object at `path` of the server at `url`. Raises NoServer."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    address = url.rstrip("/") + quote(path)
    if not address.startswith(("http://", "https://")):
        raise NoServer(f"--url {url}: must begin with http:// or https://")
    request = Request(address, headers=headers)  # noqa: S310 - checked above
    try:
        # Our own server is never asked through somebody's proxy.
        with build_opener(ProxyHandler({})).open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read()
    except HTTPError as error:
        body = error.read()
    except (URLError, OSError) as error:
        raise NoServer(
            f"no server answers at {url} ({error}); is `mobius serve` running?"
        ) from error
    try:
        value = json.loads(body)
    except ValueError as error:
        raise NoServer(f"what answers at {url} is not Mobius") from error
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        raise NoServer(f"{url}: {value['error'].get('message')}")
    return value if isinstance(value, dict) else {"value": value}
