"""
The direct lane: for a provider whose wire format is the caller's own, OpenAI's or Anthropic's.

The body goes out as it came, with `model` and what the file says replaced; the answer's bytes come
back untouched. LiteLLM is asked only for what a model of another provider understands, when a
request that was written for somebody else is sent to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proxy.grammar import GRAMMARS
from proxy.replies import EVENTS, Completion, Reply, Source
from proxy.types import ANTHROPIC, HEARD, Call, Surface, Target
from proxy.upstream.address import ANTHROPIC_VERSION, VERSION, address_of
from proxy.upstream.events import chunks_of
from proxy.upstream.exchange import Exchange, Written, dumped, loaded
from proxy.upstream.fields import drop, drops, filled, take_out, words_of
from proxy.upstream.form import form_of
from proxy.upstream.history import presentable
from proxy.upstream.http import Answer
from proxy.upstream.sdk import Sdk
from proxy.upstream.secrets import secrets_of
from proxy.upstream.sounds import speech_of
from proxy.upstream.transcript import transcript_of
from proxy.waiting import Waiting

# Surfaces whose streams report a usage only when they are asked to.
OPTIONED = frozenset({Surface.CHAT, Surface.COMPLETIONS})


class Direct:
    """Calls targets by `exchange`."""

    def __init__(self, exchange: Exchange, sdk: Sdk) -> None:
        self._exchange = exchange
        self._sdk = sdk

    async def call(self, target: Target, call: Call, *, foreign: bool, waiting: Waiting) -> Reply:
        """Call `target` once, as `Upstream.call` says."""
        written = await self._write(target, call, foreign=foreign)
        return await self._exchange.ask(target, call, written, waiting)

    async def _write(self, target: Target, call: Call, *, foreign: bool) -> Written:
        body = filled(target, call)
        for path in target.params.get("additional_drop_params") or ():
            take_out(path, body)
        dropped: tuple[str, ...] = ()
        if call.surface is Surface.CHAT and drops(target, foreign=foreign):
            words = words_of(await self._sdk.ready(), target, native=True)
            dropped = tuple(
                drop(words, target, call, body, native=True, foreign=foreign, dropping=True)
            )
        options = body.get("stream_options")
        if (
            call.stream
            and call.surface in OPTIONED
            and (options is None or isinstance(options, dict))
        ):
            # The usage is a fact to settle with; a chunk that nobody asked for is dropped again.
            body["stream_options"] = {**(options or {}), "include_usage": True}
        if call.surface in ANTHROPIC:
            body["messages"] = presentable(body["messages"])
        body["model"] = target.model
        body |= target.params.get("extra_body") or {}
        return Written(
            dumped(body) if call.upload is None else form_of(body, call.upload),
            address_of(target, call.surface),
            _said(call),
            AsItCame(call),
            dropped,
            secrets_of(target),
        )


@dataclass(frozen=True, slots=True)
class AsItCame:
    """An answer that is the caller's as the provider wrote it."""

    call: Call

    def streams(self, answer: Answer) -> bool:
        # Not every model that hears has a stream, although one was asked for.
        return self.call.surface not in HEARD or _type_of(answer).startswith(EVENTS)

    def source(self, answer: Answer) -> tuple[Source, str]:
        surface = self.call.surface
        if surface is Surface.SPEECH:
            return speech_of(self.call, _type_of(answer), answer, answer.drain)
        return chunks_of(answer, answer.drain, named=GRAMMARS[surface].named), EVENTS

    def whole(
        self, raw: bytes, answer: Answer, *, secrets: tuple[str, ...], **facts: Any
    ) -> Completion:
        surface = self.call.surface
        if surface in HEARD:
            return transcript_of(self.call, raw, _type_of(answer), secrets=secrets, **facts)
        return Completion(raw, loaded(raw, GRAMMARS[surface], secrets), **facts)


def _type_of(answer: Answer) -> str:
    return answer.headers.get("content-type", "")


def _said(call: Call) -> Mapping[str, str]:
    """Return what of the caller's headers the provider is to get, with what it must get."""
    return {VERSION: ANTHROPIC_VERSION, **call.headers} if call.surface in ANTHROPIC else {}
