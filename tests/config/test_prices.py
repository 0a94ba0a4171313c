"""What the file and LiteLLM's table say of prices and limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from proxy.config import load_config
from proxy.config.price_table import FILE, read_table, shipped_table
from proxy.facts import FREE, STRANGER, ModelFacts, Price, Rates, SoundPrice
from proxy.types import Lane
from tests.config.loading import lines, load_text, mock_model, ring, targets

KEY = "api_key: os.environ/K"


def prompt(price: Price | None) -> int | None:
    """Return the ordinary price of a prompt token in pico-dollars."""
    return price.rates[0].prompt if price else None


def rates(folder: Path, params: str, info: str = "") -> Rates:
    entry = f"{{model_name: a, litellm_params: {{{params}, {KEY}}}, model_info: {{{info}}}}}"
    target = targets(load_text(folder, f"model_list: [{entry}]\n", {"K": "x"}).snapshot, "a")[0]
    assert target.facts.price is not None
    return target.facts.price.rates[0]


def test_a_target_knows_the_price_and_limits_of_its_model(tmp_path: Path) -> None:
    text = f"model_list: [{{model_name: a, litellm_params: {{model: openai/gpt-4o, {KEY}}}}}]\n"
    (target,) = targets(load_text(tmp_path, text, {"K": "x"}).snapshot, "a")
    assert prompt(target.facts.price) == 2_500_000
    assert (target.facts.max_input_tokens, target.facts.max_output_tokens) == (128_000, 16_384)


def test_prices_in_the_file_win_over_the_table_one_by_one(tmp_path: Path) -> None:
    found = rates(
        tmp_path,
        "model: openai/gpt-4o, input_cost_per_token: 3e-6, output_cost_per_audio_token: '1e-5'",
        "output_cost_per_token: 0.000004, cache_creation_input_token_cost_above_1hr: 5e-6",
    )
    assert found == Rates(
        prompt=3_000_000,
        completion=4_000_000,
        cached=1_250_000,
        cache_write=3_000_000,
        cache_write_1h=5_000_000,
        reasoning=4_000_000,
        audio_prompt=3_000_000,
        audio_completion=10_000_000,
    )


def test_litellm_params_win_over_model_info(tmp_path: Path) -> None:
    params, info = "model: openai/gpt-4o, input_cost_per_token: 3e-6", "input_cost_per_token: 9e-6"
    assert rates(tmp_path, params, info).prompt == 3_000_000


def test_a_price_of_zero_in_the_file_is_a_price(tmp_path: Path) -> None:
    free = "input_cost_per_token: 0, output_cost_per_token: 0"
    assert rates(tmp_path, f"model: openai/ours, {free}") == Rates()


def test_limits_in_model_info_win_over_the_table(tmp_path: Path) -> None:
    def limits(info: str) -> tuple[int | None, int | None]:
        entry = f"{{model_name: a, litellm_params: {{model: openai/gpt-4o, {KEY}}}"
        text = f"model_list: [{entry}, model_info: {{{info}}}}}]\n"
        facts = targets(load_text(tmp_path, text, {"K": "x"}).snapshot, "a")[0].facts
        return facts.max_input_tokens, facts.max_output_tokens

    assert limits("max_input_tokens: 1000") == (1000, 16_384)
    assert limits("max_tokens: 50") == (128_000, 50)
    assert limits("max_tokens: 50, max_output_tokens: 60") == (128_000, 60)


def test_a_price_that_is_no_number_states_nothing(tmp_path: Path) -> None:
    odd = "input_cost_per_token: {a: 1}, max_tokens: [1], output_cost_per_token: [2]"
    found = rates(tmp_path, f"model: openai/gpt-4o, {odd}", odd)
    assert (found.prompt, found.completion) == (2_500_000, 10_000_000)


@pytest.mark.parametrize("place", ["litellm_params", "model_info"])
def test_a_deployment_of_azure_is_priced_as_its_base_model(tmp_path: Path, place: str) -> None:
    base = {"litellm_params": ("base_model: gpt-4o,", ""), "model_info": ("", "base_model: gpt-4o")}
    inside, info = base[place]
    params = f"{inside} model: azure/ours, api_base: https://x.openai.azure.com, {KEY}"
    text = (
        f"model_list: [{{model_name: a, litellm_params: {{{params}}}, model_info: {{{info}}}}}]\n"
    )
    (target,) = targets(load_text(tmp_path, text, {"K": "x"}).snapshot, "a")
    assert prompt(target.facts.price) == 2_500_000
    unknown = text.replace("base_model: gpt-4o", "api_version: preview")
    (target,) = targets(load_text(tmp_path, unknown, {"K": "x"}).snapshot, "a")
    assert target.facts == ModelFacts(habits=STRANGER)


def test_a_mock_costs_nothing(tmp_path: Path) -> None:
    text = "model_list:\n" + mock_model("gpt-4o") + mock_model('"x*"')
    snapshot = load_text(tmp_path, text).snapshot
    assert targets(snapshot, "gpt-4o")[0].facts.price == FREE
    assert targets(snapshot, "x-1")[0].facts.price == FREE


def test_a_name_under_a_wildcard_has_the_price_of_its_model(tmp_path: Path) -> None:
    wildcard = "{model_name: 'o/*', litellm_params: {model: 'openai/*', " + KEY
    exact = "{model_name: x, litellm_params: {model: openai/x, mock_response: hi}}"
    text = f"model_list: [{wildcard}, output_cost_per_token: 7e-6}}}}, {exact}]\n"
    settings = "model_group_alias: {best: o/gpt-4o}, default_fallbacks: [best]"
    snapshot = load_text(tmp_path, f"{text}router_settings: {{{settings}}}\n", {"K": "x"}).snapshot
    fallbacks = [ring(snapshot, name).groups[1].targets for name in ("o/gpt-4", "x")]
    for found in (targets(snapshot, "o/gpt-4o"), targets(snapshot, "best"), *fallbacks):
        price = found[0].facts.price
        assert price is not None
        assert (price.rates[0].prompt, price.rates[0].completion) == (2_500_000, 7_000_000)
    assert prompt(targets(snapshot, "o/gpt-4")[0].facts.price) == 30_000_000


@pytest.mark.parametrize(
    ("params", "region"),
    [
        ("model: openai/gpt-4o, api_base: 'https://eu.api.openai.com/v1'", "eu"),
        ("model: openai/gpt-4o, api_base: 'https://api.openai.com/v1'", None),
        ("model: openai/gpt-4o, api_base: 'https://eu.example.com/v1'", None),
        ("model: openai/gpt-4o", None),
        ("model: vertex_ai/gemini-2.5-pro, vertex_location: us-east5", "us-east5"),
        ("model: bedrock/anthropic.claude-v2, aws_region_name: us-gov-west-1", "us-gov-west-1"),
        ("model: azure/gpt-4o, api_base: 'https://eu.openai.azure.com'", None),
    ],
)
def test_where_a_model_runs_is_stated_for_those_who_ask_more_there(
    tmp_path: Path, params: str, region: str | None
) -> None:
    text = f"model_list: [{{model_name: a, litellm_params: {{{params}, {KEY}}}}}]\n"
    (target,) = targets(load_text(tmp_path, text, {"K": "x"}).snapshot, "a")
    assert target.stated.region == region


def test_a_region_that_costs_more_is_charged_more(tmp_path: Path) -> None:
    model = "model: vertex_ai/claude-sonnet-4-5"
    plain, regional = rates(tmp_path, model), rates(tmp_path, f"{model}, vertex_location: us-east5")
    assert regional.prompt * 10 == plain.prompt * 11


def test_the_table_is_read_once_and_without_litellm(tmp_path: Path) -> None:
    assert shipped_table() is shipped_table()
    file = tmp_path / "c.yaml"
    file.write_text("model_list:\n" + mock_model("a"), encoding="utf-8")
    load = (
        "import sys; from pathlib import Path; from proxy.config import load_config;"
        "load_config(Path(sys.argv[1]), {}); sys.exit('litellm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", load, str(file)], check=False).returncode == 0


@pytest.mark.parametrize("content", [None, b"{", b"[]"])
def test_what_is_no_table_is_none(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / FILE
    if content is not None:
        file.write_bytes(content)
    assert read_table(file) is None


def test_a_row_that_is_no_row_is_left_out(tmp_path: Path) -> None:
    row = {"litellm_provider": "openai", "input_cost_per_token": 1e-6}
    file = tmp_path / FILE
    file.write_bytes(orjson.dumps({"bad": 1, "sample_spec": row, "Good": row}))
    table = read_table(file)
    assert table is not None
    found = [table.find("openai", name).price for name in ("bad", "sample_spec", "good")]
    assert [prompt(price) for price in found] == [None, None, 1_000_000]


def test_without_the_table_there_is_a_warning_and_only_prices_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    params = f"{{model: openai/gpt-4o, {KEY}, input_cost_per_token: 3e-6}}"
    file.write_text(f"model_list: [{{model_name: a, litellm_params: {params}}}]\n", "utf-8")
    loaded = load_config(file, {"K": "x"}, table=lambda: None)
    assert lines(loaded.warnings) == [
        (1, "LiteLLM's table of prices cannot be read: only prices in this file count")
    ]
    facts = targets(loaded.snapshot, "a")[0].facts
    assert (prompt(facts.price), facts.max_input_tokens) == (3_000_000, None)


def test_what_a_model_is_known_to_lack_is_in_the_table_or_in_the_file(tmp_path: Path) -> None:
    def cannot(model: str, info: str = "", more: str = "") -> frozenset[str]:
        params = f"{{model: {model}, {KEY}{more}}}"
        entry = f"{{model_name: a, litellm_params: {params}, model_info: {{{info}}}}}"
        snapshot = load_text(tmp_path, f"model_list: [{entry}]\n", {"K": "x"}).snapshot
        return targets(snapshot, "a")[0].facts.cannot

    assert cannot("openai/gpt-4o") == frozenset()
    assert cannot("openai/unheard-of") == frozenset()
    assert cannot("openai/gpt-4o", "supports_vision: false") == {"supports_vision"}
    assert cannot("openai/gpt-4o", "input_cost_per_token: 1e-6") == frozenset()
    denied = "supports_vision: false, input_cost_per_token: 1e-6"
    assert cannot("openai/unheard-of", denied) == {"supports_vision"}
    assert cannot("openai/gpt-4o", "supports_vision: false", ", mock_response: hi") == frozenset()
    denying, tools = "deepseek/deepseek-reasoner", "supports_function_calling"
    assert tools in cannot(denying)
    assert tools not in cannot(denying, f"{tools}: true")


def test_sound_has_the_price_of_the_table_or_that_of_the_file(tmp_path: Path) -> None:
    def sound(params: str, info: str = "") -> tuple[SoundPrice, Price | None]:
        entry = f"{{model_name: a, litellm_params: {{{params}, {KEY}}}, model_info: {{{info}}}}}"
        config = load_text(tmp_path, f"model_list: [{entry}]\n", {"K": "x"})
        (target,) = targets(config.snapshot, "a")
        assert target.lane is Lane.DIRECT
        return target.facts.sound, target.facts.price

    assert sound("model: openai/tts-1") == (SoundPrice(character=15_000_000), None)
    assert sound("model: openai/whisper-1") == (SoundPrice(second=100_000_000), None)
    own = "input_cost_per_second: '2e-4'"
    assert sound(f"model: openai/whisper-1, {own}")[0].second == 200_000_000
    assert sound("model: openai/mine", own)[0].second == 200_000_000
    # Who states a price by the second pays by the second, whatever the table says of tokens.
    assert sound(f"model: openai/gpt-4o-transcribe, {own}")[1] is None
    found, price = sound("model: openai/gpt-4o-transcribe")
    assert (found.second, prompt(price)) == (100_000_000, 2_500_000)


def test_a_beginning_is_taken_by_the_claudes_of_the_table_and_by_whom_the_file_names(
    tmp_path: Path,
) -> None:
    def prefills(model: str, info: str = "", more: str = "") -> bool:
        params = f"{{model: {model}, {KEY}{more}}}"
        entry = f"{{model_name: a, litellm_params: {params}, model_info: {{{info}}}}}"
        loaded = load_text(tmp_path, f"model_list: [{entry}]\n", {"K": "x"})
        assert not [each for each in loaded.warnings if "prefill" in str(each)]
        return targets(loaded.snapshot, "a")[0].facts.prefills

    stated = "supports_assistant_prefill"
    assert prefills("anthropic/claude-sonnet-4-5")
    assert prefills("vertex_ai/claude-sonnet-4-5", more=", vertex_project: p")
    assert not prefills("anthropic/claude-opus-4-6")  # the table denies it
    assert not prefills("anthropic/claude-unheard-of")
    assert not prefills("anthropic/claude-sonnet-4-5", f"{stated}: false")
    assert not prefills("anthropic/claude-sonnet-4-5", more=", mock_response: hi")
    assert prefills("anthropic/claude-unheard-of", f"{stated}: true")
    assert prefills("openai/vllm", f"{stated}: true")
    assert not prefills("vercel_ai_gateway/anthropic/claude-haiku-4.5")  # nobody knows
    # They want a flag beside the message.
    assert not prefills("mistral/mistral-large-latest")
    assert not prefills("deepseek/deepseek-chat")
