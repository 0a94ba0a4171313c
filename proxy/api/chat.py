"""POST /v1/chat/completions."""

from __future__ import annotations

from proxy.api.exchange import ModelEndpoint
from proxy.api.parse import parse_chat
from proxy.types import Surface

chat_completions = ModelEndpoint(Surface.CHAT, parse_chat)
