"""Prices: what an attempt cost, what it can cost at most, and that LiteLLM thinks so, too."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.catalogue import FACTS_KEPT, PriceTable
from proxy.config.names import words
from proxy.config.price_table import FILE, read_table
from proxy.facts import FREE, STRANGER, ModelFacts, Price, Rates, Stated
from proxy.pricing import bound_nano_usd, cost_nano_usd, is_token_price, price_of
from proxy.types import Usage

Row: TypeAlias = dict[str, Any]

SPEC = importlib.util.find_spec("litellm")
assert SPEC is not None
assert SPEC.submodule_search_locations is not None
TABLE_FILE = Path(SPEC.submodule_search_locations[0]) / FILE

ALL_KINDS = Rates(
    prompt=2_000_000,
    completion=8_000_000,
    cached=500_000,
    cache_write=2_500_000,
    cache_write_1h=4_000_000,
    reasoning=9_000_000,
    audio_prompt=40_000_000,
    audio_completion=80_000_000,
)


def price(**row: Any) -> Price:
    found = price_of(row)
    assert found is not None
    return found


def test_each_kind_of_token_has_its_own_price() -> None:
    usage = Usage(
        prompt_tokens=1111,
        completion_tokens=111,
        cached_tokens=100,
        cache_write_tokens=10,
        cache_write_1h_tokens=4,
        reasoning_tokens=10,
        audio_prompt_tokens=1000,
        audio_completion_tokens=1,
    )
    prompt = 1 * 2000 + 100 * 500 + 6 * 2500 + 4 * 4000 + 1000 * 40_000
    completion = 100 * 8000 + 10 * 9000 + 1 * 80_000
    assert cost_nano_usd(Price((ALL_KINDS,)), usage) == prompt + completion


@pytest.mark.parametrize(("pico", "nano"), [(499, 0), (500, 1), (1499, 1), (1500, 2)])
def test_a_cost_is_rounded_half_up_to_whole_nano_dollars(pico: int, nano: int) -> None:
    assert cost_nano_usd(Price((Rates(prompt=pico),)), Usage(1)) == nano


def test_a_cost_is_rounded_once_and_not_for_each_kind() -> None:
    rates = Rates(prompt=400, cached=400)
    assert cost_nano_usd(Price((rates,)), Usage(2, cached_tokens=1)) == 1


def test_parts_that_are_more_than_their_whole_are_not_paid_twice() -> None:
    usage = Usage(10, 10, 8, 8, 8, 8, 8, 8)
    cost = 8 * 500 + 2 * 4000 + 8 * 9000 + 2 * 80_000
    assert cost_nano_usd(Price((ALL_KINDS,)), usage) == cost


def test_a_kind_without_a_price_costs_what_it_is_a_part_of() -> None:
    (rates,) = price(input_cost_per_token=1e-6, output_cost_per_token=5e-6).rates
    assert rates == Rates(
        **dict.fromkeys(
            ("prompt", "cached", "cache_write", "cache_write_1h", "audio_prompt"), 1_000_000
        ),
        **dict.fromkeys(("completion", "reasoning", "audio_completion"), 5_000_000),
    )
    (rates,) = price(input_cost_per_token=1e-6, cache_creation_input_token_cost=2e-6).rates
    assert rates.cache_write_1h == 2_000_000


def test_audio_has_prices_of_its_own() -> None:
    row = {"input_cost_per_token": 1e-6, "input_cost_per_audio_token": 4e-6}
    spoken = {"output_cost_per_audio_token": 8e-6, "input_cost_per_audio_token_priority": 5e-6}
    subject = price(**row, **spoken)
    usage = Usage(2, 1, audio_prompt_tokens=1, audio_completion_tokens=1)
    assert cost_nano_usd(subject, usage) == 1000 + 4000 + 8000
    assert cost_nano_usd(subject, usage, "priority") == 1000 + 5000 + 8000


@pytest.mark.parametrize("usd", [2.9e-07, 3e-08, 1.3200000000000002e-07, 1.5000020000000002e-05])
def test_a_price_is_whole_whatever_floats_make_of_it(usd: float) -> None:
    assert price(input_cost_per_token=usd).rates[0].prompt == int(Decimal(f"{usd:.10e}") * 10**12)


def test_zero_is_a_price_and_nothing_is_none() -> None:
    zero = price(input_cost_per_token=0, output_cost_per_token=0.0)
    assert zero == FREE
    assert cost_nano_usd(zero, Usage(1000, 1000)) == 0
    assert price_of({"max_input_tokens": 1000, "input_cost_per_second": 1e-3}) is None
    assert price(output_cost_per_token=1e-6).rates[0].prompt == 0
    read = price(input_cost_per_token=1e-6, cache_read_input_token_cost=0)
    assert read.rates[0].cached == 0, "what is free is not without a price"


LONG = {
    "input_cost_per_token": 1e-6,
    "input_cost_per_token_above_128k_tokens": 2e-6,
    "input_cost_per_token_above_200k_tokens": 3e-6,
    "output_cost_per_token": 4e-6,
    "output_cost_per_token_above_200k_tokens": 6e-6,
}


@pytest.mark.parametrize(
    ("prompt", "nano"),
    [
        (128_000, 128_000 * 1000 + 4000),
        (128_001, 128_001 * 2000 + 4000),
        (200_000, 200_000 * 2000 + 4000),
        (200_001, 200_001 * 3000 + 6000),
    ],
)
def test_a_long_prompt_makes_the_whole_request_dearer(prompt: int, nano: int) -> None:
    assert cost_nano_usd(price(**LONG), Usage(prompt, 1)) == nano


def test_some_providers_count_the_step_itself_as_long() -> None:
    subject = price_of(LONG, inclusive_steps=True)
    assert subject is not None
    assert cost_nano_usd(subject, Usage(200_000)) == 200_000 * 3000
    assert cost_nano_usd(subject, Usage(199_999)) == 199_999 * 2000


def test_ranges_of_prompt_tokens_are_steps_too() -> None:
    tiers = [
        {"range": [32_000.0, 1e6], "input_cost_per_token": 5e-6, "output_cost_per_token": 9e-6},
        {"range": [0, 32_000.0], "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
    ]
    subject = price(tiered_pricing=tiers, output_cost_per_reasoning_token=1.0)
    assert cost_nano_usd(subject, Usage(32_000, 1, reasoning_tokens=1)) == 32_000 * 1000 + 2000
    assert cost_nano_usd(subject, Usage(32_001, 1)) == 32_001 * 5000 + 9000
    assert cost_nano_usd(subject, Usage(0, 1)) == 2000
    assert price_of({"tiered_pricing": [{"range": [0, 9], "input_cost_per_query": 1}]}) is None


TIERS = {
    "input_cost_per_token": 2e-6,
    "output_cost_per_token": 4e-6,
    "output_cost_per_reasoning_token": 5e-6,
    "input_cost_per_token_priority": 3e-6,
    "output_cost_per_token_priority": 7e-6,
    "input_cost_per_token_flex": 1e-6,
}


@pytest.mark.parametrize("tier", [None, "", "auto", "default", "standard", "nonsense", "ultrafast"])
def test_what_is_no_tier_of_the_price_costs_the_ordinary(tier: str | None) -> None:
    assert cost_nano_usd(price(**TIERS), Usage(1, 2, reasoning_tokens=1), tier) == 11_000


@pytest.mark.parametrize("tier", ["priority", "Priority", "fast"])
def test_a_service_tier_has_its_own_price(tier: str) -> None:
    assert cost_nano_usd(price(**TIERS), Usage(1, 2, reasoning_tokens=1), tier) == 17_000


def test_what_a_service_tier_has_no_price_for_costs_the_ordinary() -> None:
    assert cost_nano_usd(price(**TIERS), Usage(1, 2, reasoning_tokens=1), "flex") == 10_000


def test_a_bound_takes_the_dearest_kind_and_rounds_up() -> None:
    subject = Price((ALL_KINDS,))
    assert bound_nano_usd(subject, 10, 3) == 10 * 40_000 + 3 * 80_000
    assert bound_nano_usd(Price((Rates(prompt=1),)), 1, 0) == 1
    assert bound_nano_usd(FREE, 10**8, 10**8) == 0


def test_a_bound_is_for_the_tier_that_is_asked_for_and_the_ordinary_one() -> None:
    subject = price(**TIERS)
    assert bound_nano_usd(subject, 1, 1, "priority") == 10_000
    assert (
        bound_nano_usd(subject, 1, 1, "flex") == bound_nano_usd(subject, 1, 1, "default") == 7_000
    )


@pytest.mark.parametrize("tier", [None, "auto"])
def test_a_bound_without_a_tier_is_for_whichever_the_project_is_set_to(tier: str | None) -> None:
    assert bound_nano_usd(price(**TIERS), 1, 1, tier) == 10_000


def test_a_bound_knows_that_shorter_prompts_may_be_dearer() -> None:
    row = {"input_cost_per_token": 3e-6, "input_cost_per_token_above_128k_tokens": 1e-6}
    assert bound_nano_usd(price(**row), 200_000, 0) == 200_000 * 3000


PICO = st.integers(0, 10**9)
RATES = st.builds(Rates, *[PICO] * 8)
LADDERS = st.lists(RATES, min_size=1, max_size=3).map(
    lambda each: tuple(
        replace(rates, least_prompt_tokens=step * 100) for step, rates in enumerate(each)
    )
)
PRICES = st.builds(Price, LADDERS, st.dictionaries(st.sampled_from(["flex", "priority"]), LADDERS))
COUNTS = st.integers(0, 400)


@given(PRICES, st.builds(Usage, *[COUNTS] * 8), COUNTS, COUNTS, st.sampled_from([None, "priority"]))
def test_no_usage_within_the_tokens_costs_more_than_the_bound(
    subject: Price, usage: Usage, more_prompt: int, more_completion: int, asked: str | None
) -> None:
    prompt, completion = (
        usage.prompt_tokens + more_prompt,
        usage.completion_tokens + more_completion,
    )
    bound = bound_nano_usd(subject, prompt, completion, asked)
    tiers = {"flex", "priority"} if asked is None else {asked}
    for served in {None, "default", *tiers}:
        assert 0 <= cost_nano_usd(subject, usage, served) <= bound


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("input_cost_per_token", True),
        ("cache_creation_input_token_cost_above_1hr_above_200k_tokens", True),
        ("output_cost_per_token_above_272k_tokens_priority", True),
        ("input_cost_per_audio_token", True),
        ("input_cost_per_token_batches", False),
        ("input_cost_per_second", False),
        ("input_cost_per_image_token", False),
        ("output_cost_per_token_above_1hr", False),
    ],
)
def test_only_numbers_that_change_a_price_are_kept_of_the_table(name: str, known: bool) -> None:
    assert is_token_price(name) is known


# The catalogue.

ONE = {"input_cost_per_token": 1e-6, "max_input_tokens": 100, "max_output_tokens": 10}
TABLE = PriceTable(
    {
        "gpt-x": {**ONE, "litellm_provider": "openai"},
        "azure/gpt-x": {**ONE, "litellm_provider": "azure", "input_cost_per_token": 2e-6},
        "ft:gpt-x": {**ONE, "litellm_provider": "openai", "input_cost_per_token": 3e-6},
        "anthropic.c-v1:0": {**ONE, "litellm_provider": "bedrock_converse"},
        "eu.anthropic.c-v1:0": {**ONE, "litellm_provider": "bedrock", "input_cost_per_token": 2e-6},
        "gemini-x": {**ONE, "litellm_provider": "vertex_ai-language-models"},
        "fireworks_ai/accounts/fireworks/models/x": {**ONE, "litellm_provider": "fireworks_ai"},
        "both": {**ONE, "litellm_provider": "openai"},
        "openai/both": {**ONE, "litellm_provider": "openai", "input_cost_per_token": 9e-6},
        "limits-only": {"litellm_provider": "openai", "max_input_tokens": 7},
        "ranges": {
            "litellm_provider": "openai",
            "tiered_pricing": [{"range": [0, 9], "input_cost_per_token": 5e-6}],
        },
    }
)


def prompt_price(facts: ModelFacts) -> int | None:
    return facts.price.rates[0].prompt // 10**6 if facts.price else None


@pytest.mark.parametrize(
    ("provider", "model", "micro"),
    [
        ("openai", "gpt-x", 1),
        ("openai", "GPT-X", 1),
        ("openai", "both", 9),
        ("azure", "gpt-x", 2),
        ("azure", "our-deployment", None),
        ("groq", "gpt-x", None),
        ("openai", "gpt-x-2030-01-01", None),
        ("openai", "ft:gpt-x:our-org::id", 3),
        ("openai", "ft:gpt-y:our-org::id", None),
        ("bedrock", "anthropic.c-v1:0", 1),
        ("bedrock", "us.anthropic.c-v1:0", 1),
        ("bedrock", "eu.anthropic.c-v1:0", 2),
        ("bedrock", "converse/eu.anthropic.c-v1:0", 2),
        ("bedrock", "invoke/us-east-1/anthropic.c-v1:0", 1),
        ("bedrock", "anthropic.c-v1:0:200k", 1),
        ("bedrock", "arn:aws:bedrock:eu-west-1:1:inference-profile/eu.anthropic.c-v1:0", 2),
        ("vertex_ai", "gemini-x-001", 1),
        ("vertex_ai", "gemini-x-9", None),
        ("vertex_ai_beta", "gemini-x", 1),
        ("fireworks_ai", "x", 1),
    ],
)
def test_a_model_is_found_under_the_names_it_goes_by(
    provider: str, model: str, micro: int | None
) -> None:
    assert prompt_price(TABLE.find(provider, model)) == micro


def test_a_base_model_is_what_a_deployment_is_priced_as() -> None:
    def priced(base_model: str) -> int | None:
        return prompt_price(TABLE.find("azure", "ours", Stated(base_model)))

    assert priced("gpt-x") == priced("azure/gpt-x") == 2
    assert priced("ft:gpt-x") == 3, "the operator says so, whoever's model it is"
    assert priced("nobody's") is None


def test_what_the_file_states_wins_number_by_number() -> None:
    numbers = (("input_cost_per_token", 4e-6), ("max_tokens", 5.0))
    facts = TABLE.find("openai", "gpt-x", Stated(numbers=numbers))
    assert (prompt_price(facts), facts.max_input_tokens, facts.max_output_tokens) == (4, 100, 5)
    both = Stated(numbers=(*numbers, ("max_output_tokens", 6.0)))
    assert TABLE.find("openai", "gpt-x", both).max_output_tokens == 6
    assert prompt_price(TABLE.find("openai", "ranges")) == 5
    assert prompt_price(TABLE.find("openai", "ranges", Stated(numbers=numbers))) == 4
    assert prompt_price(TABLE.find("openai", "unheard-of", Stated(numbers=numbers))) == 4


def test_limits_may_be_known_where_the_price_is_not() -> None:
    assert TABLE.find("openai", "limits-only") == ModelFacts(max_input_tokens=7)
    assert TABLE.find("openai", "unheard-of") == ModelFacts(habits=STRANGER)


def test_a_mock_costs_nothing_and_keeps_its_limits() -> None:
    facts = TABLE.find("openai", "gpt-x", Stated(mocked=True))
    assert (facts.price, facts.max_input_tokens) == (FREE, 100)


def test_a_region_may_have_a_row_or_a_factor_of_its_own() -> None:
    row = {"input_cost_per_token": 1e-6, "input_cost_per_token_above_200k_tokens": 3e-6}
    endpoint = {"regional_endpoint_uplift_multiplier": 1.1, "input_cost_per_token_flex": 2e-6}
    europe = {"regional_processing_uplift_multiplier_eu": 1.2}
    table = PriceTable(
        {
            "anthropic.c": {**row, "litellm_provider": "bedrock"},
            "bedrock/us-gov-west-1/anthropic.c": {"input_cost_per_token": 5e-6},
            "gemini-x": {**row, **endpoint, "litellm_provider": "vertex_ai"},
            "gpt-x": {**row, **europe, "litellm_provider": "openai"},
        }
    )

    def found(provider: str, model: str, region: str | None) -> Price:
        price = table.find(provider, model, Stated(region=region)).price
        assert price is not None
        return price

    assert found("bedrock", "anthropic.c", "us-gov-west-1").rates[0].prompt == 5_000_000
    assert found("bedrock", "anthropic.c", "us-east-1").rates[0].prompt == 1_000_000
    regional = found("vertex_ai", "gemini-x", "us-east5")
    assert [rates.prompt for rates in regional.rates] == [1_100_000, 3_300_000]
    assert [rates.prompt for rates in regional.of("flex")] == [2_200_000, 3_300_000]
    assert [rates.least_prompt_tokens for rates in regional.rates] == [0, 200_001]
    for region in ("global", None):
        assert found("vertex_ai", "gemini-x", region).rates[0].prompt == 1_000_000
    assert found("openai", "gpt-x", "eu").rates[0].completion == 0
    assert found("openai", "gpt-x", "eu").rates[0].prompt == 1_200_000
    assert found("openai", "gpt-x", "us").rates[0].prompt == 1_000_000
    own = Stated(region="us-east5", numbers=(("input_cost_per_token", 7e-6),))
    assert prompt_price(table.find("vertex_ai", "gemini-x", own)) == 7


def test_what_fireworks_reads_from_its_cache_is_half_the_price() -> None:
    facts = TABLE.find("fireworks_ai", "x")
    assert facts.price is not None
    assert facts.price.rates[0].cached == 500_000


def test_a_model_is_listed_under_its_own_name_and_at_its_own_provider_only() -> None:
    row = {
        "litellm_provider": "anthropic",
        "max_output_tokens": 10,
        "max_input_tokens": 20,
        "supports_reasoning": True,
        "supports_sampling_params": False,
    }
    table = PriceTable({"claude": row, "narrow": {**row, "max_input_tokens": 10}})
    habits = table.find("anthropic", "claude").habits
    assert habits is not None
    assert habits.max_output_tokens == 10
    assert habits.has == {"supports_reasoning"}
    assert habits.lacks == {"supports_sampling_params"}
    other = table.find("anthropic", "claude-2").habits
    assert other is not None
    assert other.max_output_tokens is None
    for provider, name in (("bedrock", "claude"), ("anthropic", "narrow"), ("anthropic", "a/b")):
        assert table.find(provider, name).habits is None
    assert table.find("anthropic", "claude", Stated(mocked=True)).habits is None


def test_endless_names_do_not_fill_the_memory() -> None:
    table = PriceTable({})
    for number in range(FACTS_KEPT + 10):
        table.find("openai", f"invented-{number}")
    assert table._find.cache_info().currsize == FACTS_KEPT


# Held against LiteLLM. Importing it takes seconds and changes the process, so another is asked.

PROVIDERS = words(
    """
    anthropic azure azure_ai bedrock bedrock_mantle cerebras cohere_chat dashscope databricks
    deepinfra deepseek fireworks_ai gemini groq mistral moonshot openai openrouter perplexity
    tencent together_ai vertex_ai volcengine xai
    """
)
MODES = frozenset({"chat", "completion", "embedding", "responses"})
# Where LiteLLM's own rule for a provider is not followed but the one it has for all, and why.
SHARED_RULE = {
    "deepseek": "off-peak hours: we charge the price that holds at any time",
    "tencent": "as deepseek",
    "fireworks_ai": "it leaves out the service tiers that the table has",
    "perplexity": "it takes nothing off for what was cached, though the table does",
}
# A name of their own repeats the provider, and LiteLLM takes the row of the shorter name.
OTHER_ROW = frozenset({"perplexity/perplexity/sonar"})

ASK = """
import json, os, sys
import litellm
from litellm.litellm_core_utils.llm_cost_calc.utils import generic_cost_per_token
from litellm.types import utils as types

