"""
LiteLLM itself: imported once, in the background, with its habits switched off, and our transport
under the HTTP clients that it makes.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from concurrent.futures import Future
from types import ModuleType

import httpx

from proxy.errors import UpstreamFailure
from proxy.heap import lasting
from proxy.retry import Kind
from proxy.upstream.wire import CurrentTransport, Transport, WireError

# LiteLLM reads these when it is imported: no price table from the internet, no stray `.env`, no
# prints, no image fetched on behalf of a request, no telemetry.
SETTINGS = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_TELEMETRY": "False",
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
}

IMPORTING = "import litellm"  # the name of the thread that does


class Sdk:
    """Owns LiteLLM's module and the transport under it, which `aclose` closes."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.error = WireError  # what LiteLLM is told a failure with
        self._loading: asyncio.Task[ModuleType] | None = None

    def start(self) -> asyncio.Task[ModuleType]:
        """Begin to import LiteLLM (2 to 3 s) in a thread, unless that has begun."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name=IMPORTING)
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
        """Return LiteLLM, waiting for its import. Raises UpstreamFailure when that failed."""
        try:
            # Shielded: a request that gives up must not take the import with it.
            return await asyncio.shield(self.start())
        except Exception as exc:
            message = f"LiteLLM cannot be imported ({type(exc).__name__})"
            raise UpstreamFailure(message, kind=Kind.UNREACHABLE) from exc

    async def _load(self) -> ModuleType:
        litellm = await asyncio.wrap_future(_imported())
        self.error = _unretried(importlib.import_module("openai").OpenAIError)
        return litellm

    async def aclose(self) -> None:
        """Close the transport; an import that is under way goes on, and nobody waits for it."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])
        await self.transport.aclose()


def _imported() -> Future[ModuleType]:
    """Return what will be LiteLLM, in a thread of its own: a loop's end waits for its executor."""
    future: Future[ModuleType] = Future()
    future.set_running_or_notify_cancel()  # from here on it cannot be cancelled, only left

    def run() -> None:
        try:
            with lasting():
                litellm = _import()
            future.set_result(litellm)
        except BaseException as exc:
            future.set_exception(exc)

    threading.Thread(target=run, name=IMPORTING).start()
    return future


def _import() -> ModuleType:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    litellm = importlib.import_module("litellm")
    litellm.suppress_debug_info = True  # type: ignore[attr-defined]  # else it prints on every failure
    # Lets LiteLLM add what a provider insists on, such as a first user message for Anthropic.
    litellm.modify_params = True  # type: ignore[attr-defined]
    litellm.callbacks = []  # type: ignore[attr-defined]
    _connect(litellm)
    return litellm


def _connect(litellm: ModuleType) -> None:
    """Put our transport under both kinds of HTTP client that LiteLLM asks providers with."""
    current = CurrentTransport()
    # Of OpenAI's SDK. Never redirected: a provider's key goes to the place that the file names.
    vars(litellm)["aclient_session"] = httpx.AsyncClient(transport=current, follow_redirects=False)
    module = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    # Of LiteLLM's own. Most providers take one as an argument, but not all: this reaches all.
    module.AsyncHTTPHandler.create_async_transport = staticmethod(lambda *_, **__: current)


def _unretried(base: type[Exception]) -> type[WireError]:
    """Return the error that OpenAI's SDK raises as it is: any other it waits and tries again."""
    return type("UnretriedError", (WireError, base), {})
