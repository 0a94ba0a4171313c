"""The lanes together: each target is asked by the one that the configuration chose for it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack
from typing import Any
from urllib.request import getproxies_environment

from proxy.clock import Clock
from proxy.estimate import PromptRates
from proxy.replies import Reply
from proxy.types import Call, Lane, Surface, Target
from proxy.upstream import Upstream
from proxy.upstream.bridge import Bridge
from proxy.upstream.direct import Direct
from proxy.upstream.exchange import Exchange
from proxy.upstream.http import Http
from proxy.upstream.messages_as_chats import MessagesAsChats
from proxy.upstream.responding import Responding
from proxy.upstream.sdk import Sdk
from proxy.upstream.stored import Stored
from proxy.upstream.translated import Translated
from proxy.upstream.unified import Unified
from proxy.upstream.wire import Transport
from proxy.waiting import Waiting


class Lanes:
    """Asks each target by its own lane, as `Upstream` says; those of `responses` are others."""

    def __init__(
        self, lanes: Mapping[Lane, Upstream], responses: Mapping[Lane, Upstream] | None = None
    ) -> None:
        self._lanes = lanes
        self._responses = responses or {}

    def call(
        self, target: Target, call: Call, *, foreign: bool, waiting: Waiting
    ) -> Coroutine[Any, Any, Reply]:
        lanes = self._responses if call.surface is Surface.RESPONSES else self._lanes
        lane = lanes[target.lane_of(call.surface)]
        return lane.call(target, call, foreign=foreign, waiting=waiting)


class Providers:
    """Owns the connections to providers, of every lane, and LiteLLM; not importing it yet."""

    def __init__(self, clock: Clock) -> None:
        proxies = getproxies_environment()
        self.sdk = Sdk(Transport(clock, proxies=proxies))
        self._http = Http(proxies=proxies)
        self._clock = clock

    def lanes(self, limit_bytes: Callable[[], int], rates: PromptRates | None = None) -> Lanes:
        """
        Return the lanes; `limit_bytes` bounds a whole answer, decoded.

        By `rates` prompts are counted for targets that do not count them.
        """
        exchange = Exchange(self._http, self._clock, limit_bytes=limit_bytes)
        unified = Unified(self.sdk, self._clock, limit_bytes=limit_bytes)
        direct = Direct(exchange, self.sdk)
        chat: dict[Lane, Upstream] = {
            Lane.UNIFIED: unified,
            Lane.DIRECT: direct,
            Lane.TRANSLATED: Translated(exchange, unified, self._clock),
        }
        as_chat = MessagesAsChats(Lanes(chat), self.sdk, rates or PromptRates())
        bridge = Bridge(Lanes(chat), self.sdk, self._clock)
        responding = Responding(direct, bridge, self._clock)
        return Lanes(
            {**chat, Lane.AS_CHAT: as_chat}, {Lane.DIRECT: responding, Lane.AS_CHAT: bridge}
        )

    def stored(self, limit_bytes: Callable[[], int]) -> Stored:
        """Return what asks for the responses that providers keep; `limit_bytes` likewise."""
        return Stored(self._http, self._clock, limit_bytes=limit_bytes)

    def state(self, targets: Iterable[Target]) -> Mapping[str, str]:
        """
        Return `ready`, `loading` or `failed` for each lane, `idle` where nobody is on it.

        LiteLLM, when it is loaded only for what a request of another lane may hold, is waited for
        by that request and by nobody else.
        """
        used = {lane for target in targets for lane in (target.lane, target.messages)}
        waited_for = Lane.UNIFIED in used or self.sdk.state != "loading"
        return {
            **{
                lane.value: "ready" if lane in used else "idle"
                for lane in (Lane.DIRECT, Lane.TRANSLATED)
            },
            Lane.UNIFIED.value: self.sdk.state if waited_for else "idle",
        }

    async def aclose(self) -> None:
        async with AsyncExitStack() as closing:
            closing.push_async_callback(self.sdk.aclose)
            closing.push_async_callback(self._http.aclose)