def usage(prompt, completion, cached, written, written_1h, reasoning, heard, spoken):
    written_5m = written - written_1h
    kept = types.CacheCreationTokenDetails(
        ephemeral_5m_input_tokens=written_5m, ephemeral_1h_input_tokens=written_1h
    )
    return types.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=types.PromptTokensDetailsWrapper(
            cached_tokens=cached, cache_write_tokens=written, audio_tokens=heard,
            cache_creation_token_details=kept if written else None,
        ),
        completion_tokens_details=types.CompletionTokensDetailsWrapper(
            reasoning_tokens=reasoning, audio_tokens=spoken
        ),
    )

def cost(provider, model, info, shared, counts, tier):
    if shared:
        return generic_cost_per_token(
            model=model, usage=usage(*counts), custom_llm_provider=provider, service_tier=tier,
            model_info={k: v for k, v in info.items() if k != "off_peak_pricing"},
        )
    return litellm.cost_per_token(
        model=model, custom_llm_provider=provider, usage_object=usage(*counts), service_tier=tier
    )

litellm.suppress_debug_info = True
answers = []
for provider, model, shared, asked in json.load(sys.stdin):
    info = litellm.get_model_info(model, custom_llm_provider=provider)
    costs = [sum(cost(provider, model, info, shared, *each)) for each in asked]
    answers.append({"info": {k: v for k, v in info.items() if "tok" in k}, "costs": costs})
