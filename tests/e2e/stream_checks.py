"""What a client saw of one stream, to the byte, and whether that is what the contract says."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
from openai.types.chat import ChatCompletionChunk

Json = dict[str, Any]
ERROR_FIELDS = {"message", "type", "param", "code"}
DONE = "[DONE]"


def target(model: str, base: str, **params: Any) -> Json:
    """One entry of `model_list`, under a name of its own: `openai/x` stands under `openai-x`."""
    name = params.pop("name", model.replace("/", "-"))
    base = base.removesuffix("/v1") if model.startswith("anthropic/") else base
    return {
        "model_name": name,
        "litellm_params": {"model": model, "api_base": base, "api_key": "sk-of-a-fake", **params},
    }


def said(count: int) -> str:
    """The text of the first `count` numbered tokens."""
    return "".join(f"t{number} " for number in range(count))


@dataclass
class Overheard:
    """One stream as the official SDK understood it, and the bytes under it."""

    chunks: list[ChatCompletionChunk] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int | None = None
    error: Exception | None = None
    by_sdk: bool = True

    @property
    def text(self) -> str:
        """The content of all events of the first choice."""
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        return "".join(c["delta"].get("content") or "" for c in choices if c["index"] == 0)

    @property
    def finishes(self) -> list[str]:
        """Every finish reason, in order."""
        choices = [choice for event in self.events for choice in event.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def understood(self) -> str:
        """The content of the first choice as the SDK understood it."""
        choices = [choice for chunk in self.chunks for choice in chunk.choices]
        return "".join(c.delta.content or "" for c in choices if c.index == 0)

    @property
    def trail(self) -> str:
        """Who was asked, and what became of it."""
        return self.headers.get("x-mobius-attempts", "")

    @property
    def frames(self) -> list[str]:
        """The body's frames, comments included; the last one is empty when all are whole."""
        return self.raw.decode().split("\n\n")

    @property
    def payloads(self) -> list[str]:
        """The data of each event; AssertionError when a frame is neither event nor comment."""
        *frames, rest = self.frames
        assert rest == "", f"the stream ends inside a frame: {rest[:200]!r}"
        assert all(frame.startswith(("data: ", ":")) and "\n" not in frame for frame in frames)
        return [frame.removeprefix("data: ") for frame in frames if frame.startswith("data: ")]

    @property
    def events(self) -> list[Json]:
        """The JSON of every whole event so far."""
        frames = [frame for frame in self.frames[:-1] if frame.startswith("data: {")]
        return [json.loads(frame.removeprefix("data: ")) for frame in frames]


class Listening(httpx.AsyncBaseTransport):
    """A transport that keeps the bytes of every answer and lets them pass."""

    def __init__(self) -> None:
        self.heard: dict[str, Overheard] = {}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        self._inner = httpx.AsyncHTTPTransport(limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        heard = self.heard[request.headers["x-request-id"]]
        heard.status, heard.headers = response.status_code, response.headers
        kept = _Kept(response.stream, heard.raw)  # type: ignore[arg-type]
        return httpx.Response(
            response.status_code,
            headers=response.headers,
            stream=kept,
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Kept(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, kept: bytearray) -> None:
        self._stream = stream
        self._kept = kept

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            self._kept += data
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


class Listener:
    """The official asynchronous SDK, overheard; or, without it, who is overheard.

    The SDK takes three times as long for a chunk as Mobius does: a crowd goes without it. Closed
    by `async with`.
    """

    def __init__(self, url: str, api_key: str = "sk-test") -> None:
        self._transport = Listening()
        self._http = httpx.AsyncClient(transport=self._transport, timeout=60.0)
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=api_key, max_retries=0, http_client=self._http
        )

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self._client.close()

    def heard(self, request_id: str) -> Overheard:
        """What was heard of that request so far."""
        return self._transport.heard.setdefault(request_id, Overheard())

    async def stream(self, model: str, request_id: str | None = None, **more: Any) -> Overheard:
        """One stream, to its end; what the SDK raised is kept, not raised."""
        request_id = request_id or model
        heard = self.heard(request_id)
        try:
            stream = await self._client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": request_id}],
                stream=True,
                extra_headers={"x-request-id": request_id},
                **more,
            )
            async with stream:
                async for chunk in stream:
                    heard.chunks.append(chunk)
        except openai.APIError as exc:
            heard.error = exc
        return heard

    async def overhear(self, model: str) -> Overheard:
        """The same without the SDK."""
        heard = self.heard(model)
        heard.by_sdk = False
        messages = [{"role": "user", "content": model}]
        await self._http.post(
            f"{self._client.base_url}chat/completions",
            json={"model": model, "messages": messages, "stream": True},
            headers={"x-request-id": model},
        )
        return heard


