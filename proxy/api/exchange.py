"""
One model request at the edge, from its first byte to its last, whatever its surface.

The order of the lines is the order of the path: headers, key, a place, body, call, reply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias, assert_never

from starlette.types import Receive, Scope, Send

from proxy.api.body import check_headers, read_body
from proxy.api.caller import caller_by
from proxy.api.conversation import ClientLeft, Conversation
from proxy.api.deps import State, state_of
from proxy.api.form import Forming, as_it_came
from proxy.api.headers import RequestHeaders, request_id_of, tags_of
from proxy.api.multipart import read_form
from proxy.api.outbound import WHOLE, Outbound
from proxy.api.parse import Incoming
from proxy.api.render import error_of
from proxy.api.wishes import with_headers
from proxy.errors import status_of
from proxy.replies import ChunkStream, Completion, Reply
from proxy.snapshot import Snapshot
from proxy.types import Call, Caller, Surface, Tally
from proxy.waiting import watched

Parse: TypeAlias = Callable[[Incoming], Call]

UNKNOWN = "unknown"  # the model of a request until the gateway has found its ring
PULSE_AFTER_S = 0.25  # a stream that is over by then needs nobody to keep it alive
_MB = 1024 * 1024


@dataclass(slots=True)
class Exchange:
    """What is at hand while one request is served."""

    state: State
    headers: RequestHeaders
    query: bytes
    receive: Receive
    outbound: Outbound
    tally: Tally
    model: str | None = None  # of the address, where that names one
    kept: ExitStack | None = None  # what holds an upload, as long as anybody may be sending it
    asked: bool = False  # the gateway has it: from here on the request is the gateway's to count


class ModelEndpoint:
    """The ASGI application behind the routes of one surface."""

    def __init__(
        self, surface: Surface, parse: Parse, forming: Forming = as_it_came, *, form: bool = False
    ) -> None:
        self._surface = surface
        self._parse = parse
        self._forming = forming
        self._form = form  # it is asked with one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._open(scope, receive, send)
        try:
            try:
                await self._serve(exchange, scope)
            finally:  # before an error is told: whoever hears of it finds nothing left
                if exchange.kept is not None:
                    exchange.kept.close()
        except ClientLeft:
            _note(exchange, "cancelled")
        except Exception as exc:
            await _fail(exchange, exc)

    def _open(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        state, headers = state_of(scope), dict(scope["headers"])
        clock = state["clock"]
        tally = Tally(request_id_of(headers), self._surface, UNKNOWN, False, clock.now())
        form = self._forming(tally, clock)
        in_one = WHOLE in scope.get("extensions", ())
        outbound = Outbound(send, tally, clock=clock, log=state["log"], form=form, in_one=in_one)
        named = scope.get("path_params", {}).get("model")
        return Exchange(state, headers, scope["query_string"], receive, outbound, tally, named)

    async def _serve(self, exchange: Exchange, scope: Scope) -> None:
        state, tally = exchange.state, exchange.tally
        snapshot = state["snapshots"].current
        limits = snapshot.policy.limits
        check_headers(scope["headers"], int(limits.header_kb * 1024))
        caller = caller_by(exchange.headers, snapshot, wall_s=state["clock"].wall())
        tally.caller = caller.name
        async with state["drain"].enter(limits.in_flight) as conversation:
            call = await self._read(exchange, snapshot)
            tally.stream = call.stream
            exchange.asked = True
            every_s = snapshot.policy.keepalive
            # An answer that is at hand is given before anybody can leave, or miss a sign of life.
            await watched(
                _answer(exchange, call, caller, snapshot),
                lambda: _watch(exchange, conversation, scope, every_s),
            )

    async def _read(self, exchange: Exchange, snapshot: Snapshot) -> Call:
        call = self._parse(await self._incoming(exchange, snapshot))
        tags = tags_of(exchange.headers)
        wishes = with_headers(call.wishes, exchange.headers)
        if tags or wishes is not call.wishes:
            call = replace(call, tags=tags, wishes=wishes)
        return call

    async def _incoming(self, exchange: Exchange, snapshot: Snapshot) -> Incoming:
        """Return the request once all of it is here."""
        limits, receive, headers = snapshot.policy.limits, exchange.receive, exchange.headers
        raw, form = b"", None
        if self._form:
            exchange.kept = ExitStack()
            form = await read_form(receive, headers, int(limits.upload_mb * _MB), exchange.kept)
        else:
            raw = await read_body(receive, headers, int(limits.body_mb * _MB))
        # A slow upload is nobody's latency but the client's.
        exchange.tally.started_s = exchange.state["clock"].now()
        return Incoming(raw, snapshot, exchange.query, headers, form, exchange.model)


async def _answer(exchange: Exchange, call: Call, caller: Caller, snapshot: Snapshot) -> None:
    gateway = exchange.state["gateway"]
    reply = await gateway.serve(call, caller, snapshot, exchange.tally)
    await _send(exchange.outbound, reply)


def _watch(exchange: Exchange, conversation: Conversation, scope: Scope, every_s: float) -> None:
    """Have the client's departure heeded from now on, and a silent stream kept alive."""
    outbound = exchange.outbound
    conversation.heed(scope, exchange.receive, lambda: outbound.finished)
    if exchange.tally.stream and outbound.pulses:
        pulse = partial(outbound.pulse, every_s)
        conversation.beside(pulse, after_s=min(every_s, PULSE_AFTER_S))


def _send(outbound: Outbound, reply: Reply) -> Awaitable[None]:
    match reply:
        case Completion():
            return outbound.completion(reply)
        case ChunkStream():
            return outbound.stream(reply)
        case _:
            assert_never(reply)


async def _fail(exchange: Exchange, exc: Exception) -> None:
    """Tell the caller. Named where it is caught, an error would be garbage in a circle."""
    error = error_of(exc, exchange.state["log"])
    if not exchange.asked:
        exchange.state["metrics"].rejected(error.code or error.type)
    _note(exchange, error.code or error.type, status_of(error, exchange.tally.surface))
    await exchange.outbound.fail(error)


def _note(exchange: Exchange, outcome: str, status: int = 200) -> None:
    """Write the line of a request that the gateway has never seen; it writes those it has."""
    if exchange.asked:
        return
    exchange.tally.outcome, exchange.tally.status = outcome, status
    exchange.state["log"].request(exchange.tally)
