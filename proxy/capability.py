"""
What a request needs of a model, and why a target that is known to lack it is not asked. Pure.

Only what is certain counts: a capability that LiteLLM's table or the file denies, and a text that
no tokenizer could fit into the window. Of what nobody knows, the provider has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from proxy.errors import ContextTooLong, RequestInvalid
from proxy.estimate import Size, plain_bytes
from proxy.routing import Plan
from proxy.types import Call, Group, Json, Surface, Target

Why: TypeAlias = Callable[[Target], str | None]


class Capability(NamedTuple):
    """Something that not every model can do: what it is called, and the field that asks for it."""

    words: str
    param: str


# By LiteLLM's names for what a model is known to have or to lack.
CAPABILITIES: Mapping[str, Capability] = {
    "supports_vision": Capability("images", "messages"),
    "supports_audio_input": Capability("sound", "messages"),
    "supports_audio_output": Capability("a request to speak", "modalities"),
    "supports_function_calling": Capability("tools", "tools"),
    "supports_response_schema": Capability("a schema for its answer", "response_format"),
}
# Their requests are one prompt, which must fit into the window as a whole: an embedding's many
# texts need not, and neither do the documents of a reranking. Whoever has the tokens of a message
# counted asks whether it is too long.
ONE_PROMPT = frozenset({Surface.CHAT, Surface.MESSAGES, Surface.RESPONSES})
# A long run of spaces is a token of some tokenizers; they are not counted.
MOST_BYTES_PER_TOKEN = 16
TOO_LONG = "the request is longer than its window"
NOTHING: frozenset[str] = frozenset()
FORMS = frozenset({"modalities", "output_config", "response_format", "text"})  # of an answer
FUNCTIONS = frozenset({"function", "custom"})  # Anthropic's need no type


def needs_of(call: Call, size: Size) -> frozenset[str]:
    """Return LiteLLM's names of the capabilities that a request needs."""
    if call.surface not in ONE_PROMPT:
        return NOTHING
    body = call.body
    if size.is_text and not size.tools and not (body.keys() & FORMS):
        return NOTHING
    needs = {
        "supports_vision": size.images > 0,
        "supports_audio_input": size.audio_bytes > 0,
        "supports_audio_output": _speaks(body),
        "supports_function_calling": size.tools and _has_functions(body),
        "supports_response_schema": _has_schema(body),
    }
    return frozenset(name for name, needed in needs.items() if needed)


def _speaks(body: Json) -> bool:
    modalities = body.get("modalities")
    return isinstance(modalities, list) and "audio" in modalities


def _has_functions(body: Json) -> bool:
    """Say whether the model itself must call tools: a search, say, is often the provider's."""
    tools = body.get("tools")
    if not isinstance(tools, list):
        return bool(body.get("functions"))
    kinds = (each.get("type", "custom") for each in tools if isinstance(each, Mapping))
    return any(kind in FUNCTIONS for kind in kinds)


def _has_schema(body: Json) -> bool:
    form = body.get("response_format")
    for name in ("text", "output_config"):  # of OpenAI's Responses, and of Anthropic's Messages
        if form is None and isinstance(inner := body.get(name), Mapping):
            form = inner.get("format")
    return isinstance(form, Mapping) and form.get("type") == "json_schema"


def unable(call: Call, size: Size) -> Why:
    """Return what says why a target could not answer the request; None where it may."""
    if call.surface not in ONE_PROMPT:
        return lacking(NOTHING, lambda window_tokens: False)

    least_tokens: int | None = None

    def exceeds(window_tokens: int) -> bool:
        nonlocal least_tokens
        if size.text_bytes <= MOST_BYTES_PER_TOKEN * window_tokens:
            return False
        # Measured only where the body is so long that it may matter, and once.
        if least_tokens is None:
            least_tokens = plain_bytes(call.body) // MOST_BYTES_PER_TOKEN
        return least_tokens > window_tokens

    return lacking(needs_of(call, size), exceeds)


def lacking(needs: frozenset[str], exceeds: Callable[[int], bool]) -> Why:
    """Return what says why a target does not fit these needs, or a length that exceeds windows."""

    def why(target: Target) -> str | None:
        facts = target.facts
        if lacks := needs & facts.cannot:
            return f"known not to take {' and '.join(_words(lacks))}"
        window = facts.max_input_tokens
        return TOO_LONG if window is not None and exceeds(window) else None

    return why


def _words(names: frozenset[str]) -> list[str]:
    return sorted(CAPABILITIES[name].words for name in names)


def is_outgrown(group: Group, plan: Plan) -> bool:
    """Say whether the request is too long for the group, so that none of it is in the plan."""
    own = frozenset(group.targets)
    if any(step.target in own for step in plan.steps):
        return False
    return any(step.reason == TOO_LONG and step.target in own for step in plan.left_out)


def nobody_able(call: Call, size: Size, plan: Plan) -> RequestInvalid | None:
    """Return what the caller is told when every configured target was left out as unable."""
    left_out = [step for step in plan.left_out if step.unable]
    if not left_out:
        return None
    reasons = {step.reason for step in left_out}
    if reasons == {TOO_LONG}:
        message = f"the request is longer than any window of {call.model!r}"
        return ContextTooLong(message, param="input" if "input" in call.body else "messages")
    lacks = needs_of(call, size).intersection(*(step.target.facts.cannot for step in left_out))
    return RequestInvalid(
        f"no target of {call.model!r} can answer: {'; '.join(sorted(reasons))}",
        param=CAPABILITIES[min(lacks)].param if lacks else None,
    )
