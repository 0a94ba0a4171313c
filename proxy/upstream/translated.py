"""
The translated lane of chats: a provider with a wire format of its own, asked without LiteLLM.

What its tongue cannot write exactly as LiteLLM would goes by LiteLLM, request by request.
"""

from __future__ import annotations

import contextlib

from proxy.clock import Clock
from proxy.replies import Reply
from proxy.types import Call, Target
from proxy.upstream import Upstream
from proxy.upstream.address import address_of
from proxy.upstream.exchange import Exchange, Written, dumped
from proxy.upstream.fields import drop, drops, filled
from proxy.upstream.secrets import secrets_of
from proxy.upstream.tongues import TONGUES, Tongue
from proxy.upstream.tongues.unusual import Unusual
from proxy.waiting import Waiting


class Translated:
    """Calls targets by `exchange`, and by `unified` where a request is unusual."""

    def __init__(self, exchange: Exchange, unified: Upstream, clock: Clock) -> None:
        self._exchange = exchange
        self._unified = unified
        self._clock = clock

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        tongue = TONGUES[target.provider]
        written: Written | None = None
        with contextlib.suppress(Unusual):
            written = self._write(tongue, target, call, foreign=foreign)
        if written is None:
            # Not inside of the suppression: what LiteLLM stumbles over is told by its causes.
            return await self._unified.call(target, call, foreign=foreign, waiting=waiting)
        return await self._exchange.ask(target, call, written, waiting)

    def _write(self, tongue: Tongue, target: Target, call: Call, *, foreign: bool) -> Written:
        """Return what is sent for `call`. Raises Unusual where only LiteLLM can write it."""
        body = filled(target, call)
        dropping = drops(target, foreign=foreign)
        words = tongue.words(target, body)
        dropped = tuple(
            drop(words, target, call, body, native=False, foreign=foreign, dropping=dropping)
        )
        return Written(
            dumped(tongue.write(target, body, stream=call.stream)),
            address_of(target, tongue.surface),
            tongue.headers,
            tongue.reading(target, created_s=int(self._clock.wall())),
            dropped,
            secrets_of(target),
        )
