"""`mobius check --live`: each target's key, address and time to first token, by one short call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing

from proxy.clock import Clock, SystemClock
from proxy.config import Config
from proxy.errors import UpstreamFailure
from proxy.replies import ChunkStream
from proxy.retry import Kind
from proxy.types import Call, Target
from proxy.upstream import Upstream
from proxy.upstream.lanes import Providers
from proxy.waiting import Waiting

AT_ONCE = 8
LIMIT_BYTES = 1024 * 1024
# How one token is asked for, by turns: reasoning models have another name for the limit, and some
# refuse so small a one by any name. Whichever is understood, nobody reads on after the first.
ONE_TOKEN: tuple[Mapping[str, int], ...] = ({"max_tokens": 1}, {"max_completion_tokens": 1}, {})
NOT_UNDERSTOOD = frozenset({Kind.CALLER, Kind.DIALECT})

# What a person can do about each kind of failure.
ADVICE = {
    Kind.CREDENTIAL: "the key was refused",
    Kind.EXHAUSTED: "the account has no credit or quota left",
    Kind.MISSING: "the provider does not know this model or address",
    Kind.RATE_LIMITED: "rate limited now; the key works",
    Kind.UNREACHABLE: "no connection; check api_base, DNS and TLS",
    Kind.SILENT: "no first token in time",
    Kind.CALLER: "the provider refused the request",
    Kind.OVERLOADED: "the provider is overloaded",
}


async def ask_all(config: Config) -> int:
    """Ask every target for one token and print how it answered; 1 when one did not."""
    clock = SystemClock()
    async with AsyncExitStack() as opened:
        os.environ.update(config.environment)
        providers = Providers(clock)
        opened.push_async_callback(providers.aclose)
        try:
            await providers.sdk.ready()
        except UpstreamFailure as failure:
            print(f"\nlive:\n  fail  {failure}")
            return 1
        upstream = providers.lanes(lambda: LIMIT_BYTES)
        gate = asyncio.Semaphore(AT_ONCE)
        print("\nlive:")
        asked = (_ask(target, upstream, clock, gate) for target in config.snapshot.targets())
        lines = await asyncio.gather(*asked)
    for _, line in lines:
        print(f"  {line}")
    return 0 if all(ok for ok, _ in lines) else 1


async def _ask(
    target: Target, upstream: Upstream, clock: Clock, gate: asyncio.Semaphore
) -> tuple[bool, str]:
    if target.missing is not None:
        # Unconfigured is a choice, not a fault: the shipped file works with no key at all.
        return True, f"-     {target.label}  unconfigured: {target.missing} is not set"
    if "*" in target.model:
        return True, f"-     {target.label}  a wildcard: it stands for no model that could be asked"
    async with gate:
        try:
            took_s = await _first_token_s(target, upstream, clock)
        except UpstreamFailure as failure:
            said = f": {failure.provider_message}" if failure.provider_message else ""
            word = ADVICE.get(failure.kind, "failed")
            status = failure.provider_status or failure.kind.value
            return False, f"fail  {target.label}  {word} ({status}){said}"
    return True, f"ok    {target.label}  first token after {took_s * 1000:.0f} ms"


async def _first_token_s(target: Target, upstream: Upstream, clock: Clock) -> float:
    """Return the seconds from the call that was understood to its first token."""
    body = {"model": target.model, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    *turns, last = (Call(target.group, True, {**body, **one}) for one in ONE_TOKEN)
    for call in turns:
        try:
            return await _answered_s(target, call, upstream, clock)
        except UpstreamFailure as failure:
            if failure.kind not in NOT_UNDERSTOOD:
                raise
    return await _answered_s(target, last, upstream, clock)


async def _answered_s(target: Target, call: Call, upstream: Upstream, clock: Clock) -> float:
    start_s = clock.now()
    reply = await upstream.call(target, call, foreign=True, waiting=Waiting(clock.now))
    took_s = clock.now() - start_s
    if isinstance(reply, ChunkStream):
        async with aclosing(reply):
            pass
    return took_s
