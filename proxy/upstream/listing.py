"""
A provider's list of its models: a request that costs nothing, and shows that it is there and takes
our key.

Who has one: OpenAI and whoever speaks its format, and Anthropic. Others are not asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import httpx
import orjson

from proxy.clock import Clock
from proxy.errors import UpstreamFailure
from proxy.retry import Kind
from proxy.types import Target
from proxy.upstream.address import HOME
from proxy.upstream.arguments import headers_of
from proxy.upstream.sdk import Sdk
from proxy.upstream.secrets import HEADERS, secrets_of
from proxy.upstream.wire import WIRE, Wire, WireError
from proxy.waiting import Waiting

LIMIT_BYTES = 8 * 1024 * 1024
ANTHROPIC_BASE = "https://api.anthropic.com"
ANTHROPIC_VERSION = "2023-06-01"
LIKE_OPENAI = frozenset({"openai", "mistral"})  # beside those that LiteLLM has a table of
# What a target may be that answers a chat. Of many nothing is known, and they are taken to.
CHATS = frozenset({None, "chat", "responses"})


class Listing:
    """Asks for the lists, over the transport under LiteLLM."""

    def __init__(self, sdk: Sdk, clock: Clock) -> None:
        self._sdk = sdk
        self._clock = clock

    async def ask(self, target: Target) -> bool:
        """
        Return whether the provider has shown its list; it has none, or not for us, when False.

        Raises UpstreamFailure when it cannot be reached, is late, fails or says 429.
        """
        litellm = await self._sdk.ready()
        asked = _request(litellm, target)
        if asked is None:
            return False
        wire = Wire(
            connect_s=target.timeouts.connect_s,
            limit_bytes=LIMIT_BYTES,
            stream=False,
            waiting=Waiting(self._clock.now),
            transport=self._sdk.transport,
            trust=target.trust,
            fixed=headers_of(target),
            secrets=secrets_of(target),
        )
        try:
            async with asyncio.timeout(target.timeouts.first_token_s):
                return await self._shown(asked, wire)
        except TimeoutError as exc:
            raise UpstreamFailure("no list of models in time", kind=Kind.SILENT) from exc

    async def converses(self, target: Target) -> bool:
        """Say whether the target answers chats, as far as is known."""
        litellm = await self._sdk.ready()
        names = (f"{target.provider}/{target.model}", target.model)
        table: Mapping[str, Any] = next(
            (litellm.model_cost[n] for n in names if n in litellm.model_cost), {}
        )
        return target.info.get("mode", table.get("mode")) in CHATS

    async def _shown(self, asked: httpx.Request, wire: Wire) -> bool:
        token = WIRE.set(wire)
        try:
            response = await self._sdk.transport.handle_async_request(asked)
            return _is_list(await response.aread())
        except WireError as exc:
            failure = wire.failure
            if failure is None or not _tells(failure):
                return False
            raise failure from exc
        finally:
            WIRE.reset(token)
            await wire.aclose()


def _request(litellm: ModuleType, target: Target) -> httpx.Request | None:
    place = _place(litellm, target)
    if place is None:
        return None
    url, headers = place
    for kind in HEADERS:
        headers |= {name: str(value) for name, value in (target.params.get(kind) or {}).items()}
    try:
        return httpx.Request("GET", url, headers=headers)
    except (httpx.InvalidURL, ValueError):
        return None


def _place(litellm: ModuleType, target: Target) -> tuple[str, dict[str, str]] | None:
    """Return where the list is, and what opens it."""
    params, provider = target.params, target.provider
    key, base = _text(params, "api_key"), _text(params, "api_base")
    if provider == "anthropic":
        base = (base or ANTHROPIC_BASE).rstrip("/").removesuffix("/messages").removesuffix("/v1")
        headers = {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION}
        return (f"{base}/v1/models", headers) if key else None
    if provider not in LIKE_OPENAI and provider not in litellm.openai_compatible_providers:
        return None
    if not base and provider == "openai":
        base = HOME
    elif not base:
        base = _base(litellm, target, key)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return (f"{base.rstrip('/')}/models", headers) if base else None


def _base(litellm: ModuleType, target: Target, key: str) -> str:
    """Return where LiteLLM would ask a provider of its table; nothing where it does not know."""
    try:
        found = litellm.get_llm_provider(
            model=target.model, custom_llm_provider=target.provider, api_key=key or None
        )
    except litellm.exceptions.BadRequestError:
        return ""
    return found[3] or ""


def _text(params: Mapping[str, Any], name: str) -> str:
    value = params.get(name)
    return value if isinstance(value, str) else ""


def _is_list(raw: bytes) -> bool:
    """Say whether this is a list of models: some addresses answer anything with a page."""
    try:
        body = orjson.loads(raw)
    except ValueError:
        return False
    return isinstance(body, list) or (isinstance(body, dict) and isinstance(body.get("data"), list))


def _tells(failure: UpstreamFailure) -> bool:
    """
    Say whether the failure is one of the provider itself.

    A key may be good for chats and not for lists, and a server may have no such address: what is
    refused, or is no list, proves nothing.
    """
    if failure.kind in (Kind.UNREACHABLE, Kind.RATE_LIMITED):
        return True
    return (failure.provider_status or 0) >= 500 and failure.kind is not Kind.MISSING
