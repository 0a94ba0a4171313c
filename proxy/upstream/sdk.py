"""
LiteLLM itself: imported once, in the background, with its habits switched off, and the HTTP
clients that it is given instead of its own.
"""

from __future__ import annotations

import asyncio
import importlib
import os
from types import ModuleType
from typing import Any

import httpx

from proxy.upstream.wire import Transport

# LiteLLM reads these when it is imported: no price table from the internet, no stray `.env`, no
# prints, no image fetched on behalf of a request, no telemetry.
SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
}


class Sdk:
    """Owns LiteLLM's module and the HTTP clients under it. `aclose` closes the clients."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        # Never redirected: a provider's key goes to the place that the file names.
        self._http = httpx.AsyncClient(transport=transport, follow_redirects=False)
        self._loading: asyncio.Task[ModuleType] | None = None
        self.handler: Any = None  # LiteLLM's own wrapper around the same transport

    def start(self) -> asyncio.Task[ModuleType]:
        """Begin to import LiteLLM (2 to 3 s) in a thread, unless that has begun."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="import litellm")
        return self._loading

    @property
    def state(self) -> str:
        """`idle`, `loading`, `ready` or `failed`: what readiness says of the lane."""
        if self._loading is None:
            return "idle"
        if not self._loading.done():
            return "loading"
        failed = self._loading.cancelled() or self._loading.exception() is not None
        return "failed" if failed else "ready"

    async def ready(self) -> ModuleType:
        """Return LiteLLM, waiting for its import when it is still under way."""
        # Shielded: a request that gives up must not take the import with it.
        return await asyncio.shield(self.start())

    async def _load(self) -> ModuleType:
        litellm = await asyncio.to_thread(_import)
        # OpenAI's and Azure's SDK clients are built around it: there is no argument for that.
        vars(litellm)["aclient_session"] = self._http
        module = importlib.import_module("litellm.llms.custom_httpx.http_handler")
        self.handler = module.AsyncHTTPHandler(transport=self._transport, follow_redirects=False)
        return litellm

    async def aclose(self) -> None:
        if self._loading is not None:
            await asyncio.wait([self._loading])
        await self._http.aclose()
        await self._transport.aclose()


def _import() -> ModuleType:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    litellm = importlib.import_module("litellm")
    litellm.suppress_debug_info = True  # type: ignore[attr-defined]  # else it prints on every failure
    # Lets LiteLLM add what a provider insists on, such as a first user message for Anthropic.
    litellm.modify_params = True  # type: ignore[attr-defined]
    litellm.callbacks = []  # type: ignore[attr-defined]
    return litellm