json.dump(answers, open(1, "w"))
"""


def counts_of(rng: random.Random, prompt: int) -> tuple[int, ...]:
    """Return a usage of all kinds, in the order of Usage's fields."""
    cached = rng.randint(0, prompt)
    written = rng.randint(0, prompt - cached)
    heard = rng.randint(0, prompt - cached - written)
    completion = rng.randint(0, 5000)
    reasoning = rng.randint(0, completion)
    spoken = rng.randint(0, completion - reasoning)
    hour = rng.randint(0, written)
    return (prompt, completion, cached, written, hour, reasoning, heard, spoken)


def questions() -> Iterator[tuple[str, str, str, bool, list[tuple[tuple[int, ...], str | None]]]]:
    rng = random.Random(4)  # noqa: S311  # the same questions every time
    for name, row in json.loads(TABLE_FILE.read_bytes()).items():
        listed = str(row.get("litellm_provider")).removesuffix("_converse")
        provider = "vertex_ai" if listed.startswith("vertex_ai") else listed
        if row.get("mode") not in MODES or provider not in PROVIDERS or name in OTHER_ROW:
            continue
        if "input_cost_per_token" not in row and "output_cost_per_token" not in row:
            continue  # without a price: LiteLLM takes it for free, we for unknown
        model = name.removeprefix(f"{provider}/")
        long = {prompt for prompt in (128, 200, 256, 272, 512) if f"above_{prompt}k" in str(row)}
        prompts = [100, 3000, *(each * 1000 + more for each in sorted(long) for more in (0, 1))]
        tiers = [None, *(tier for tier in ("flex", "priority") if f"_{tier}" in str(row))]
        usages = [(1000, 500, 0, 0, 0, 0, 0, 0), *(counts_of(rng, prompt) for prompt in prompts)]
        # It does not find a partner's model of Vertex's by its whole name when it looks for a cost.
        shared = provider in SHARED_RULE or (provider == "vertex_ai" and "/" in model)
        yield name, provider, model, shared, [(usage, tier) for usage in usages for tier in tiers]


