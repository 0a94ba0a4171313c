"""The instruments: how often they are read, and what may stand in their labels."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.errors import ProxyError, UpstreamFailure
from proxy.leeway import Leeway, ProviderUnit
from proxy.metrics import Metrics, outcome_of
from proxy.retry import Kind
from proxy.spans import Counts, Family
from proxy.types import Call, Surface, Tally, Usage
from proxy.usage import usage_of
from tests.fakes import (
    Bench,
    Fails,
    FakeClock,
    Passes,
    Script,
    answer,
    ask,
    delta,
    finish,
    limited,
    role,
    usage,
)

OK = answer()
README = Path(__file__).resolve().parent.parent / "README.md"


def classes(base: type[ProxyError] = ProxyError) -> Iterable[type[ProxyError]]:
    yield base
    for each in base.__subclasses__():
        yield from classes(each)


OUTCOMES = {"ok", "cancelled", "internal_error"} | {cls.code or cls.type for cls in classes()}


def serve(bench: Bench, call: Call | None = None) -> None:
    with suppress(ProxyError):
        asyncio.run(bench.read(call) if call and call.stream else bench.serve(call))


def test_a_counter_says_since_when_it_counts() -> None:
    clock = FakeClock()
    clock.wall_s = 5.0
    counts = Counts(Family("x_total", "What.", ("model",)), clock.wall)
    counts.add(("m",))
    clock.wall_s = 6.0
    counts.add(("m",), 1.5)
    (family,) = counts.collect()
    assert (family.name, family.type) == ("x", "counter")
    told = {sample.name: (sample.labels, sample.value) for sample in family.samples}
    assert told == {"x_total": ({"model": "m"}, 2.5), "x_created": ({"model": "m"}, 5.0)}


@pytest.mark.parametrize(
    ("script", "stream", "outcome"),
    [
        ([OK], False, "ok"),
        ([Kind.TRANSIENT, OK], False, "ok"),
        ([Kind.TRANSIENT] * 4, False, "no_target_available"),
        ([Fails(Kind.CALLER, 400, code="whatever the provider says")], False, "refused"),
        ([Fails(Kind.RATE_LIMITED, 429, 9.0, code="theirs")], False, "rate_limit_exceeded"),
        ([[role(), delta("t0"), finish(), usage()]], True, "ok"),
        ([[delta("t0"), Kind.TRANSIENT]], True, "upstream_error"),
        ([[role()], Kind.CREDENTIAL], True, "provider_auth_error"),
    ],
)
def test_every_request_is_observed_once_whatever_became_of_it(
    script: list[Script], stream: bool, outcome: str
) -> None:
    bench = Bench({"a": script}, laps=4)
    serve(bench, ask(stream=stream))
    ((labels, count),) = bench.samples("mobius_request_seconds_count")
    assert count == 1
    assert labels == {
        "surface": "chat",
        "model": "m",
        "provider": "none" if outcome not in ("ok", "upstream_error") else "openai",
        "stream": "true" if stream else "false",
        "outcome": outcome,
    }
    assert bench.value("mobius_overhead_seconds_count") == 1
    assert bench.value("mobius_in_flight_requests") == 0


def test_each_physical_call_is_observed_with_how_it_ended() -> None:
    bench = Bench({"a": [Kind.TRANSIENT, limited(9.0)], "b": [(Passes(2.0), OK)]})
    serve(bench)
    counts = bench.samples("mobius_attempt_seconds_count")
    assert [(labels["target"], labels["outcome"], n) for labels, n in counts] == [
        ("a", "transient", 1),
        ("a", "rate_limited", 1),
        ("b", "ok", 1),
    ]
    assert bench.value("mobius_attempt_seconds_sum", target="b") == 2.0
    assert bench.value("mobius_retries_total", model="m") == 1
    assert bench.value("mobius_fallbacks_total", model="m") == 1


def test_a_target_that_rests_is_no_physical_call() -> None:
    bench = Bench({"a": [limited(9.0)]})
    serve(bench)
    serve(bench)
    assert bench.value("mobius_attempt_seconds_count") == 1
    assert bench.value("mobius_request_seconds_count") == 2


def test_our_own_time_is_the_total_less_upstream_and_waits() -> None:
    bench = Bench({"a": [(Passes(2.0), limited(1.0)), (Passes(4.0), OK)]})
    serve(bench)
    assert bench.value("mobius_request_seconds_sum") == 7.0
    assert bench.value("mobius_overhead_seconds_sum") == 0.0


def test_the_first_token_is_timed_from_the_request_and_the_others_from_the_one_before() -> None:
    pieces: list[Any] = [role(), Passes(0.5), delta("t0"), Passes(0.25), delta("t1"), finish()]
    bench = Bench({"a": [Kind.TRANSIENT, pieces]}, chance=lambda: 0.0)
    serve(bench, ask(stream=True))
    assert bench.samples("mobius_time_to_first_token_seconds_sum") == [
        ({"model": "m", "provider": "openai"}, 0.5)
    ]
    assert bench.value("mobius_time_to_first_token_seconds_count") == 1
    assert bench.value("mobius_inter_token_seconds_sum") == 0.25
    assert bench.value("mobius_inter_token_seconds_count") == 2


def test_a_whole_answer_has_no_first_token() -> None:
    bench = Bench({"a": [OK]})
    serve(bench)
    assert bench.samples("mobius_time_to_first_token_seconds_count") == []


def test_tokens_are_counted_once_per_kind() -> None:
    body = answer(
        100,
        50,
        prompt_tokens_details={"cached_tokens": 60},
        completion_tokens_details={"reasoning_tokens": 20},
    )
    bench = Bench({"a": [body]})
    serve(bench)
    assert {labels["kind"]: n for labels, n in bench.samples("mobius_tokens_total")} == {
        "prompt": 40,
        "prompt_cached": 60,
        "completion": 30,
        "reasoning": 20,
    }


@pytest.mark.parametrize("wants_usage", [True, False])
def test_the_usage_of_a_stream_is_counted_whether_it_is_shown_or_not(wants_usage: bool) -> None:
    bench = Bench({"a": [[delta("t0"), finish(), usage(11, 13)]]})
    serve(bench, ask(stream=True, wants_usage=wants_usage))
    assert bench.value("mobius_tokens_total", kind="prompt") == 11
    assert bench.value("mobius_tokens_total", kind="completion") == 13


COUNTS = st.integers(-5, 200) | st.none() | st.just("9")


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_token_kinds_are_disjoint_and_sum_to_the_total(
    prompt: Any, completion: Any, cached: Any, written: Any, reasoning: Any
) -> None:
    counted = usage_of(
        {
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "prompt_tokens_details": {
                    "cached_tokens": cached,
                    "cache_creation_tokens": written,
                },
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            }
        }
    )
    if counted is None:
        return
    kinds = dict(counted.kinds())
    assert len(kinds) == len(counted.kinds())
    assert min(kinds.values()) >= 0
    assert sum(kinds.values()) == counted.prompt_tokens + counted.completion_tokens


def test_what_a_client_invents_becomes_no_series() -> None:
    bench = Bench({"a": [OK]})
    serve(bench)
    before = len(bench.samples("mobius_request_seconds_count"))
    for number in range(100):
        serve(bench, ask(model=f"invented-{number}"))
    series = bench.samples("mobius_request_seconds_count")
    assert len(series) == before + 1
    assert series[-1][0]["model"] == "unknown"
    assert b"invented" not in bench.metrics.render()


def test_what_a_provider_writes_becomes_no_series() -> None:
    for kind in Kind:
        bench = Bench({"a": [Fails(kind, 400, 9.0, "theirs", "theirs", "theirs")] * 4})
        serve(bench)
        assert b"theirs" not in bench.metrics.render()
        assert {
            labels["outcome"] for labels, _ in bench.samples("mobius_request_seconds_count")
        } <= (OUTCOMES)
        assert {
            labels["outcome"] for labels, _ in bench.samples("mobius_attempt_seconds_count")
        } <= {kind.value for kind in Kind}


def test_every_error_of_the_tree_has_an_outcome_of_its_own() -> None:
    assert outcome_of(errors.RequestInvalid("x")) == ("invalid_request_error", 400)
    assert outcome_of(errors.Refused(Fails(Kind.CALLER, code="x").failure(), status=422)) == (
        "refused",
        422,
    )
    assert outcome_of(ZeroDivisionError()) == ("internal_error", 500)
    for cls in classes():
        if cls not in (errors.Refused, UpstreamFailure):
            assert outcome_of(cls("x")) == (cls.code or cls.type, cls.status)


def test_names_end_in_their_unit_and_every_instrument_says_what_it_is() -> None:
    text = Metrics(FakeClock()).render().decode()
    described = dict(re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE))
    assert all(help_.endswith(".") for help_ in described.values())
    histograms = re.findall(r"^# TYPE (\w+) histogram$", text, re.MULTILINE)
    assert histograms
    assert all(name.startswith("mobius_") and name.endswith("_seconds") for name in histograms)


def test_two_services_in_one_process_do_not_notice_each_other() -> None:
    first, second = Bench({"a": [OK]}), Bench({"a": []})
    serve(first)
    assert first.value("mobius_request_seconds_count") == 1
    assert second.samples("mobius_request_seconds_count") == []


def test_gauges_and_counters_of_the_service_itself() -> None:
    bench = Bench({})
    assert {labels["result"]: n for labels, n in bench.samples("mobius_config_reload_total")} == {
        "ok": 0,
        "error": 0,
    }
    bench.metrics.reloaded("ok")
    bench.metrics.generation(7)
    bench.metrics.healthy({"a": True, "b": False})
    bench.metrics.rejected("invalid_api_key")
    assert bench.value("mobius_config_reload_total", result="ok") == 1
    assert bench.value("mobius_config_generation") == 7
    assert bench.value("mobius_target_healthy", target="a") == 1
    assert bench.value("mobius_target_healthy", target="b") == 0
    assert bench.value("mobius_rejected_total", reason="invalid_api_key") == 1


def test_a_target_that_the_file_no_longer_has_is_neither_healthy_nor_not() -> None:
    bench = Bench({})
    bench.metrics.healthy({"a": True, "b": False})
    bench.metrics.healthy({"a": False})
    assert bench.samples("mobius_target_healthy") == [({"target": "a"}, 0.0)]


def test_what_providers_say_is_left_is_told_of_the_targets_of_the_file() -> None:
    bench = Bench({})
    said = Leeway(ProviderUnit.INPUT_TOKENS, 7, 100, reset_s=3.0)
    bench.metrics.provider({"a": [said], "b": [Leeway(ProviderUnit.REQUESTS, 3)], "c": []})
    labels = {"target": "a", "unit": "input_tokens"}
    assert bench.samples("mobius_provider_remaining") == [
        (labels, 7.0),
        ({"target": "b", "unit": "requests"}, 3.0),
    ]
    assert bench.samples("mobius_provider_limit") == [(labels, 100.0)]
    bench.metrics.provider({"b": []})
    assert bench.samples("mobius_provider_remaining") == []
    assert bench.samples("mobius_provider_limit") == []


def test_the_readme_names_every_metric() -> None:
    described = README.read_text()
    names = [family.name for family in Metrics(FakeClock()).registry.collect()]
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"`{name}(_total)?`", described)] == []


def test_a_request_is_in_flight_from_its_start_to_its_end() -> None:
    bench = Bench({})
    tally = Tally("req-1", Surface.CHAT, "m", False, bench.clock.now(), usage=Usage(1, 2))
    with bench.metrics.measure(tally):
        assert bench.value("mobius_in_flight_requests") == 1
    assert bench.value("mobius_in_flight_requests") == 0
    with pytest.raises(asyncio.CancelledError), bench.metrics.measure(tally):
        raise asyncio.CancelledError
    assert bench.value("mobius_in_flight_requests") == 0
    assert tally.outcome == "cancelled"
