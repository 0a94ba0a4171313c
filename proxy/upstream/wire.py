"""
The socket under LiteLLM: one physical call per attempt, watched and bounded.

LiteLLM and the SDKs below it retry, follow redirects, decompress without a limit and keep a
provider's status to themselves. This transport does none of that. It writes what it saw into the
attempt's Wire, so that the attempt is judged by what the provider sent, not by what a layer in
between made of it.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

import httpcore
import httpx

from proxy import sse
from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Trust
from proxy.upstream import failures
from proxy.upstream.answer import Answer
from proxy.upstream.tls import context_of
from proxy.waiting import Waiting

ERROR_BODY_LIMIT = 64 * 1024
ERROR_BODY_WAIT_S = 5.0
# Longer than LiteLLM's 15 s, so that a quiet minute costs no handshake.
POOL = httpx.Limits(max_connections=None, max_keepalive_connections=1000, keepalive_expiry=90.0)
NO_PROXIES: Mapping[str, str] = MappingProxyType({})
EVENTS = "text/event-stream"
BODILESS = frozenset({httpx.codes.NO_CONTENT, httpx.codes.RESET_CONTENT})
# LiteLLM gets plain bytes of any length. A cookie would be kept, and sent with the next key.
UNTOLD = frozenset({"content-encoding", "content-length", "set-cookie"})


class WireError(Exception):
    """Carries an attempt out through LiteLLM; the reason stands in `Wire.failure`."""


@dataclass(slots=True)
class Wire:
    """What one attempt saw of its provider's socket."""

    connect_s: float
    limit_bytes: int  # of a whole answer, decoded; a stream has none
    stream: bool
    waiting: Waiting  # for the provider's socket
    transport: Transport | None = None
    trust: Trust | None = None  # whose certificate the provider may show
    error: type[WireError] = WireError  # what LiteLLM is told a failure with
    respelt: bool = False  # LiteLLM reads the events, so they are spelt as it reads them rightly
    kept: bool = False  # the events are ours to read: LiteLLM sees none
    mends: bool = False  # LiteLLM cannot read every usage of this provider's
    fixed: Mapping[str, str | None] = field(default_factory=dict, repr=False)  # request headers
    secrets: tuple[str, ...] = field(default=(), repr=False)
    sent: bool = False
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray, repr=False)
    answer: Answer | None = None
    mended: bool = False  # its usage is ours, and says nothing
    openai: bool = False  # its events have OpenAI's form
    finished: bool = False  # and one of them gave a finish reason
    failure: UpstreamFailure | None = None

    def fail(self, message: str, kind: Kind, **facts: object) -> WireError:
        """Note why this attempt failed, and return the exception to raise through LiteLLM."""
        # An answer that broke later is no verdict of the provider's.
        status = None if self.answered else self.status
        self.failure = UpstreamFailure(message, kind=kind, provider_status=status, **facts)  # type: ignore[arg-type]
        return self.error(message)

    @property
    def answered(self) -> bool:
        """The status says that there is an answer, and that it has a body."""
        return self.status is not None and 200 <= self.status < 300 and self.status not in BODILESS

    @property
    def cut(self) -> bool:
        """The events were OpenAI's, and none of them ended the answer, whatever LiteLLM says."""
        return self.openai and not self.finished

    @property
    def has_events(self) -> bool:
        return self.headers.get("content-type", "").startswith(EVENTS)

    @property
    def respells(self) -> bool:
        return self.respelt and self.has_events

    async def aclose(self) -> None:
        """Give the connection back, or close it; nothing where there is no answer."""
        if self.answer is not None:
            await self.answer.aclose()


# LiteLLM hands no argument of ours down to its HTTP client, but it keeps the context.
WIRE: ContextVar[Wire] = ContextVar("wire")


