"""Limits and usage over the life of a server: edits, restarts, departures, failures; and prices."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import openai
import pytest

from proxy.limits import NANO
from proxy.metrics import REMAINING
from tests.e2e.quota_place import HI, PROMPT_USD, TOOK, Place, key, priced, secret
from tests.e2e.stream_checks import Visitor, target
from tests.harness import Mobius, total, wait_until
from tests.providers import Answer, Breaks, Fails, FakeAnthropic, FakeOpenAI, Gate
from tests.store.rows import open_ids, select

pytestmark = pytest.mark.e2e

IN_FORCE_S = 10.0
REVOKED_S = 1.0
SETTLED_S = 1.0
KEYS = [
    key("free"),
    key("gone"),
    key("bare"),
    key("edited", limits={"rpm": 2}),
    key("rich", limits={"budget_usd": {"total": 1}}),
    key("past", team="past", limits={"rpm": 2, "rpd": 50, "tpm": 10_000}),
    key("failing", limits={"tpm": 10_000, "max_parallel": 1}),
    key("leaving", limits={"tpm": 10_000, "max_parallel": 1}),
]
PRICES = {
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 2e-6,
    "cache_read_input_token_cost": 0.1e-6,
    "cache_creation_input_token_cost": 1.25e-6,
    "input_cost_per_audio_token": 40e-6,
    "output_cost_per_audio_token": 80e-6,
    "output_cost_per_reasoning_token": 3e-6,
}
DETAILED = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 200, "audio_tokens": 50},
    "completion_tokens_details": {"reasoning_tokens": 100, "audio_tokens": 40},
}
FAILURES = {500: "transient", 429: "rate_limited", 400: "caller"}
KINDS = {
    "prompt": (450, 1_000),
    "prompt_cached": (300, 100),
    "prompt_cache_write": (200, 1_250),
    "prompt_audio": (50, 40_000),
    "completion": (360, 2_000),
    "reasoning": (100, 3_000),
    "completion_audio": (40, 80_000),
}
DETAILED_NANO_USD = sum(tokens * nano for tokens, nano in KINDS.values())


def config(base: str, keys: list[dict[str, Any]] = KEYS, **quota: Any) -> dict[str, Any]:
    return {
        "model_list": [
            priced("m", base),
            priced("claude-x", base),
            *(priced(f"m-{status}", base, api_key=f"sk-{status}") for status in FAILURES),
            target("openai/unheard-of", base, name="unpriced"),
            target("openai/kinds", base, name="kinds", **PRICES),
            target("openai/wild-*", base, name="wild-*", input_cost_per_token=PROMPT_USD),
        ],
        "router_settings": {"num_retries": 0},
        "mobius": {
            "laps": 1,
            "keys": keys,
            "teams": [{"name": "past", "limits": {"budget_usd": {"month": 0.0006}}}],
            "models": {"claude-*": {"rpd": 2}, "wild-b*": {"rpd": 1}, "wild-a": {"rpd": 1}},
            "quota": {"default_max_tokens": 77, **quota},
            "breaker": {"failures": 1000, "min_calls": 1000},
        },
    }


@pytest.fixture(scope="module")
def running() -> Iterator[Place]:
    with FakeOpenAI() as provider, Mobius(config(provider.base_url)) as mobius:
        yield Place(mobius, provider)


@pytest.fixture
def place(running: Place) -> Place:
    running.provider.reset_script()
    running.provider.journal.clear()
    running.provider.always(Answer(usage=TOOK))
    return running


def without(name: str) -> list[dict[str, Any]]:
    return [each for each in KEYS if each["name"] != name]


# Edits


def test_a_key_taken_out_of_the_file_is_refused_within_a_second(place: Place) -> None:
    place.ask("gone")
    place.mobius.edit(config(place.provider.base_url, without("gone")), "save")
    wait_until(lambda: _rejected(place, "gone"), REVOKED_S, "the refusal")
    place.ask("free")
    place.mobius.edit(config(place.provider.base_url), "save")
    wait_until(lambda: not _rejected(place, "gone"), IN_FORCE_S, "the return")


def _rejected(place: Place, name: str) -> bool:
    try:
        place.ask(name)
    except openai.AuthenticationError:
        return True
    return False


def test_another_limit_holds_at_once_and_forgets_nothing(place: Place) -> None:
    for _ in range(2):
        place.ask("edited")
    place.refuse("edited")
    for most, more in ((4, 2), (1, 0), (6, 2)):
        keys = [*without("edited"), key("edited", limits={"rpm": most})]
        place.mobius.edit(config(place.provider.base_url, keys), "rename")
        if more:
            wait_until(lambda: _asks(place, "edited"), IN_FORCE_S, "the larger limit")
            assert [_asks(place, "edited") for _ in range(2)] == [True, False]
        wait_until(partial(_told, place, f"rpm {most},"), IN_FORCE_S, "the limit")
    place.mobius.edit(config(place.provider.base_url), "save")


def test_a_limit_that_is_new_knows_what_was_used_before_it(place: Place) -> None:
    for _ in range(2):
        place.ask("bare")
    # Wide ones: however often it is asked until they are in force, nobody is refused.
    limits = {"rpd": 5_000, "tpd": 1_000_000, "rpm": 50_000, "budget_usd": {"month": 10.0}}
    keys = [*without("bare"), key("bare", limits=limits)]
    place.mobius.edit(config(place.provider.base_url, keys), "save")
    name = "x-ratelimit-limit-requests"
    wait_until(lambda: place.ask("bare")[1][name] == "5000", IN_FORCE_S, "the limits")
    _, headers = place.ask("bare")
    rows = len(place.rows("key = 'bare'"))
    assert headers["x-ratelimit-remaining-requests"] == str(5_000 - rows)
    assert headers["x-ratelimit-remaining-tokens"] == str(1_000_000 - 70 * rows)
    place.mobius.edit(config(place.provider.base_url), "save")


def test_a_limit_that_is_new_counts_the_stream_that_is_under_way(place: Place) -> None:
    gate = Gate()
    place.provider.script(Answer(gate=gate, gate_after_tokens=1))
    keys = [*without("bare"), key("bare", limits={"max_parallel": 1})]
    with place.client("bare").chat.completions.create(
        model="m", messages=HI, stream=True
    ) as stream:
        next(iter(stream))
        place.mobius.edit(config(place.provider.base_url, keys), "save")
        wait_until(lambda: _shown(place, "bare", "max_parallel"), IN_FORCE_S, "the limit")
        assert _shown(place, "bare", "max_parallel") == {0}
        assert "max_parallel" in str(place.refuse("bare"))
    gate.open()
    wait_until(lambda: _asks(place, "bare"), SETTLED_S, "the place")
    place.mobius.edit(config(place.provider.base_url), "save")


def _shown(place: Place, scope: str, limit: str) -> set[float]:
    """What is told to be left under that limit."""
    wanted = {("name", scope), ("limit", limit)}
    found = place.mobius.metrics().items()
    return {left for (name, has), left in found if name == REMAINING.name and wanted <= has}


def _told(place: Place, word: str) -> bool:
    return word in str(place.refuse("edited"))


def _asks(place: Place, name: str) -> bool:
    try:
        place.ask(name)
    except openai.RateLimitError:
        return False
    return True


# Prices


def test_every_kind_of_token_has_its_own_price(place: Place) -> None:
    before = place.mobius.metrics()
    place.provider.always(Answer(usage=DETAILED))
    _, headers = place.ask("rich", model="kinds")
    assert Decimal(headers["x-mobius-cost-usd"]) == Decimal(DETAILED_NANO_USD) / NANO
    create = place.client("rich").chat.completions.create
    list(create(model="kinds", messages=HI, stream=True, max_tokens=10))
    after = place.mobius.metrics()

    def grew(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    cost = grew("mobius_cost_usd_total", model="kinds", key="rich")
    assert cost == pytest.approx(2 * DETAILED_NANO_USD / 1e9, abs=1e-12)
    for kind, (tokens, _) in KINDS.items():
        assert grew("mobius_tokens_total", model="kinds", kind=kind) == 2 * tokens
    rows = place.rows("model = 'kinds'")
    assert rows == [("ok", 1000, 500, DETAILED_NANO_USD, 0)] * 2


def test_what_anthropic_reads_from_its_cache_and_writes_to_it_has_its_own_price() -> None:
    nano_usd = 100 * 1000 + 300 * 100 + 150 * 1250 + 50 * 2000 + 40 * 2000
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 200,
        "cache_creation": {"ephemeral_5m_input_tokens": 150, "ephemeral_1h_input_tokens": 50},
        "output_tokens": 40,
    }
    prices = {**PRICES, "cache_creation_input_token_cost_above_1hr": 2e-6}
    with FakeAnthropic() as provider:
        provider.always(Answer(usage=usage))
        model = target("anthropic/claude", provider.base_url, name="m", **prices)
        with Mobius({"model_list": [model], "mobius": {"keys": [key("rich")]}}) as mobius:
            client = mobius.openai(api_key=secret("rich"))
            create = client.chat.completions.with_raw_response.create
            raw = create(model="m", messages=HI, max_tokens=10)
            assert Decimal(raw.headers["x-mobius-cost-usd"]) == Decimal(nano_usd) / NANO
            list(client.chat.completions.create(model="m", messages=HI, stream=True))
            cost = total(mobius.metrics(), "mobius_cost_usd_total", model="m", key="rich")
            assert cost == pytest.approx(2 * nano_usd / 1e9, abs=1e-12)
            rows = select(
                mobius.folder / "data" / "mobius.db",
                "SELECT prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,"
                " cache_write_1h_tokens, nano_usd FROM attempts",
            )
            assert rows == [(600, 40, 300, 200, 50, nano_usd)] * 2


def test_a_model_without_a_price_is_not_for_who_has_a_budget(place: Place) -> None:
    error = place.refuse("rich", "unpriced", openai.PermissionDeniedError)
    assert (error.status_code, error.code) == (403, "price_unknown")
    assert error.response.headers["x-should-retry"] == "false"
    for word in ("unpriced/openai/unheard-of", "input_cost_per_token", "unknown_price: free"):
        assert word in str(error)
    _, headers = place.ask("free", "unpriced")
    assert "x-mobius-cost-usd" not in headers


def test_a_model_without_a_price_may_be_free() -> None:
    with FakeOpenAI() as provider:
        provider.always(Answer(usage=TOOK))
        with Mobius(config(provider.base_url, unknown_price="free")) as mobius:
            place = Place(mobius, provider)
            place.ask("rich", "unpriced")
            assert place.rows() == [("ok", 60, 10, None, 0)]


def test_without_a_number_an_answer_is_bounded_by_default_max_tokens(place: Place) -> None:
    place.provider.always(Answer(usage=TOOK))
    place.ask("failing", "unpriced", max_tokens=None)
    assert place.provider.journal.last.json["max_completion_tokens"] == 77
    place.ask("failing", "m", max_tokens=None)
    assert not {"max_tokens", "max_completion_tokens"} & place.provider.journal.last.json.keys()
    place.ask("free", "unpriced", max_tokens=None)
    assert not {"max_tokens", "max_completion_tokens"} & place.provider.journal.last.json.keys()


# Departures and failures


def test_who_leaves_midway_pays_for_what_was_seen_within_a_second(place: Place) -> None:
    gate = Gate()
    place.provider.script(Answer(tokens=40, gate=gate, gate_after_tokens=20))
    with place.client("leaving").chat.completions.create(
        model="m", messages=HI, stream=True, max_tokens=50
    ) as stream:
        for _ in zip(range(20), stream, strict=False):
            pass
    (row,) = place.wait_rows("key = 'leaving'", 1, SETTLED_S)
    outcome, prompt, completion, nano_usd, estimated = row
    said = sum(len(f"t{number} ") for number in range(20))
    assert (outcome, estimated) == ("cancelled", 1)
    assert said // 4 - 1 <= completion <= said // 4 + 1
    assert nano_usd == prompt * 1000 + completion * 2000
    gate.open()
    _, headers = place.ask("leaving")
    assert int(headers["x-ratelimit-remaining-tokens"]) == 10_000 - prompt - completion - 70


def test_who_leaves_before_the_answer_gives_its_place_back(place: Place) -> None:
    gate = Gate()
    place.provider.script(Answer(gate=gate))
    client = place.client("failing")
    before = len(place.rows("key = 'failing' and outcome = 'cancelled'"))
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.3).chat.completions.create(model="m", messages=HI)
    rows = place.wait_rows("key = 'failing' and outcome = 'cancelled'", before + 1)
    assert rows[-1] == ("cancelled", 0, 0, 0, 0)
    place.ask("failing")
    gate.open()


@pytest.mark.parametrize("status", FAILURES)
def test_a_failure_gives_back_all_that_was_set_aside(place: Place, status: int) -> None:
    _, before = place.ask("failing")
    rows = len(place.rows("key = 'failing'"))
    place.provider.script(Fails(status))
    with pytest.raises(openai.APIStatusError) as failed:
        place.ask("failing", f"m-{status}")
    after = failed.value.response.headers
    name = "x-ratelimit-remaining-tokens"
    assert after[name] == before[name]
    (row,) = place.rows("key = 'failing'")[rows:]
    assert row[:4] == (FAILURES[status], 0, 0, 0)


def test_a_stream_that_breaks_pays_for_what_was_seen(place: Place) -> None:
    place.provider.script(Breaks(tokens=40, after_tokens=20, how="reset"))
    with pytest.raises(openai.APIError):
        for _ in place.client("free").chat.completions.create(model="m", messages=HI, stream=True):
            pass
    row = place.wait_rows("key = 'free' and outcome = 'broken'", 1)[-1]
    assert row[4] == 1
    assert row[2] > 10


# A restart


def test_what_was_used_before_a_restart_is_used_after_it(place: Place) -> None:
    for model in ("m", "claude-x", "claude-x", "wild-a", "wild-bc"):
        place.ask("free", model)
    for model in ("claude-x", "wild-a", "wild-bc", "wild-bd"):
        place.refuse("free", model)
    place.ask("past")
    _, before = place.ask("past")
    place.mobius.stop()
    place.mobius.start()
    for model in ("claude-x", "wild-a", "wild-bc", "wild-bd"):
        place.refuse("free", model)
    assert "rpm 2, 2 used" in str(place.refuse("past"))
    keys = [
        *without("past"),
        key("past", team="past", limits={"rpm": 90, "rpd": 50, "tpm": 10_000}),
    ]
    place.mobius.edit(config(place.provider.base_url, keys), "save")
    wait_until(lambda: _asks(place, "past"), IN_FORCE_S, "the larger limit")
    _, after = place.ask("past")
    name = "x-ratelimit-remaining-tokens"
    assert int(after[name]) == int(before[name]) - 2 * 70
    spent = 0
    while _asks(place, "past"):
        spent += 1
        assert spent < 10
    error = place.refuse("past")
    assert "limit of team `past` is reached: budget_usd.month $0.0006" in str(error)
    place.mobius.stop()
    place.mobius.start()
    assert str(place.refuse("past")).split(" used")[0] == str(error).split(" used")[0]


def test_a_server_that_ends_leaves_nothing_open() -> None:
    gate = Gate()
    with FakeOpenAI() as provider:
        made = config(provider.base_url)
        made["mobius"]["grace"] = 0.2
        with Mobius(made) as mobius:
            place = Place(mobius, provider)
            provider.script(
                Answer(tokens=40, gate=gate, gate_after_tokens=20), Answer(usage=TOOK, gate=gate)
            )
            stream = place.client("free").chat.completions.create(
                model="m", messages=HI, stream=True
            )
            next(iter(stream))
            with Visitor(mobius.port, "m", key=secret("free")):
                provider.journal.wait_received(2)
                assert mobius.stop() == 0
            assert open_ids(place.ledger) == []
            assert sorted(row[0] for row in place.rows()) == ["cancelled", "cancelled"]
            gate.open()
            mobius.start()
            assert "recovered" not in mobius.log
