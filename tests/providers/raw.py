"""A client that sees the bytes as they come, and says how they ended."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any

import httpx

from tests.providers.server import FakeProvider

PLAIN: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of one reply."""

    status: int | None
    headers: httpx.Headers
    body: bytes
    failure: Exception | None

    @property
    def events(self) -> list[str]:
        """The `data:` lines of the body, each without its name."""
        lines = self.body.decode(errors="replace").splitlines()
        return [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]

    @property
    def text(self) -> str:
        """The content of all the events that can be read."""
        said = []
        for event in self.events:
            if event != "[DONE]" and "choices" in (chunk := _loads(event)):
                said += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
        return "".join(said)


def post(
    provider: FakeProvider,
    body: dict[str, Any] | None = None,
    *,
    path: str = "/chat/completions",
    timeout_s: float = 10.0,
    **more: Any,
) -> Seen:
    """One request without any SDK; a failure is returned, not raised."""
    status, headers, got = None, httpx.Headers(), bytearray()
    try:
        with (
            httpx.Client(trust_env=False, timeout=timeout_s) as client,
            client.stream(
                "POST", provider.base_url + path, json=(body or PLAIN) | more
            ) as response,
        ):
            status, headers = response.status_code, response.headers
            for data in response.iter_bytes():
                got += data
    except httpx.HTTPError as exc:
        return Seen(status, headers, bytes(got), exc)
    return Seen(status, headers, bytes(got), None)


def stream(provider: FakeProvider, **more: Any) -> Seen:
    """One streamed request without any SDK."""
    return post(provider, stream=True, **more)


class Caller:
    """A socket with a request in flight, which can leave at any moment and in any way."""

    def __init__(self, provider: FakeProvider, **more: Any) -> None:
        body = json.dumps(PLAIN | more).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: fake\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.socket = socket.create_connection(("127.0.0.1", provider.port), timeout=10.0)
        self.socket.sendall(head.encode() + body)

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to the mark, at least."""
        got = b""
        while mark not in got:
            data = self.socket.recv(65536)
            assert data, f"the provider hung up after {got!r}"
            got += data
        return got

    def leave(self) -> None:
        """The socket is closed."""
        self.socket.close()


def _loads(event: str) -> dict[str, Any]:
    try:
        loaded = json.loads(event)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