@pytest.fixture(scope="module")
def compared() -> list[tuple[str, str, str, list[tuple[tuple[int, ...], str | None]], Row]]:
    asked = list(questions())
    environ = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK],
        env=environ,
        input=json.dumps([each[1:] for each in asked]).encode(),
        capture_output=True,
        check=True,
    )
    answers = json.loads(answer.stdout)
    return [
        (name, provider, model, usages, answer)
        for (name, provider, model, _, usages), answer in zip(asked, answers, strict=True)
    ]


@pytest.fixture(scope="module")
def table() -> PriceTable:
    found = read_table(TABLE_FILE)
    assert found is not None
    return found


def pico(usd: float) -> int:
    return round(usd * 10**12)


def ordinary(info: Row, provider: str) -> Rates:
    """Return what LiteLLM's answer says of the ordinary rates of short prompts."""
    prompt, completion = info["input_cost_per_token"], info["output_cost_per_token"]

    def first(name: str, otherwise: float) -> float:
        value = info.get(name)
        return otherwise if value is None else float(value)

    written = first("cache_creation_input_token_cost", prompt)
    cached = prompt * 0.5 if provider == "fireworks_ai" else prompt
    return Rates(
        prompt=pico(prompt),
        completion=pico(completion),
        cached=pico(first("cache_read_input_token_cost", cached)),
        cache_write=pico(written),
        cache_write_1h=pico(first("cache_creation_input_token_cost_above_1hr", written)),
        reasoning=pico(first("output_cost_per_reasoning_token", completion)),
        audio_prompt=pico(first("input_cost_per_audio_token", prompt)),
        audio_completion=pico(first("output_cost_per_audio_token", completion)),
    )


