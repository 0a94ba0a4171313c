"""
One model request at the edge, from its first byte to its last, whatever its surface.

The order of the lines is the order of the path: headers, key, a place, body, call, reply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, assert_never

from starlette.types import Receive, Scope, Send

from proxy.api.body import check_headers, read_body
from proxy.api.caller import caller_by
from proxy.api.conversation import ClientLeft, departure
from proxy.api.deps import State, state_of
from proxy.api.headers import RequestHeaders, request_id_of
from proxy.api.render import error_of
from proxy.api.wire import Wire
from proxy.policy import LimitsPolicy
from proxy.replies import ChunkStream, Completion, Reply
from proxy.types import Call, Surface, Tally

Parse: TypeAlias = Callable[[bytes, str, int], Call]  # the body, the request's id, the depth limit

UNKNOWN = "unknown"  # the model of a request until the gateway has found its ring
_KB, _MB = 1024, 1024 * 1024


@dataclass(slots=True)
class Exchange:
    """What is at hand while one request is served."""

    state: State
    headers: RequestHeaders
    receive: Receive
    wire: Wire
    tally: Tally
    asked: bool = False  # the gateway has it: from here on the request is the gateway's to count


class ModelEndpoint:
    """The ASGI application behind the routes of one surface."""

    def __init__(self, surface: Surface, parse: Parse) -> None:
        self._surface = surface
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._open(scope, receive, send)
        try:
            await self._serve(exchange, scope)
        except ClientLeft:
            return
        except Exception as exc:
            error = error_of(exc, exchange.state["log"])
            if not exchange.asked:
                exchange.state["metrics"].rejected(error.code or error.type)
            await exchange.wire.fail(error)

    def _open(self, scope: Scope, receive: Receive, send: Send) -> Exchange:
        state, headers = state_of(scope), dict(scope["headers"])
        clock = state["clock"]
        tally = Tally(
            request_id=request_id_of(headers),
            surface=self._surface,
            model=UNKNOWN,
            stream=False,
            started_s=clock.now(),
        )
        wire = Wire(send, tally, clock=clock, log=state["log"])
        return Exchange(state, headers, receive, wire, tally)

    async def _serve(self, exchange: Exchange, scope: Scope) -> None:
        state, tally, wire = exchange.state, exchange.tally, exchange.wire
        snapshot = state["snapshots"].current
        limits = snapshot.policy.limits
        check_headers(scope["headers"], int(limits.header_kb * _KB))
        caller = caller_by(exchange.headers, snapshot, wall_s=state["clock"].wall())
        tally.caller = caller.name
        async with state["drain"].enter(limits.in_flight) as conversation:
            call = await self._read(exchange, limits)
            tally.stream = call.stream
            conversation.beside(partial(_leave, exchange))
            if call.stream:
                conversation.beside(partial(wire.pulse, snapshot.policy.keepalive))
            exchange.asked = True
            await _send(wire, await state["gateway"].serve(call, caller, snapshot, tally))

    async def _read(self, exchange: Exchange, limits: LimitsPolicy) -> Call:
        limit_bytes = int(limits.body_mb * _MB)
        raw = await read_body(exchange.receive, exchange.headers, limit_bytes)
        # A slow upload is nobody's latency but the client's.
        exchange.tally.started_s = exchange.state["clock"].now()
        return self._parse(raw, exchange.tally.request_id, limits.json_depth)


async def _send(wire: Wire, reply: Reply) -> None:
    match reply:
        case Completion():
            await wire.completion(reply)
        case ChunkStream():
            await wire.stream(reply)
        case _:
            assert_never(reply)


async def _leave(exchange: Exchange) -> None:
    """End the conversation when the client hangs up; not when it does so after the whole answer."""
    await departure(exchange.receive)
    if not exchange.wire.finished:
        raise ClientLeft
