"""
The wire formats that a chat is translated into without LiteLLM: a provider is a line in `TONGUES`.

A tongue writes what most chats are made of exactly as LiteLLM does, and reads the answers. Whatever
else a request holds is Unusual, and the request goes by LiteLLM: never a silent difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from proxy.types import Json, Surface, Target
from proxy.upstream.exchange import Reading
from proxy.upstream.fields import Words
from proxy.upstream.tongues.claude import Claude


class Tongue(Protocol):
    """One wire format. What raises Unusual has sent nothing."""

    @property
    def surface(self) -> Surface:
        """The surface at whose address a chat is asked."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What every request has beside what the address needs."""
        ...

    def words(self, target: Target, body: Json) -> Words:
        """Return what the target understands of such a body. Raises Unusual where nobody knows."""
        ...

    def write(self, target: Target, body: Json, *, stream: bool) -> Json:
        """Return the request that asks what a chat's body does. Raises Unusual."""
        ...

    def reading(self, target: Target, *, created_s: int) -> Reading:
        """Return how one answer is read, which is told as created at that time."""
        ...


TONGUES: Mapping[str, Tongue] = {"anthropic": Claude()}
