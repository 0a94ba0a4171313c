"""What is left to LiteLLM of a chat that a tongue could write itself."""

from __future__ import annotations


class Unusual(Exception):
    """A request holds something whose translation is LiteLLM's to know; nothing has been sent."""
