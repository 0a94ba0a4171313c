"""
What a request needs of a model, and why a target that is known to lack it is not asked. Pure.

Only what is certain counts: a capability that LiteLLM's table or the file denies, and a text that
no tokenizer could fit into the window. Of what nobody knows, the provider has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from proxy.errors import ContextTooLong, RequestInvalid
from proxy.estimate import FREE, Size
from proxy.routing import Plan
from proxy.types import Call, Json, Surface, Target

# LiteLLM's names for what a model is known to have or to lack, and what of a request needs it.
CAPABILITIES: Mapping[str, str] = {
    "supports_vision": "images",
    "supports_audio_input": "sound",
    "supports_function_calling": "tools",
    "supports_response_schema": "a schema for its answer",
}
# A long run of spaces is a token of some tokenizers, but no text is made of those alone.
MOST_BYTES_PER_TOKEN = 16
# Their requests are one prompt, which must fit into a window as a whole: the many texts of an
# embedding need not, and neither do the documents of a reranking.
ONE_PROMPT = frozenset({Surface.CHAT, Surface.MESSAGES, Surface.RESPONSES})
TOO_LONG = "the request is longer than its window"


def needs_of(call: Call, size: Size) -> frozenset[str]:
    """Return LiteLLM's names of the capabilities that a chat, or a message, needs."""
    if call.surface not in (Surface.CHAT, Surface.MESSAGES):
        return frozenset()
    needs = {
        "supports_vision": size.images > 0,
        "supports_audio_input": size.audio_bytes > 0,
        "supports_function_calling": size.tools,
        "supports_response_schema": _has_schema(call.body),
    }
    return frozenset(name for name, needed in needs.items() if needed)


def _has_schema(body: Json) -> bool:
    form = body.get("response_format")
    if isinstance(config := body.get("output_config"), Mapping):  # Anthropic's
        form = form or config.get("format")
    return isinstance(form, Mapping) and form.get("type") == "json_schema"


def unable(call: Call, size: Size) -> Callable[[Target], str | None]:
    """Return what says why a target could not answer the request; None where it may."""
    needs = needs_of(call, size)
    least_tokens = size.text_bytes // MOST_BYTES_PER_TOKEN if call.surface in ONE_PROMPT else 0

    def why(target: Target) -> str | None:
        if call.surface in FREE:
            return None  # nothing is answered: that it is too long is what is asked
        facts = target.facts
        if lacking := needs & facts.cannot:
            return f"known not to take {' and '.join(sorted(CAPABILITIES[n] for n in lacking))}"
        window = facts.max_input_tokens
        return TOO_LONG if window is not None and least_tokens > window else None

    return why


def nobody_able(model: str, plan: Plan) -> RequestInvalid | None:
    """Return what the caller is told when every configured target was left out as unable."""
    reasons = {step.reason for step in plan.left_out if step.unable}
    if not reasons:
        return None
    if reasons == {TOO_LONG}:
        return ContextTooLong(f"the request is longer than any window of {model!r}")
    return RequestInvalid(f"no target of {model!r} can answer: {'; '.join(sorted(reasons))}")