class CurrentTransport(httpx.AsyncBaseTransport):
    """
    Hands each request to the transport of the attempt under way, and refuses any other.

    LiteLLM keeps the clients that are built around it, and closes them when it likes: it owns
    nothing, so that two services in one process do not notice each other.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wire = WIRE.get(None)
        if wire is None or wire.transport is None:
            raise WireError("no attempt is under way")
        return await wire.transport.handle_async_request(request)


class Transport(httpx.AsyncBaseTransport):
    """An httpx transport that notes into the current Wire and sends at most once for it."""

    def __init__(self, clock: Clock, *, proxies: Mapping[str, str] = NO_PROXIES) -> None:
        """`proxies` by scheme or `all`, and `no` for hosts without, as the environment has them."""
        self._clock = clock
        self._proxies = proxies
        # By the proxy's address, None being the way without, and by who is trusted.
        self._ways: dict[tuple[str | None, Trust | None], httpx.AsyncHTTPTransport] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        wire = WIRE.get()
        if wire.sent:
            # A retry of LiteLLM's own, which would be a call that nobody counts.
            raise wire.error("this attempt has made its call")
        wire.sent = True
        request.extensions["timeout"] = {
            "connect": wire.connect_s,
            "read": None,
            "write": None,
            "pool": wire.connect_s,
        }
        # Asked for plainly: what is not compressed need not be bounded while it unfolds.
        request.headers["accept-encoding"] = "identity"
        for name, value in wire.fixed.items():
            request.headers.pop(name, None)
            if value is not None:
                request.headers[name] = value
        response = await self._send(request, wire)
        wire.status = response.status_code
        wire.headers = {name.lower(): value for name, value in response.headers.items()}
        answer = Answer(response, wire)
        if not wire.answered:
            raise await self._refused(answer, wire)
        if wire.headers.get("content-type", "").startswith("text/html"):
            await answer.aclose()
            raise wire.fail("the provider answered with a web page", Kind.TRANSIENT)
        wire.answer = answer
        headers = [
            (name, value)
            for name, value in response.headers.multi_items()
            if name.lower() not in UNTOLD
        ]
        # Some readers of LiteLLM's take nothing but a 200 for an answer.
        return httpx.Response(
            httpx.codes.OK,
            headers=headers,
            stream=httpx.ByteStream(sse.DONE_FRAME) if wire.kept else answer,
            extensions=response.extensions,
        )

    async def _send(self, request: httpx.Request, wire: Wire) -> httpx.Response:
        try:
            asking = self._way(request.url, wire.trust).handle_async_request(request)
            return await wire.waiting.through(asking)
        except httpx.ConnectTimeout as exc:
            raise wire.fail("no connection in time", Kind.UNREACHABLE) from exc
        except (httpx.TransportError, httpx.InvalidURL, OSError, ssl.SSLError) as exc:
            raise wire.fail("no connection, or reset before an answer", Kind.UNREACHABLE) from exc

    async def _refused(self, answer: Answer, wire: Wire) -> WireError:
        try:
            async with asyncio.timeout(ERROR_BODY_WAIT_S):
                async for _piece in answer:
                    if len(wire.body) >= ERROR_BODY_LIMIT:
                        break
        except (WireError, TimeoutError):
            pass  # the status alone says enough
        finally:
            await answer.aclose()
        wire.failure = failures.of_response(
            wire.status or 0,
            wire.headers,
            bytes(wire.body),
            now_s=self._clock.wall(),
            secrets=wire.secrets,
        )
        return wire.error("the provider refused")

    def _way(self, url: httpx.URL, trust: Trust | None) -> httpx.AsyncHTTPTransport:
        """Return the connections to go by: an HTTP proxy's, where one stands for `url`."""
        proxy = self._proxies.get(url.scheme) or self._proxies.get("all")
        if proxy and proxy_bypass_environment(url.host, dict(self._proxies)):
            proxy = None
        way = self._ways.get((proxy, trust))
        if way is None:
            way = self._ways[proxy, trust] = _way(proxy, trust)
        return way

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()


def _way(proxy: str | None, trust: Trust | None) -> httpx.AsyncHTTPTransport:
    way = httpx.AsyncHTTPTransport(verify=context_of(trust), limits=POOL, proxy=proxy)
    pool = way._pool  # there is no argument for the connections that it makes
    create = pool.create_connection
    vars(pool)["create_connection"] = lambda origin: _without_leaks(create(origin))
    return way


def _without_leaks(
    connection: httpcore.AsyncConnectionInterface,
) -> httpcore.AsyncConnectionInterface:
    """
    Return the connection; it will be closed when a request fails on it and leaves it in between.

    In httpcore 1.0.9 a request that is cancelled just after its connection was made leaves it new:
    neither idle nor closed, so that the pool keeps it open for ever and never uses it.
    """
    ask = connection.handle_async_request

    async def handle_async_request(request: httpcore.Request) -> httpcore.Response:
        try:
            return await ask(request)
        except httpcore.ConnectionNotAvailable:
            raise  # it is another request's
        except BaseException:
            if not (connection.is_idle() or connection.is_closed()):
                await connection.aclose()
            raise

    vars(connection)["handle_async_request"] = handle_async_request
    return connection
