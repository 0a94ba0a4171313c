"""POST /v1/chat/completions."""

from __future__ import annotations

from proxy.api.exchange import ModelEndpoint
from proxy.api.parse import chat_of
from proxy.types import Surface

chat_completions = ModelEndpoint(Surface.CHAT, chat_of)
