"""
Which surfaces' answers are kept, and which requests are more than a question. Pure.

A request that changes something at its provider, or whose answer hangs on what is kept there, is
asked each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from proxy.caching import Caching, applies
from proxy.types import Call, Json, Surface


@dataclass(frozen=True, slots=True)
class Row:
    """
    One surface whose answers are kept.

    `apart`: a stream is another answer than a whole one, for neither can be made of the other.
    `each`: every input of a request has an answer of its own.
    """

    call_types: frozenset[str]  # LiteLLM's words for it, in `supported_call_types`
    apart: bool = False
    each: bool = False


# Not among them: images and speech, for whoever asks again wants another one, and addresses of
# images expire; recordings, which no key holds; and counts of tokens, which are free and seldom
# asked for twice.
TABLE: Mapping[Surface, Row] = {
    Surface.CHAT: Row(frozenset({"completion", "acompletion"})),
    Surface.COMPLETIONS: Row(frozenset({"text_completion", "atext_completion"})),
    Surface.EMBEDDINGS: Row(frozenset({"embedding", "aembedding"}), each=True),
    # A stream tells the pieces of each item, which no whole response says.
    Surface.RESPONSES: Row(frozenset({"responses", "aresponses"}), apart=True),
    Surface.MESSAGES: Row(frozenset({"anthropic_messages", "aanthropic_messages"})),
    Surface.MODERATIONS: Row(frozenset({"moderation", "amoderation"})),  # not in LiteLLM
    Surface.RERANK: Row(frozenset({"rerank", "arerank"})),
}
# LiteLLM's words for what is not kept here.
NEVER = frozenset({"transcription", "atranscription"})
NO_ROW = Row(frozenset())
CALL_TYPES = frozenset[str]().union(*(row.call_types for row in TABLE.values()))

# Fields that name something at the provider which a request goes on with, or which it changes.
_ELSEWHERE = ("previous_response_id", "conversation", "container", "mcp_servers")
# Tools that the provider itself runs, on servers and in containers that outlast the answer.
_ACTING = ("mcp", "code_interpreter", "code_execution", "shell")
_TELLING = frozenset({*_ELSEWHERE, "store", "background", "tools", "prompt"})


def surfaces_of(call_types: frozenset[str]) -> frozenset[str]:
    """Return the surfaces that LiteLLM's words speak of."""
    return frozenset(surface for surface, row in TABLE.items() if row.call_types & call_types)


def row_of(surface: Surface) -> Row:
    return TABLE.get(surface, NO_ROW)


def may_be_kept(call: Call, caching: Caching) -> bool:
    """Say whether the cache has anything to do with a request."""
    return (
        call.surface in TABLE
        and applies(caching, call.wishes.cache, call.surface)
        and (_TELLING.isdisjoint(call.body) or not is_stateful(call.body))
    )


def is_stateful(body: Json) -> bool:
    """Say whether a request changes something at its provider, or goes on with what is there."""
    if any(body.get(name) for name in _ELSEWHERE):
        return True
    if body.get("store") is True or body.get("background") is True:
        return True
    prompt, tools = body.get("prompt"), body.get("tools")
    if isinstance(prompt, Mapping) and not prompt.get("version"):
        return True  # of a prompt that is edited at the provider, whichever is in force
    return isinstance(tools, list) and any(_acts(tool) for tool in tools)


def _acts(tool: object) -> bool:
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    return isinstance(kind, str) and kind.startswith(_ACTING)
