"""The tokens that an answer took: as the provider counts them where that can be believed. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.types import Json, Usage

PLAIN = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})
TOKENS_LIMIT = 100_000_000  # no model has such a window: a count above it is a mistake
BYTES_PER_TOKEN = 4
NOTHING: Json = {}


def usage_of(body: Json) -> Usage | None:
    """
    Return the tokens that a body or a chunk reports, or None when it does not or they are absurd.

    A count is a whole number from 0 to TOKENS_LIMIT. Without one for the prompt and one for the
    completion there is no usage; a detail that is no count is 0, and one that is larger than what
    it is a part of, less the parts before it, is as large as that.
    """
    usage = _of(body.get("usage"))
    prompt = _count(usage.get("prompt_tokens"))
    inward = _of(usage.get("prompt_tokens_details"))
    outward = _of(usage.get("completion_tokens_details"))
    completion = _completion(usage, prompt, _count(outward.get("reasoning_tokens")) or 0)
    if prompt is None or completion is None:
        return None
    if not (inward or outward) and PLAIN.issuperset(usage):
        return Usage(prompt, completion)
    cached = _part(
        prompt,
        inward.get("cached_tokens"),
        usage.get("cache_read_input_tokens"),  # LiteLLM's
        usage.get("prompt_cache_hit_tokens"),  # DeepSeek's
    )
    written = _part(
        prompt - cached,
        inward.get("cache_write_tokens"),
        inward.get("cache_creation_tokens"),  # LiteLLM's, as the next
        usage.get("cache_creation_input_tokens"),
    )
    reasoning = _part(completion, outward.get("reasoning_tokens"))
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=_part(
            written,
            _of(inward.get("cache_creation_token_details")).get("ephemeral_1h_input_tokens"),
            _of(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"),  # Anthropic's
        ),
        reasoning_tokens=reasoning,
        audio_prompt_tokens=_part(prompt - cached - written, inward.get("audio_tokens")),
        audio_completion_tokens=_part(completion - reasoning, outward.get("audio_tokens")),
    )


def _completion(usage: Json, prompt: int | None, reasoning: int) -> int | None:
    completion, total = _count(usage.get("completion_tokens")), _count(usage.get("total_tokens"))
    if prompt is None or total is None:
        return completion
    if "completion_tokens" not in usage and total == prompt:
        return 0  # an embedding
    # xAI counts reasoning beside the completion, everybody else within it; the total tells.
    apart = completion is not None and total == prompt + completion + reasoning
    return total - prompt if apart else completion


def _part(whole: int, *counts: object) -> int:
    """Return the first of `counts` that is a count, as a part of `whole`."""
    for value in counts:
        if value is not None and (count := _count(value)) is not None:
            return min(whole, count)
    return 0


def _count(value: object) -> int | None:
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= TOKENS_LIMIT else None


def _of(value: object) -> Json:
    # Nearly always it is one of these two, and to ask an abstract class takes five times as long.
    if value is None:
        return NOTHING
    return value if type(value) is dict or isinstance(value, Mapping) else NOTHING


def usage_of_message(said: object, before: Usage | None) -> Usage | None:
    """
    Return the tokens that Anthropic reports, on top of what it reported `before` in the stream.

    Its prompt comes in three parts, none of which holds another. A later report is of everything so
    far, so no count of it is smaller. No answer takes none: a report of nothing is none.
    """
    usage, known = _of(said), before or Usage()
    fresh = known.prompt_tokens - known.cached_tokens - known.cache_write_tokens
    counts = (
        ("input_tokens", fresh),
        ("cache_read_input_tokens", known.cached_tokens),
        ("cache_creation_input_tokens", known.cache_write_tokens),
        ("output_tokens", known.completion_tokens),
    )
    told = [_count(usage.get(name)) for name, _ in counts]
    if not any(told):
        return before
    fresh, cached, written, completion = (
        max(was, count or 0) for count, (_, was) in zip(told, counts, strict=True)
    )
    details, an_hour = _of(usage.get("output_tokens_details")), _of(usage.get("cache_creation"))
    return Usage(
        prompt_tokens=fresh + cached + written,
        completion_tokens=completion,
        cached_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=_part(
            written, an_hour.get("ephemeral_1h_input_tokens"), known.cache_write_1h_tokens
        ),
        reasoning_tokens=_part(completion, details.get("thinking_tokens"), known.reasoning_tokens),
    )
