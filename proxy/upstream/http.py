"""
The socket of the direct lane: one request at a time, watched and bounded.

Nothing is retried, redirected, unpacked without a bound or kept as a cookie here, and no variable
of the environment but a proxy's has a say. What fails is told as an UpstreamFailure.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Protocol, Self
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from yarl import URL

from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Trust
from proxy.upstream.connection import Body
from proxy.upstream.pool import Pool
from proxy.upstream.unpack import ENCODINGS, Unpacker
from proxy.upstream.wire import NO_PROXIES
from proxy.waiting import Waiting, within

if TYPE_CHECKING:
    from proxy.upstream.proxied import Proxied


class Arriving(Protocol):
    """An answer whose head is there; `read` returns b"" at the end and raises OSError."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    async def read(self) -> bytes: ...

    def close(self) -> None: ...


class Http:
    """
    Owns the connections to providers, which `aclose` closes.

    `proxies` by scheme or `all`, and `no` for hosts without, as the environment has them.
    """

    def __init__(self, *, proxies: Mapping[str, str] = NO_PROXIES) -> None:
        self._proxies = proxies
        self._pool = Pool()
        self._proxied: Proxied | None = None

    async def post(
        self,
        url: URL,
        body: bytes | Body,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        waiting: Waiting,
        method: str = "POST",
        trust: Trust | None = None,
    ) -> Answer:
        """Return what was answered, of any status, its body not yet read; else UpstreamFailure."""
        try:
            proxy = self._proxy(url) if self._proxies else None
            arriving: Arriving
            if proxy is not None or url.raw_user is not None:
                arriving = await self._by_client().post(
                    url,
                    body,
                    headers,
                    proxy=proxy,
                    connect_s=connect_s,
                    waiting=waiting,
                    method=method,
                    trust=trust,
                )
            else:
                arriving = await self._pool.post(
                    url,
                    body,
                    headers,
                    connect_s=connect_s,
                    waiting=waiting,
                    method=method,
                    trust=trust,
                )
        except TimeoutError as exc:
            raise UpstreamFailure("no connection in time", kind=Kind.UNREACHABLE) from exc
        except (OSError, ValueError) as exc:
            raise _failure(exc) from exc
        return Answer(arriving)

    def _proxy(self, url: URL) -> str | None:
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy and proxy_bypass_environment(url.host or "", dict(self._proxies)):
            return None
        return proxy

    def _by_client(self) -> Proxied:
        if self._proxied is None:
            # Where there is no proxy it would only make the start slower.
            from proxy.upstream.proxied import Proxied  # noqa: PLC0415

            self._proxied = Proxied()
        return self._proxied

    async def aclose(self) -> None:
        self._pool.close()
        if self._proxied is not None:
            await self._proxied.aclose()


def _failure(exc: OSError | ValueError) -> UpstreamFailure:
    """Return why there is no answer, in the words of whoever has to mend it."""
    match exc:
        case ssl.SSLCertVerificationError():  # which is a ValueError too
            said = f"its certificate is not trusted: {exc.verify_message}"
        case ssl.SSLError():
            said = "it does not speak TLS as we do"
        case socket.gaierror():
            said = "its name is not known to DNS"
        case ConnectionRefusedError():
            said = "it refuses connections"
        case OSError():
            said = "no connection, or reset before an answer"
        case _:
            # A fault of the file, and none of the target's.
            return UpstreamFailure(str(exc), kind=Kind.DIALECT)
    return UpstreamFailure(said, kind=Kind.UNREACHABLE)


class Answer:
    """A provider's answer. Iterating reads its body: decoded, a piece at a time."""

    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving
        self.status = arriving.status
        self.headers = arriving.headers

    async def whole(self, limit_bytes: int) -> bytes:
        """Return the whole body. Raises UpstreamFailure where it breaks or is over the limit."""
        pieces: list[bytes] = []
        held_bytes = 0
        async for piece in self:
            pieces.append(piece)
            held_bytes += len(piece)
            if held_bytes > limit_bytes:
                raise UpstreamFailure("the answer is larger than allowed", kind=Kind.TRANSIENT)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        encoding = self.headers.get("content-encoding", "identity").lower() or "identity"
        if encoding == "identity":
            return _Reads(self._arriving)
        return self._decoded(encoding)

    async def _decoded(self, encoding: str) -> AsyncIterator[bytes]:
        if encoding not in ENCODINGS:
            raise UpstreamFailure("the answer's encoding was not asked for", kind=Kind.TRANSIENT)
        unpacker = Unpacker()
        try:
            async for raw in _Reads(self._arriving):
                for piece in unpacker.feed(raw):
                    yield piece
            for piece in unpacker.end():
                yield piece
        except zlib.error as exc:
            raise UpstreamFailure(
                "the answer's compression is broken", kind=Kind.TRANSIENT
            ) from exc

    async def drain(self, limit_s: float) -> None:
        """Read what is left, if it comes within `limit_s`, so that the connection stays usable."""
        with contextlib.suppress(TimeoutError, UpstreamFailure):
            await within(limit_s, self._to_its_end())

    async def _to_its_end(self) -> None:
        async for _piece in _Reads(self._arriving):
            pass

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it is used again."""
        self._arriving.close()


class _Reads:
    """What each read of the socket brings."""

    def __init__(self, arriving: Arriving) -> None:
        self._arriving = arriving

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = await self._arriving.read()
        except OSError as exc:
            raise UpstreamFailure(
                "the connection broke inside the answer", kind=Kind.TRANSIENT, tokens_spent=True
            ) from exc
        if not piece:
            raise StopAsyncIteration
        return piece