class Visitor:
    """A socket with one request on it, which reads as it likes and leaves when it likes."""

    def __init__(
        self, port: int, model: str, *, receive_buffer_bytes: int | None = None, **more: Any
    ) -> None:
        content = more.pop("content", "hi")
        key = more.pop("key", None)
        body = {"model": model, "messages": [{"role": "user", "content": content}], **more}
        self._socket = socket.socket()
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._socket.settimeout(30.0)
        self._socket.connect(("127.0.0.1", port))
        self.port = self._socket.getsockname()[1]
        headers = () if key is None else (f"authorization: Bearer {key}",)
        self._socket.sendall(request_bytes(body, *headers))

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *reason: object) -> None:
        self.leave()

    def read(self, size: int) -> bytes:
        """What has come, at most so many bytes; empty at the end."""
        return self._socket.recv(size)

    def read_until(self, mark: bytes) -> bytes:
        """Everything up to the mark, at least."""
        got = bytearray()
        read = 0  # what stands before it was searched, and may be long
        while got.find(mark, max(0, read - len(mark))) < 0:
            read = len(got)
            data = self._socket.recv(65536)
            assert data, f"it ended with {bytes(got[-300:])!r}"
            got += data
        return bytes(got)

    def read_to_end(self) -> bytes:
        """Everything up to the end of the connection, whether it was closed or reset."""
        got = bytearray()
        with contextlib.suppress(ConnectionError):
            while data := self._socket.recv(65536):
                got += data
        return bytes(got)

    def half_close(self) -> None:
        """Nothing more is sent; what comes could still be read."""
        self._socket.shutdown(socket.SHUT_WR)

    def leave(self, *, reset: bool = False) -> None:
        """The socket is closed, with FIN or with RST."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


def request_bytes(body: Json, *headers: str) -> bytes:
    """A chat request as it goes over the wire."""
    data = json.dumps(body).encode()
    lines = (
        "POST /v1/chat/completions HTTP/1.1",
        "host: mobius",
        "content-type: application/json",
        f"content-length: {len(data)}",
        *headers,
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def check_whole(heard: Overheard, tokens: int) -> None:
    """All the tokens, one finish, `[DONE]` last, and no error anywhere."""
    _same(heard.error, None)
    _same(heard.status, 200)
    _same(heard.text, said(tokens))
    _same(heard.understood, said(tokens) if heard.by_sdk else "")
    _same(heard.finishes, ["stop"])
    *before, last = heard.payloads
    _same((last, DONE in before), (DONE, False))
    _same([payload for payload in before if "error" in json.loads(payload)], [])


def check_cut(heard: Overheard, tokens: int) -> None:
    """Exactly the first tokens, then one error event with four fields, and nothing after it."""
    _same(heard.status, 200)
    _same(heard.text, said(tokens))
    _same(heard.understood, said(tokens) if heard.by_sdk else "")
    _same(heard.finishes, [])
    *before, last = heard.payloads
    _same([p for p in before if p == DONE or "error" in json.loads(p)], [])
    check_envelope(json.loads(last))
    _same(isinstance(heard.error, openai.APIError), heard.by_sdk)


def check_envelope(body: Json) -> Json:
    """OpenAI's envelope and nothing beside it; the error in it."""
    _same(set(body), {"error"})
    error: Json = body["error"]
    _same(set(error), ERROR_FIELDS)
    _same(bool(error["message"]), True)
    return error


def _same(found: object, wanted: object) -> None:
    # pytest explains the assertions of a test module only.
    assert found == wanted, f"{found!r} is not {wanted!r}"


def failing(cases: Iterable[tuple[str, Overheard, int]], check: Any) -> list[str]:
    """The names of the cases that do not stand the check, with the reason of each."""
    reasons = []
    for name, heard, tokens in cases:
        try:
            check(heard, tokens)
        except AssertionError as exc:
            reasons.append(f"{name}: {exc}"[:300])
    return reasons
