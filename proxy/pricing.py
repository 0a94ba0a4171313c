"""
What an attempt cost, and what it can cost at most: whole nano-dollars. Pure.

The rules are those of LiteLLM's own calculation, which `tests/test_pricing.py` holds them against.
What it prices by the image, query or page has no price here, and cheaper hours
(`off_peak_pricing`) are not known: what is charged then is the ordinary price.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias

from proxy.facts import Price, Rates, SoundPrice
from proxy.types import Usage

Row: TypeAlias = Mapping[str, Any]  # of LiteLLM's table: its names, and numbers

PICO = 10**12  # pico-dollars in a dollar
PICO_PER_NANO = 1000

PROMPT = "input_cost_per_token"
COMPLETION = "output_cost_per_token"
CACHED = "cache_read_input_token_cost"
CACHE_WRITE = "cache_creation_input_token_cost"
CACHE_WRITE_1H = "cache_creation_input_token_cost_above_1hr"
REASONING = "output_cost_per_reasoning_token"
AUDIO_PROMPT = "input_cost_per_audio_token"
AUDIO_COMPLETION = "output_cost_per_audio_token"
CHARACTER = "input_cost_per_character"
SECOND = "input_cost_per_second"
SECOND_SAID = "output_cost_per_second"
SOUND = frozenset({CHARACTER, SECOND, SECOND_SAID})
STEPPED = (PROMPT, COMPLETION, CACHED, CACHE_WRITE, CACHE_WRITE_1H)  # may change with the length
KINDS = tuple(
    each.name for each in fields(Rates) if each.init and each.name != "least_prompt_tokens"
)
# OpenAI's words for "as the project is set", which is also what no word means.
ANY_TIER = frozenset({"", "auto"})
SERVICE_TIERS = ("balanced", "flex", "priority", "ultrafast")

_STEP = re.compile(r"(_above_([0-9]+)k_tokens)(?:_[a-z]+)?$")
_PRICE = re.compile(
    f"(?:(?:{'|'.join(STEPPED)})(?:_above_[0-9]+k_tokens)?|{REASONING}|{AUDIO_PROMPT}"
    f"|{AUDIO_COMPLETION})(?:_(?:{'|'.join(SERVICE_TIERS)}))?"
)


def cost_nano_usd(price: Price, usage: Usage, service_tier: str | None = None) -> int:
    """Return what an attempt cost in the tier that served it, rounded half up once."""
    rates = _reached(price.of(service_tier), usage.prompt_tokens)[-1]
    if usage.is_plain:
        pico = usage.prompt_tokens * rates.prompt + usage.completion_tokens * rates.completion
    else:
        pico = _pico_by_kind(rates, usage)
    return (pico + PICO_PER_NANO // 2) // PICO_PER_NANO


def _pico_by_kind(rates: Rates, usage: Usage) -> int:
    tokens = dict(usage.kinds())
    written = tokens["prompt_cache_write"]
    written_1h = min(usage.cache_write_1h_tokens, written)
    return (
        tokens["prompt"] * rates.prompt
        + tokens["prompt_cached"] * rates.cached
        + (written - written_1h) * rates.cache_write
        + written_1h * rates.cache_write_1h
        + tokens["prompt_audio"] * rates.audio_prompt
        + tokens["completion"] * rates.completion
        + tokens["reasoning"] * rates.reasoning
        + tokens["completion_audio"] * rates.audio_completion
    )


def bound_nano_usd(
    price: Price, prompt_tokens: int, completion_tokens: int, service_tier: str | None = None
) -> int:
    """
    Return what an attempt with at most so many tokens costs at most, whatever their kinds.

    A provider may serve a request in the tier that it asks for or in the ordinary one; and one that
    asks for none in whichever its operator has chosen at the provider, which nobody here knows.
    """
    if service_tier is None or service_tier.lower() in ANY_TIER:
        ladders = (price.rates, *price.service_tiers.values())
    else:
        ladders = (price.rates, price.of(service_tier))
    pico = max(
        prompt_tokens * rates.dearest_prompt + completion_tokens * rates.dearest_completion
        for ladder in ladders
        for rates in _reached(ladder, prompt_tokens)
    )
    return -(-pico // PICO_PER_NANO)


def _reached(ladder: tuple[Rates, ...], prompt_tokens: int) -> tuple[Rates, ...]:
    """Return the rates of prompts up to this length; the last of them are those of this length."""
    if len(ladder) == 1:
        return ladder
    longer = (rates for rates in ladder[1:] if rates.least_prompt_tokens <= prompt_tokens)
    return (ladder[0], *longer)


def is_token_price(name: str) -> bool:
    """Say whether a number of this name changes a Price."""
    return _PRICE.fullmatch(name) is not None


def is_known_price(name: str) -> bool:
    """Say whether a number of this name changes a Price, or a SoundPrice."""
    return name in SOUND or is_token_price(name)


def price_of(row: Row, *, inclusive_steps: bool = False) -> Price | None:
    """
    Return the price that a row of the table states; None when it names neither side's tokens.

    A kind without a price of its own costs what the kind costs that it is a part of. A price of
    zero is a price. `_above_200k_tokens` are prices of prompts with more tokens than that, and with
    `inclusive_steps` of those with as many.
    """
    if tiers := row.get("tiered_pricing"):
        return _tiered(row, tiers)
    if row.get(PROMPT) is None and row.get(COMPLETION) is None:
        return None
    steps = _steps(row, inclusive_steps)
    ordinary = _ladder(row, steps, "")
    tiers = {tier for name in row if (tier := name.rpartition("_")[2]) in SERVICE_TIERS}
    return Price(ordinary, {tier: _ladder(row, steps, f"_{tier}") for tier in sorted(tiers)})


def sound_price_of(row: Row) -> SoundPrice:
    """Return what a row states of speech and recordings. Its seconds stand under either name."""
    character, second = row.get(CHARACTER), row.get(SECOND_SAID) or row.get(SECOND)
    return SoundPrice(
        character=None if character is None else _pico(character),
        second=None if second is None else _pico(second),
    )


def uplifted(price: Price, factor: float) -> Price:
    """Return the price times `factor`: what some regions cost more."""

    def times(ladder: tuple[Rates, ...]) -> tuple[Rates, ...]:
        return tuple(
            Rates(
                least_prompt_tokens=rates.least_prompt_tokens,
                **{kind: int(getattr(rates, kind) * factor + 0.5) for kind in KINDS},
            )
            for rates in ladder
        )

    tiers = {tier: times(ladder) for tier, ladder in price.service_tiers.items()}
    return Price(times(price.rates), tiers)


def _steps(row: Row, inclusive: bool) -> tuple[tuple[int, str], ...]:
    """Return from how many prompt tokens which part of a name holds, shortest first."""
    found = (_STEP.search(name) for name in row if "_above_" in name)
    steps = {int(step[2]) * 1000 + (0 if inclusive else 1): step[1] for step in found if step}
    return ((0, ""), *sorted(steps.items()))


def _ladder(row: Row, steps: Iterable[tuple[int, str]], tier: str) -> tuple[Rates, ...]:
    known: dict[str, float | None] = dict.fromkeys(STEPPED)
    ladder = []
    for least, above in steps:
        # What a longer prompt has no price for keeps the price of the next shorter one.
        for name in STEPPED:
            price = _first(row, f"{name}{above}{tier}", f"{name}{above}")
            known[name] = known[name] if price is None else price
        ladder.append(_rates(row, known, tier, least))
    return tuple(ladder)


def _rates(row: Row, known: Mapping[str, float | None], tier: str, least: int) -> Rates:
    prompt, completion = known[PROMPT] or 0, known[COMPLETION] or 0
    cache_write = _or(known[CACHE_WRITE], prompt)
    # A tier with a price of its own for the completion has it for reasoning, too.
    reasoning = () if tier and row.get(f"{COMPLETION}{tier}") is not None else (REASONING,)
    return Rates(
        prompt=_pico(prompt),
        completion=_pico(completion),
        cached=_pico(_or(known[CACHED], prompt)),
        cache_write=_pico(cache_write),
        cache_write_1h=_pico(_or(known[CACHE_WRITE_1H], cache_write)),
        reasoning=_pico(_or(_first(row, f"{REASONING}{tier}", *reasoning), completion)),
        audio_prompt=_pico(_or(_first(row, f"{AUDIO_PROMPT}{tier}", AUDIO_PROMPT), prompt)),
        audio_completion=_pico(_or(_first(row, AUDIO_COMPLETION), completion)),
        least_prompt_tokens=least,
    )


def _tiered(row: Row, tiers: Iterable[Row]) -> Price | None:
    """Return a price by ranges of prompt tokens, as Alibaba writes it; it has no service tiers."""
    ladder = []
    for tier in sorted(tiers, key=lambda each: each.get("range", (0,))[0]):
        if PROMPT not in tier:
            return None
        known = {name: tier.get(name) for name in STEPPED}
        own = {**row, **tier}
        if known[COMPLETION] is None:
            known[COMPLETION] = row.get(COMPLETION)
        elif REASONING not in tier:
            own[REASONING] = None
        ladder.append(_rates(own, known, "", int(tier.get("range", (0,))[0]) + 1))
    return Price(tuple(ladder))


def _first(row: Row, *names: str) -> float | None:
    return next((row[name] for name in names if row.get(name) is not None), None)


def _or(price: float | None, otherwise: float) -> float:
    return otherwise if price is None else price


def _pico(usd: float) -> int:
    # The table's prices are whole in this unit; the product is off by far less than the half.
    return int(usd * PICO + 0.5)
