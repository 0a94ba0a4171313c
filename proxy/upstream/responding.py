"""
OpenAI's Responses from a target of OpenAI's format: where it has them, else by the bridge over its
chats.

Many servers speak OpenAI's format and have no `/responses`. That is found out by asking, once in a
while for each target, unless the file says so in `model_info.supported_endpoints`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import replace

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.replies import Reply
from proxy.retry import Kind
from proxy.types import Call, Target
from proxy.upstream import Upstream
from proxy.upstream.bridge import is_ours
from proxy.waiting import Waiting

AGAIN_S = 600.0  # until a target is asked again whether it has them: servers are upgraded
TARGETS = 1024  # that are remembered; names under a wildcard are endless
NO_PATH = frozenset({404, 405, 501})
# What a 404 is about that says it of something else than the address.
SOMETHING_ELSE = re.compile(r"model|deployment|\bwith id\b", re.IGNORECASE)


class Responding:
    """Asks by `direct`, and by `bridge` where a target has chats only."""

    def __init__(self, direct: Upstream, bridge: Upstream, clock: Clock) -> None:
        self._direct = direct
        self._bridge = bridge
        self._clock = clock
        self._lacking: OrderedDict[str, float] = OrderedDict()  # until when, by identity

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says; twice where the address is found missing."""
        if self._lacking.get(target.identity, 0.0) <= self._clock.now():
            try:
                asked = without_thoughts_of_others(call)
                return await self._direct.call(target, asked, foreign=foreign, waiting=waiting)
            except UpstreamFailure as failure:
                if not no_such_address(failure):
                    raise
        try:
            reply = await self._bridge.call(target, call, foreign=foreign, waiting=waiting)
        except UpstreamFailure as failure:
            if failure.kind is not Kind.MISSING:  # there is nobody at all, for now
                self._remember(target)
            raise
        self._remember(target)
        return reply

    def _remember(self, target: Target) -> None:
        if self._lacking.get(target.identity, 0.0) > self._clock.now():
            return
        self._lacking.pop(target.identity, None)
        self._lacking[target.identity] = self._clock.now() + AGAIN_S
        if len(self._lacking) > TARGETS:
            self._lacking.popitem(last=False)


def without_thoughts_of_others(call: Call) -> Call:
    """Return the call without what another provider thought in earlier turns."""
    items = call.body.get("input")
    if not isinstance(items, list) or not any(map(is_ours, items)):
        return call
    kept = [item for item in items if not is_ours(item)]
    return replace(call, body={**call.body, "input": kept})


def no_such_address(failure: UpstreamFailure) -> bool:
    """Say whether a refusal is about the address, and not about a model or an id."""
    if failure.provider_status not in NO_PATH or failure.kind is not Kind.MISSING:
        return False
    words = " ".join(filter(None, (failure.provider_message, failure.provider_code)))
    return not SOMETHING_ELSE.search(words)