def test_the_facts_of_every_model_are_what_litellm_says(compared: Any, table: PriceTable) -> None:
    assert len(compared) > 2000
    for name, provider, model, _, answer in compared:
        facts, info = table.find(provider, model), answer["info"]
        assert facts.price is not None, name
        if "tiered_pricing" not in info or info["tiered_pricing"] is None:
            assert facts.price.rates[0] == ordinary(info, provider), name
        limits = (info.get("max_input_tokens"), info.get("max_output_tokens"))
        assert (facts.max_input_tokens, facts.max_output_tokens) == limits, name


def test_a_cost_is_what_litellm_says_within_a_nano_dollar(compared: Any, table: PriceTable) -> None:
    differ = []
    for name, provider, model, usages, answer in compared:
        found = table.find(provider, model).price
        assert found is not None, name
        for (counts, tier), usd in zip(usages, answer["costs"], strict=True):
            ours, theirs = cost_nano_usd(found, Usage(*counts), tier), usd * 10**9
            # LiteLLM forgets the price that Gemini's priority tier has for audio.
            forgotten = tier == "priority" and provider in {"gemini", "vertex_ai"} and counts[6]
            if abs(ours - theirs) > 1 and not (forgotten and ours > theirs):
                differ.append((name, counts, tier, ours, theirs))
    assert differ == []
    assert sum(len(usages) for *_, usages, _ in compared) > 6000
